"""Carries requested roots to the registry, in batches, through the transaction machine, and judges them at finality. Holds no rules.

Which transaction carries which roots is stored in the database transaction that queues it, and what became of them in the one that settles it. A root is
looked at before it is sent for the first time: one that the registry holds already, since the database was put back or another notary was faster, needs no
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from lockstep_chain.book import Call, skipped
from lockstep_chain.judging import failure_code
from lockstep_chain.legs import UNREACHED_SECONDS
from lockstep_chain.ports import Block, CallReverted, Evm, EvmUnavailable
from lockstep_chain.sender import Intent, SettledTransaction, TransactionMachine
from lockstep_contracts import gas
from lockstep_contracts import notary as registry
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import failpoint
from lockstep_kit.ids import derived
from lockstep_kit.loops import Soon
from lockstep_kit.values import dataclass
from notary.anchors import queue
from notary.anchors.judging import RESTED_SECONDS, Again, Never, Stands, Waits, judge
from notary.anchors.queue import AnchorRequest, Waiting

_log = structlog.get_logger()

#: What the machine calls these transactions.
PURPOSE: Final = "anchor"


@dataclass(frozen=True, slots=True)
class Reading:
    """Roots that the registry holds as they were asked for, in a final block."""

    #: The roots.
    standing: frozenset[bytes]
    #: The block.
    block: Block


class SettledAnchors:
    """Notes what became of roots whose transactions came to their end."""

    def __init__(self, db: Database, evm: Evm, contract: str) -> None:
        self._db = db
        self._evm = evm
        self._contract = contract

    async def read(self, settled: Sequence[SettledTransaction], final: Block) -> Reading | None:
        """Which of the roots that transactions carried the registry holds in a final block; None: they are looked at later."""
        own = [each.idempotency_key for each in settled if each.purpose == PURPOSE]
        if not own:
            return None
        async with self._db.connection() as connection:
            carried = await queue.carried(connection, own)
        if not 0 < len(carried) <= gas.ANCHOR_ROOTS_MAX:
            return None
        try:
            asked = registry.encode_anchor_of_many([each.root for each in carried])
            found = registry.decode_anchor_of_many(await self._evm.call(self._contract, asked, at=final))
        except (EvmUnavailable, CallReverted):
            return None
        return Reading(
            frozenset(each.root for each, known in zip(carried, found, strict=True) if known == (each.kind, each.size)), final
        )

    async def on_settled(self, tx: Connection, settled: Sequence[SettledTransaction], reading: Reading | None) -> None:
        """Runs inside the database transaction that stores the ends; what the registry was not seen to hold is looked at once more."""
        ended: set[bytes] = set()
        for each in settled:
            if each.purpose == PURPOSE:
                skips = [(skip.key, skip.code, skip.detail) for skip in skipped(self._contract, each.logs)]
                otherwise = ("", "") if each.succeeded else (failure_code(each.state, each.evidence), each.detail)
                ended |= await queue.settle(tx, each.idempotency_key, each.transaction_hash, skips, otherwise)
        stand = ended & reading.standing if reading is not None else set[bytes]()
        if reading is not None and stand:
            await queue.place(tx, sorted(stand), reading.block.number, reading.block.hash)
        if ended - stand:
            await queue.tell(tx)


class AnchorCarrier:
    """Sends roots, and finds out when they stand on the registry."""

    def __init__(self, db: Database, machine: TransactionMachine, contract: str) -> None:
        self._db = db
        self._machine = machine
        self._contract = contract

    async def round(self) -> Soon | None:
        """Look at every root that no transaction carries, a batch at a time."""
        last: Waiting | None = None
        rests = False
        while True:
            async with self._db.connection() as connection:
                waiting = await queue.due(connection, gas.ANCHOR_ROOTS_MAX, last)
            try:
                if waiting:
                    rests |= await self._judge(waiting)
            except EvmUnavailable:
                # The machine says so, once; the registry is asked again in the next round.
                return Soon(UNREACHED_SECONDS)
            if len(waiting) < gas.ANCHOR_ROOTS_MAX:
                return Soon(RESTED_SECONDS) if rests else None
            last = waiting[-1]

    async def _judge(self, waiting: Sequence[Waiting]) -> bool:
        """Do what the registry's word on roots means; whether any of them has to rest."""
        roots = [each.request.root for each in waiting]
        result, block = await self._machine.call_at_final(self._contract, registry.encode_anchor_of_many(roots))
        found = dict(zip(roots, registry.decode_anchor_of_many(result), strict=True))
        stood = {each.request.root: _place(each) for each in waiting}
        async with self._db.transaction() as tx:
            # What another replica took further meanwhile is its own.
            same = [each for each in await queue.lock(tx, roots) if _place(each) == stood[each.request.root]]
            rests = await self._store(tx, same, found, block)
            await failpoint("notary.anchor.judge.in_tx")
        await failpoint("notary.anchor.judge.after_commit")
        return rests

    async def _store(
        self, tx: Connection, waiting: Sequence[Waiting], found: dict[bytes, tuple[registry.AnchorKind, int]], block: Block
    ) -> bool:
        """Store what was found of roots; whether any of them has to rest."""
        stand: list[bytes] = []
        again: list[Waiting] = []
        rests = False
        for each in waiting:
            asked = each.request
            match judge(asked.kind, asked.size, found[asked.root], each.order):
                case Stands():
                    stand.append(asked.root)
                case Again(why):
                    if why:
                        _log.error("anchor_sent_anew", root=asked.root.hex(), why=why)
                    again.append(each)
                case Never(why):
                    _log.error("anchor_refused", root=asked.root.hex(), why=why)
                    await queue.trouble(tx, asked.root, why)
                case Waits():
                    rests = True
        if stand:
            await queue.place(tx, stand, block.number, block.hash)
        if again:
            await self._send(tx, again)
        return rests

    async def _send(self, tx: Connection, batch: Sequence[Waiting]) -> None:
        """Queue one transaction for the batch, or several where one would be beyond the machine's limits."""
        call = _call([each.request for each in batch])
        if len(batch) > 1 and not self._machine.limits.fit(call.data, call.gas_limit):
            half = len(batch) // 2
            await self._send(tx, batch[:half])
            await self._send(tx, batch[half:])
            return
        # The same roots at the same attempt are the same transaction, whoever queues it and however often.
        parts = [f"{each.request.root.hex()}/{each.order.attempt if each.order else 0}" for each in batch]
        key = derived("anchor", self._contract, *parts)
        await queue.order(tx, [each.request.root for each in batch], key)
        intent = Intent(idempotency_key=key, to=self._contract, data=call.data, gas_limit=call.gas_limit, purpose=PURPOSE)
        await self._machine.enqueue(tx, [intent])


def _place(waiting: Waiting) -> tuple[int, bool]:
    return (waiting.order.attempt, waiting.order.settled) if waiting.order is not None else (0, False)


def _call(requests: Sequence[AnchorRequest]) -> Call:
    roots = [registry.Root(each.kind, each.root, each.size) for each in requests]
    return Call(registry.encode_anchor_many(roots), gas.anchor_gas(len(roots)))
