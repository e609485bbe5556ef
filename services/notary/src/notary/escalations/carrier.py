"""Carries what is said of escalations to the registry, in batches, through the transaction machine, and judges it at finality. Holds no rules.

As with anchors: which transaction carries which statements is stored in the database transaction that queues it, and what the registry holds in a final
block decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from lockstep_chain.book import Call, skipped
from lockstep_chain.judging import failure_code
from lockstep_chain.legs import UNREACHED_SECONDS
from lockstep_chain.ports import Block, EvmUnavailable
from lockstep_chain.sender import Intent, SettledTransaction, TransactionMachine
from lockstep_contracts import gas
from lockstep_contracts import notary as registry
from lockstep_contracts.notary import KnownEscalation
from lockstep_kit.db import Connection, Database
from lockstep_kit.escalations import escalation_hash
from lockstep_kit.failpoints import failpoint
from lockstep_kit.ids import derived
from lockstep_kit.loops import Soon
from notary.anchors.judging import RESTED_SECONDS, Again, Never, Stands, Waits
from notary.escalations import store
from notary.escalations.rules import judge
from notary.escalations.store import Waiting, entry_of

_log = structlog.get_logger()

#: What the machine calls these transactions.
PURPOSE: Final = "escalation"


async def on_settled(tx: Connection, contract: str, settled: Sequence[SettledTransaction]) -> None:
    """Note which statements the transactions skipped that came to their end, inside the database transaction that stores the ends."""
    for each in settled:
        if each.purpose == PURPOSE:
            skips = [(skip.key, skip.code, skip.detail) for skip in skipped(contract, each.logs)]
            otherwise = ("", "") if each.succeeded else (failure_code(each.state, each.evidence), each.detail)
            await store.settle(tx, each.idempotency_key, skips, otherwise)


class EscalationCarrier:
    """Sends statements, and finds out when they stand on the registry."""

    def __init__(self, db: Database, machine: TransactionMachine, contract: str) -> None:
        self._db = db
        self._machine = machine
        self._contract = contract

    async def round(self) -> Soon | None:
        """Look at every statement that no transaction carries, a batch at a time."""
        after = 0
        while True:
            async with self._db.connection() as connection:
                waiting = await store.due(connection, gas.ESCALATIONS_MAX, after)
            if not waiting:
                # What is under way or rests is looked at again when it has rested.
                return Soon(RESTED_SECONDS) if after else None
            after = waiting[-1].seq
            try:
                await self._judge(waiting)
            except EvmUnavailable:
                # The machine says so, once; the registry is asked again in the next round.
                return Soon(UNREACHED_SECONDS)

    async def _judge(self, waiting: Sequence[Waiting]) -> None:
        names: list[bytes] = list(dict.fromkeys(escalation_hash(each.statement.escalation_id) for each in waiting))
        result, block = await self._machine.call_at_final(self._contract, registry.encode_escalation_of_many(names))
        found: dict[bytes, KnownEscalation] = dict(zip(names, registry.decode_escalation_of_many(result), strict=True))
        stood = {each.seq: each.place for each in waiting}
        async with self._db.transaction() as tx:
            # What another replica took further meanwhile is its own.
            same = [each for each in await store.lock(tx, list(stood)) if each.place == stood[each.seq]]
            await self._store(tx, same, found, block)
            await failpoint("notary.escalation.judge.in_tx")
        await failpoint("notary.escalation.judge.after_commit")

    async def _store(self, tx: Connection, waiting: Sequence[Waiting], found: dict[bytes, KnownEscalation], block: Block) -> None:
        stand: list[int] = []
        again: list[Waiting] = []
        for each in waiting:
            said = each.statement
            told = {"escalation_id": said.escalation_id, "plan_id": said.plan_id, "kind": said.kind.name}
            match judge(said, found[escalation_hash(said.escalation_id)], each.order):
                case Stands():
                    stand.append(each.seq)
                case Again(why):
                    if why:
                        _log.error("escalation_sent_anew", why=why, **told)
                    again.append(each)
                case Never(why):
                    _log.error("escalation_refused", why=why, **told)
                    await store.trouble(tx, each.seq, why)
                case Waits():
                    pass
        if stand:
            await store.place(tx, stand, block.number, block.hash)
        if again:
            await self._send(tx, again)

    async def _send(self, tx: Connection, batch: Sequence[Waiting]) -> None:
        """Queue one transaction for the batch, or several where one would be beyond the machine's limits."""
        call = _call(batch)
        if len(batch) > 1 and not self._machine.limits.fit(call.data, call.gas_limit):
            half = len(batch) // 2
            await self._send(tx, batch[:half])
            await self._send(tx, batch[half:])
            return
        # The same statements at the same attempt are the same transaction, whoever queues it and however often.
        parts = [f"{entry_of(each.statement).key.hex()}/{each.place[0]}" for each in batch]
        key = derived("escalation_record", self._contract, *parts)
        await store.order(tx, [each.seq for each in batch], key)
        intent = Intent(idempotency_key=key, to=self._contract, data=call.data, gas_limit=call.gas_limit, purpose=PURPOSE)
        await self._machine.enqueue(tx, [intent])


def _call(batch: Sequence[Waiting]) -> Call:
    records = [entry_of(each.statement) for each in batch]
    return Call(registry.encode_record_escalations(records), gas.escalation_gas(len(records)))
