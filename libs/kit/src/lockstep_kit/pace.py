"""How long it is worth to wait for company: not at all where little was under way lately, a moment where work hardly ever paused.

What is done for one costs nearly what it costs for many. Under load, a moment's wait lets what is on its way come along; where nothing else is under way,
nobody waits. Holds no rules.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: The longest wait for company.
LINGER_SECONDS_MAX: Final = 0.02
#: Company is waited for in so many steps; one in which nobody comes is the last.
STEPS: Final = 4
#: How far back "lately" goes: what was so long ago counts a third.
MEMORY_SECONDS: Final = 0.3
#: Share of the time in which work was under way, up to which nobody waits, and from which on the wait is the longest.
QUIET: Final = 0.2
BUSY: Final = 0.6


class Pace:
    """How busy some work was lately."""

    def __init__(self) -> None:
        self._share = 0.0
        self._at: float | None = None
        self._under_way = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work is under way inside."""
        # Work that is thrown away unfinished ends when no loop runs any more.
        loop = asyncio.get_running_loop()
        self._note(1, loop.time())
        try:
            yield
        finally:
            self._note(-1, loop.time())

    def _note(self, change: int, now: float) -> None:
        self._share, self._at = self._share_at(now), now
        self._under_way += change

    def share(self) -> float:
        """Share of the time, lately, in which work was under way: 0 to 1."""
        return self._share_at(asyncio.get_running_loop().time())

    def _share_at(self, now: float) -> float:
        if self._at is None:
            return 0.0
        fades = math.exp((self._at - now) / MEMORY_SECONDS)
        return self._share * fades + (1.0 - fades) * (self._under_way > 0)

    def linger_seconds(self) -> float:
        """How long it is worth to wait now."""
        return LINGER_SECONDS_MAX * min(max((self.share() - QUIET) / (BUSY - QUIET), 0.0), 1.0)

    async def linger(self) -> None:
        """Wait as long as it is worth."""
        seconds = self.linger_seconds()
        if seconds > 0.0:
            await asyncio.sleep(seconds)

    async def company(self, come: Callable[[], int], enough: int) -> None:
        """Wait as long as it is worth, until as much has come as is wanted, or a step of the wait brought nothing more."""
        step = self.linger_seconds() / STEPS
        if step == 0.0:
            return
        for _ in range(STEPS):
            seen = come()
            if seen >= enough:
                return
            await asyncio.sleep(step)
            if come() == seen:
                return
