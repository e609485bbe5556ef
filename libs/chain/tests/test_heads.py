"""Who looks for new blocks, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from lockstep_chain.final import FinalBlocks
from lockstep_chain.heads import Heads
from lockstep_chain.ports import Block, EvmUnavailable


@dataclass
class Chain:
    """Counts what it is asked."""

    number: int = 1
    down: bool = False
    asked: int = 0
    busy: bool = False
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    async def head(self) -> Block:
        self.asked += 1
        if self.down:
            raise EvmUnavailable("it is down")
        return Block(self.number, self.number.to_bytes(32), 0, self.number)

    async def below(self, head: Block) -> Block:
        return head

    def heads(self) -> Heads:
        return Heads(cast("FinalBlocks", self), lambda: self.busy, lambda: [self.bell])

    def rung(self) -> bool:
        rung = self.bell.is_set()
        self.bell.clear()
        return rung


async def test_who_waits_hears_of_new_blocks_alone() -> None:
    """While anything is in flight the chain is asked at each look, and only a new head wakes anybody."""
    chain = Chain(busy=True)
    heads = chain.heads()
    assert heads.seen() is None
    await heads.look()
    assert chain.rung()
    await heads.look()
    assert (chain.asked, chain.rung()) == (2, False)
    chain.number = 2
    await heads.look()
    assert chain.rung()
    seen = heads.seen()
    assert seen is not None
    assert [each and each.number for each in seen] == [2, 2]


async def test_at_rest_it_is_seldom_asked() -> None:
    """While nothing is in flight a look asks nothing, but where a block is announced or something is sent."""
    chain = Chain()
    heads = chain.heads()
    for _ in range(5):
        await heads.look()
    assert chain.asked == 1
    heads.announced()
    await heads.look()
    assert chain.asked == 2
    chain.busy = True
    await heads.look()
    assert chain.asked == 3


async def test_a_chain_that_is_away_is_asked_until_it_is_back() -> None:
    """Whoever asks is told that it does not answer, and is woken when that begins and when it ends."""
    chain = Chain(down=True)
    heads = chain.heads()
    await heads.look()
    assert chain.rung()
    with pytest.raises(EvmUnavailable):
        heads.seen()
    chain.down = False
    await heads.look()
    assert chain.rung()
    assert heads.seen() is not None
