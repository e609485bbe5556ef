"""`python -m lockstep_monitor --config FILE [--once]`: read the journal, and raise what does not hold, as lines of JSON on standard output.

--once        read up to the newest checkpoint, then end: 0 when there was no alarm, 1 when there was one, 2 when the journal could not be read
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import grpc
import structlog

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.logs import configure_logs
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.settings import load
from lockstep_monitor.run import Monitor
from lockstep_monitor.settings import MonitorSettings

ALARMED, UNREAD = 1, 2


async def run(settings: MonitorSettings, *, once: bool) -> int:
    """Watch until told to stop, or read once; the exit code."""
    async with Monitor(settings) as monitor:
        if once:
            await monitor.once()
            return ALARMED if monitor.alarms else 0
        work = asyncio.ensure_future(monitor.run())
        try:
            await until_told_to_stop(work)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return 0


def main() -> int:
    """Run with the settings of the command line; the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--once", action="store_true", help="read up to the newest checkpoint, then end")
    told, others = parser.parse_known_args()
    configure_logs("monitor")
    try:
        settings = load(MonitorSettings, others)
        configure_logs("monitor", settings.log_level)
        return asyncio.run(run(settings, once=told.once))
    except FieldInvalid as finding:
        structlog.get_logger().error("monitor_cannot_run", field=finding.field, error=str(finding))
    except grpc.aio.AioRpcError as error:
        structlog.get_logger().error("journal_unread", code=error.code().name, error=error.details())
    return UNREAD


if __name__ == "__main__":
    sys.exit(main())
