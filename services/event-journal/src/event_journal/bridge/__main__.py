"""`python -m event_journal.bridge --config FILE`: publish the journal's entries to NATS JetStream until told to stop.

    --leave-log ID    go on with the journal's log of now where the stream's last message is of the log ID, as after a restore
    --from-start      begin anew where the stream's last message was removed

Both are without effect where they do not apply, so that they may stay when the bridge is started again. Exits 3 when a person must look.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import structlog

from event_journal.bridge.rules import Halted
from event_journal.bridge.run import Bridge
from event_journal.bridge.settings import BridgeSettings
from lockstep_kit import failpoints
from lockstep_kit.logs import configure_logs
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.settings import load

HALTED = 3


async def run(bridge: Bridge) -> None:
    """Publish until told to stop."""
    work = asyncio.ensure_future(bridge.run())
    try:
        await until_told_to_stop(work)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def main() -> int:
    """Run with the settings of the command line; the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--leave-log", default="", help="log whose place another one has taken since a restore")
    parser.add_argument("--from-start", action="store_true", help="begin anew where the stream's last message was removed")
    told, others = parser.parse_known_args()
    settings = load(BridgeSettings, others)
    configure_logs("journal-bridge", settings.log_level)
    failpoints.arm_from_environment()
    try:
        asyncio.run(run(Bridge(settings, leave_log=told.leave_log, from_start=told.from_start)))
    except Halted as halted:
        structlog.get_logger().error("bridge_halted", reason=halted.reason, what_to_do=halted.what_to_do)
        return HALTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
