"""The `lockstep` command as a person runs it: a process of its own, with what it prints and how it ends."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Final

from lockstep_sandbox.stack import Sandbox

#: As `python -c` takes it.
PROGRAM: Final = "from lockstep_client.cli import main; main()"


async def lockstep(*arguments: str, sandbox: Sandbox | None = None, seconds_max: float = 180.0) -> tuple[int, str, str]:
    """Run the command, with a sandbox's client configuration if one is given: its exit code, what it printed, and what it told on standard error.

    Raises:
        TimeoutError: it did not end in time; it is killed.
    """
    configured = () if sandbox is None else ("--config", str(sandbox.client_configuration))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments, *configured,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds_max):
            out, errors = await process.communicate()
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ProcessLookupError):
            process.kill()
        raise
    return process.returncode or 0, out.decode(), errors.decode()
