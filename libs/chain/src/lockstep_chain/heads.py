"""Looks for new blocks, once for all accounts of a machine: often when one may come and anything is in flight, seldom else. Holds no rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from lockstep_chain.final import FinalBlocks
from lockstep_chain.pacing import Metronome, quiet_until
from lockstep_chain.ports import Block, EvmUnavailable

#: While nothing is in flight the chain is looked at so often: whether it is there, and keeps to what was final.
REST_SECONDS: Final = 2.0


class Heads:
    """The newest head that was seen, and what was final below it."""

    def __init__(self, chain: FinalBlocks, busy: Callable[[], bool], ring: Callable[[], Iterable[asyncio.Event]]) -> None:
        """Nothing happens before the first look.

        Args:
            chain: what is looked at.
            busy: whether anything is in flight, so that every block counts.
            ring: who is woken by a new head, and by a chain that does not answer.
        """
        self._chain = chain
        self._busy = busy
        self._ring = ring
        #: How blocks come.
        self.metronome = Metronome()
        #: Set to have the chain looked at.
        self.wake = asyncio.Event()
        self._seen: tuple[Block, Block | None] | EvmUnavailable | None = None
        self._due = 0.0

    def announced(self) -> None:
        """Somebody says that there is a new block."""
        self._due = 0.0
        self.wake.set()

    async def look(self) -> None:
        """See whether there is a new head, if it is time for that."""
        now, before = asyncio.get_running_loop().time(), self._seen
        due = min(self._due, quiet_until(self.metronome.beat)) if self._busy() else self._due
        if now < due and isinstance(before, tuple):
            return
        self._due = now + REST_SECONDS
        try:
            head = await self._chain.head()
            if not isinstance(before, tuple) or before[0].hash != head.hash:
                self.metronome.note(head, asyncio.get_running_loop().time())
                self._seen = head, await self._chain.below(head)
        except EvmUnavailable as error:
            self._seen = error
        if self._seen is not before:
            for event in self._ring():
                event.set()

    def seen(self) -> tuple[Block, Block | None] | None:
        """The head, and the highest final block as seen from it, or None where nothing is final yet; None before the first look.

        Raises:
            EvmUnavailable: the chain did not answer when it was last looked at.
        """
        if isinstance(self._seen, EvmUnavailable):
            raise self._seen
        return self._seen
