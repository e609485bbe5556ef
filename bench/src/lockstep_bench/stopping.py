"""What a benchmark does when it is told to stop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Final, TypeVar

from lockstep_sandbox.processes import cancel_on_signals

_T = TypeVar("_T")

#: Exit code of a benchmark that was stopped by a signal.
STOPPED: Final = 130


async def unless_stopped(measuring: Awaitable[_T]) -> _T | None:
    """What is measured; None, and a word about it, when a signal stops it first."""
    with cancel_on_signals():
        try:
            return await measuring
        except asyncio.CancelledError:
            print("stopped; everything that was started is gone", file=sys.stderr)
            return None
