"""What the bank does by itself when its time comes: holds expire, late messages go out, booking days end."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from bank_simulator.desk import Desk

#: Looks this often even if nothing seems due.
LOOK_SECONDS_MAX: Final = 1.0
LOOK_SECONDS_MIN: Final = 0.002
RETRY_SECONDS: Final = 0.5

log = structlog.get_logger()


class Timers:
    """One loop. It never ends by an error: it says so, waits and goes on."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may be due earlier than thought."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                seconds = await self._desk.do_due()
            except Exception:
                log.exception("timers")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._pause(LOOK_SECONDS_MAX if seconds is None else seconds)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), min(max(seconds, LOOK_SECONDS_MIN), LOOK_SECONDS_MAX))
        except TimeoutError:
            return
        self._wake.clear()
