"""The way from a process to the node: `lockstep_chain.ports.Evm`, with everything that may go wrong on it.

A question may get lost, or its answer after it was carried out; bytes may arrive a second time, much later; the node may answer nothing for a while, or what
was so some blocks ago, or not find a receipt that is there.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from lockstep_chain.ports import (
    Answer,
    Block,
    Conditions,
    EvmUnavailable,
    PlacedLog,
    Question,
    Receipt,
    SenderTransaction,
    Tag,
    Told,
)
from lockstep_testkit.simulation.chain_contracts import Circumstances
from lockstep_testkit.simulation.loop import VirtualLoop
from lockstep_testkit.simulation.node import FINAL_DEPTH, GWEI, STATES_KEPT, Mined, Node

_T = TypeVar("_T")

#: Share of rehearsals that the node can carry out.
REHEARSES: Final = 0.7
#: Longest wait for an answer that does not come.
REQUEST_SECONDS_MAX: Final = 2.0


class SimulatedEvm:
    """The node, as one process reaches it."""

    def __init__(self, node: Node, chain_id: int, chance: random.Random, loop: VirtualLoop) -> None:
        self._node = node
        self._chain_id = chain_id
        self._chance = chance
        self._loop = loop

    @property
    def chain_id(self) -> int:
        """As `Evm.chain_id`."""
        return self._chain_id

    async def _asked(self, question: Callable[[], _T]) -> _T:
        trouble = self._node.trouble
        if trouble.down:
            await asyncio.sleep(self._chance.random() * REQUEST_SECONDS_MAX)
            raise EvmUnavailable("the endpoint gave no answer: ClientConnectorError")
        drawn = self._chance.random()
        if drawn >= trouble.lost + trouble.slow:
            return question()
        if drawn < trouble.slow:
            await asyncio.sleep(self._chance.random() * trouble.slow_seconds_max)
            return question()
        arrived = self._chance.random() < 0.5
        if arrived:
            question()
        trouble.count("node_answer_lost" if arrived else "node_question_lost")
        await asyncio.sleep(self._chance.random() * REQUEST_SECONDS_MAX)
        raise EvmUnavailable("the endpoint gave no answer: TimeoutError")

    def _height(self) -> int:
        """The highest block that is told of."""
        return max(0, len(self._node.blocks) - 1 - self._node.trouble.lag)

    def _at(self, number: int) -> Mined:
        """The block whose state is asked for."""
        height = self._height()
        if not height - STATES_KEPT < number <= height:
            raise EvmUnavailable(f"there is no state of block {number}")
        return self._node.blocks[number]

    @property
    def reach(self) -> tuple[int, int]:
        """It is one endpoint, and counts."""
        return 1, 1

    async def block(self, at: int | Tag) -> Block | None:
        """As `Evm.block`."""
        return await self._asked(lambda: self._block(at))

    def _block(self, at: int | Tag) -> Block | None:
        height = self._height()
        if at is Tag.LATEST:
            number = height
        elif isinstance(at, Tag):
            # Final stays final, even where the head goes back; a node that is behind knows only what was final there.
            final = self._node.final_height
            number = min(final, max(0, height - FINAL_DEPTH)) if self._node.trouble.lag else final
        else:
            number = at
        return self._node.blocks[number].header if number <= height else None

    async def nonce(self, address: str, at: int) -> int:
        """As `Evm.nonce`."""
        return await self._asked(lambda: self._at(at).nonces.get(address, 0))

    async def conditions(self, address: str) -> Conditions:
        """As `Evm.conditions`."""
        return await self._asked(lambda: self._conditions(address))

    def _conditions(self, address: str) -> Conditions:
        height = self._height()
        tip = self._chance.choice((GWEI, GWEI, 2 * GWEI))
        return Conditions(self._node.pending_nonce(address, height), self._node.blocks[height].header, tip, self._node.balance())

    async def receipts(self, hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
        """As `Evm.receipts`."""
        return await self._asked(lambda: self._receipts(hashes)) if hashes else {}

    def _receipts(self, hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
        height, found = self._height(), {}
        for each in hashes:
            receipt = self._node.receipt(each, height)
            if receipt is None:
                continue
            if self._node.trouble.unindexed and self._chance.random() < self._node.trouble.unindexed:
                self._node.trouble.count("receipt_not_found")
                continue
            found[each] = receipt
        return found

    async def block_hashes(self, numbers: Collection[int]) -> Mapping[int, bytes]:
        """As `Evm.block_hashes`."""
        if not numbers:
            return {}
        return await self._asked(lambda: {each: self._node.blocks[each].header.hash for each in numbers if each <= self._height()})

    async def transactions_in(self, number: int) -> Sequence[SenderTransaction]:
        """As `Evm.transactions_in`."""
        return await self._asked(
            lambda: [SenderTransaction(each.hash, each.sender, each.nonce) for each in self._at(number).transactions]
        )

    async def broadcast(self, raws: Sequence[bytes]) -> Sequence[Answer]:
        """As `Evm.broadcast`."""
        try:
            return await self._asked(lambda: [self._submit(each) for each in raws])
        except EvmUnavailable:
            return [Answer.UNCLEAR] * len(raws)

    def _submit(self, raw: bytes) -> Answer:
        trouble = self._node.trouble
        if trouble.doubled and self._chance.random() < trouble.doubled:
            trouble.count("bytes_doubled")
            later = self._chance.random() * trouble.doubled_seconds_max
            self._loop.call_later(later, self._node.submit, raw, context=contextvars.Context())
        return self._node.submit(raw)

    async def call(self, to: str, data: bytes, *, at: Block | int, sender: str | None = None, value: int = 0) -> bytes:
        """As `Evm.call`."""
        del sender, value
        return await self._asked(lambda: self._called(to, data, at))

    def _called(self, to: str, data: bytes, at: Block | int) -> bytes:
        mined = self._at(at if isinstance(at, int) else at.number)
        if isinstance(at, Block) and mined.header.hash != at.hash:
            raise EvmUnavailable("eth_call: hash is not currently canonical")
        return self._node.contracts.read(mined.state, to, data)

    async def ask(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told | None]:
        """As `Evm.ask`."""
        return await self._asked(lambda: [self._told([each], at)[0] for each in questions])

    async def rehearse(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told] | None:
        """As `Evm.rehearse`; now and then by a node that cannot."""
        return await self._asked(lambda: self._told(questions, at) if self._chance.random() < REHEARSES else None)

    def _told(self, questions: Sequence[Question], at: Block) -> list[Told]:
        mined = self._at(at.number)
        if mined.header.hash != at.hash:
            raise EvmUnavailable("the block is not canonical any more")
        state, trouble = mined.state.copy(), self._node.trouble
        now = Circumstances(at.timestamp + 1, trouble.paused, trouble.unpaid)
        return [self._node.contracts.rehearse(state, each, now) for each in questions]

    async def logs(self, address: str, topics: Sequence[bytes | None], first: int, last: int) -> Sequence[PlacedLog]:
        """As `Evm.logs`; nothing that is simulated asks for them."""
        raise AssertionError(f"nobody asks for logs of {address}: {topics} in {first} to {last}")
