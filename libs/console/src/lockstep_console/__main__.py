"""`python -m lockstep_console --config FILE`: serve the operators' page until told to stop."""

from __future__ import annotations

import asyncio
import sys

import structlog

from lockstep_console.server import Console
from lockstep_console.settings import ConsoleSettings
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.logs import configure_logs
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.settings import load

UNUSABLE = 2


async def run(settings: ConsoleSettings) -> None:
    """Serve; end its streams and answers under way when told to stop."""
    async with Console(settings):
        await until_told_to_stop()


def main() -> int:
    """Run with the settings of the command line; the exit code."""
    configure_logs("console")
    try:
        settings = load(ConsoleSettings)
        configure_logs("console", settings.log_level)
        asyncio.run(run(settings))
    except FieldInvalid as finding:
        structlog.get_logger().error("console_cannot_run", field=finding.field, error=str(finding))
        return UNUSABLE
    except OSError as error:
        structlog.get_logger().error("console_cannot_listen", error=error.strerror or str(error))
        return UNUSABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
