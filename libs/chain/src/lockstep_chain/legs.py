"""Legs whose effect is an entry of a contract: carries them in transactions, and judges them at finality. Holds no rules.

A leg that begins a phase is taken up by the carrier (`carrying`), which queues one chain transaction for as many as there are. When a transaction is final,
the entries are read in a final block and judged (`judging`); the answer is stored through the participant engine. A slow round over everything that is not
answered is the safety net: whatever was lost, the contract is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from lockstep_chain import leg_store
from lockstep_chain.book import Call, ContractBook
from lockstep_chain.judging import Again, Order, Place, Releases, Stuck, Waits, failure_code, judge, promised
from lockstep_chain.leg_store import Carried
from lockstep_chain.ports import Block, Evm, EvmUnavailable
from lockstep_chain.sender import Intent, SettledTransaction, TransactionMachine
from lockstep_chain.settling import BLOCK_NUMBER
from lockstep_kit.db import Connection, Database
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import derived
from lockstep_kit.loops import Soon
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.participant.records import LegKey
from lockstep_kit.spans import plan_spans

_log = structlog.get_logger()

WORKING: Final = (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING, Phase.REVERSING)
#: What the machine calls the transactions of legs, by the phase of the legs.
_PURPOSES_OF: Final = {phase: phase.value.lower() for phase in WORKING}
_PURPOSES: Final = frozenset(_PURPOSES_OF.values())
#: Where the chain did not answer it is asked again after so long.
UNREACHED_SECONDS: Final = 1.0
#: What a phase that can be refused before anything is sent is refused with.
_REFUSALS: Final = {Phase.PREPARING: Finding.VOTED_NO, Phase.REVERSING: Finding.REVERSAL_REFUSED}
JUDGED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class _Load:
    """Legs that one transaction carries."""

    #: Idempotency key of the transaction.
    key: str
    #: Phase that the legs are in.
    phase: Phase
    #: The legs, with the number of the attempt.
    legs: Sequence[tuple[LegWork, int]]
    #: What it calls.
    call: Call


class ContractOperations:
    """`Operations` of a participant whose legs are entries of a contract."""

    def __init__(self, book: ContractBook, machine: TransactionMachine) -> None:
        self._book = book
        self._machine = machine
        #: Set when legs were begun, which the carrier takes up.
        self.begun = asyncio.Event()

    def capabilities(self) -> Capabilities:
        """What the contract allows."""
        return self._book.capabilities()

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Leave the legs, which stand in their phase now, to the carrier; answer at once what can never be served here."""
        completions: list[Completion] = []
        for each in work:
            refusal = self._book.refuses(each) if each.phase in _REFUSALS else None
            if refusal is not None:
                completions.append(Completion(each.plan_id, each.leg_id, _REFUSALS[each.phase], refusal=refusal))
            elif each.phase is Phase.ABORTING and self._book.foreign(each):
                # There is no entry to end, and its call could not even be written: it would take the batch with it.
                completions.append(Completion(each.plan_id, each.leg_id, Finding.RELEASED))
        return completions

    def wake(self) -> None:
        """Take up what was begun."""
        self.begun.set()

    async def carry(self, tx: Connection, legs: Sequence[tuple[LegWork, int]]) -> None:
        """Queue one transaction for each batch of legs of one phase; the number is the attempt."""
        loads: list[_Load] = []
        for phase in WORKING:
            loads += self._loads(phase, [(work, attempt) for work, attempt in legs if work.phase is phase], phase)
        await self._enqueue(tx, loads)

    async def release(self, tx: Connection, legs: Sequence[tuple[LegWork, int]]) -> None:
        """Queue transactions that end what is held for legs that are not promised yet; they count as attempts of the phase that the legs are in."""
        await self._enqueue(tx, self._loads(Phase.PREPARING, legs, Phase.ABORTING))

    def _loads(self, phase: Phase, legs: Sequence[tuple[LegWork, int]], deed: Phase) -> list[_Load]:
        size = self._book.batch_max
        batches = [legs[start : start + size] for start in range(0, len(legs), size)]
        return [load for batch in batches for load in self._fitting(phase, batch, deed)]

    def _fitting(self, phase: Phase, batch: Sequence[tuple[LegWork, int]], deed: Phase) -> list[_Load]:
        call = self._book.call(deed, [work for work, _ in batch])
        if len(batch) > 1 and not self._machine.limits.fit(call.data, call.gas_limit):
            # Long signatures of a few payers must not keep the others' legs from the chain.
            half = len(batch) // 2
            return [*self._fitting(phase, batch[:half], deed), *self._fitting(phase, batch[half:], deed)]
        # The same legs at the same attempt are the same transaction, whoever queues it and however often.
        parts = [f"{work.plan_id}/{work.leg_id}/{work.revision}/{number}" for work, number in batch]
        return [_Load(derived("chain", self._book.contract, phase.value, *parts), phase, batch, call)]

    async def _enqueue(self, tx: Connection, loads: Sequence[_Load]) -> None:
        if not loads:
            return
        await leg_store.insert_orders(
            tx,
            [
                Carried(work.plan_id, work.leg_id, load.phase, work.order_no, number, load.key, self._book.entry_key(work))
                for load in loads
                for work, number in load.legs
            ],
        )
        await self._machine.enqueue(tx, [self._intent(load) for load in loads])

    def _intent(self, load: _Load) -> Intent:
        first, _ = load.legs[0]
        return Intent(
            idempotency_key=load.key,
            to=self._book.contract,
            data=load.call.data,
            gas_limit=load.call.gas_limit,
            purpose=_PURPOSES_OF[load.phase],
            plan_id=first.plan_id,
            leg_id=first.leg_id,
            traceparent=first.traceparent,
        )


class SettledOrders:
    """Notes which legs the transactions skipped that came to their end, and wakes every replica's judge."""

    def __init__(self, book: ContractBook) -> None:
        self._book = book

    async def on_settled(self, tx: Connection, settled: Sequence[SettledTransaction]) -> None:
        """Runs inside the database transaction that stores the ends."""
        own = [each for each in settled if each.purpose in _PURPOSES]
        if not own:
            return
        for each in own:
            skips = [(skip.key, skip.code, skip.detail) for skip in self._book.skips(each.logs)]
            otherwise = ("", "") if each.succeeded else (failure_code(each.state, each.evidence), each.detail)
            await leg_store.settle_orders(tx, each.idempotency_key, each.transaction_hash, skips, otherwise)
        # Told by the database when this transaction commits: a judge that was woken before would find nothing settled.
        await leg_store.tell(tx)


class LegJudge:
    """Reads entries at finality and reports what is found."""

    def __init__(
        self,
        db: Database,
        engine: ParticipantEngine,
        book: ContractBook,
        operations: ContractOperations,
        machine: TransactionMachine,
        evm: Evm,
    ) -> None:
        self._db = db
        self._engine = engine
        self._book = book
        self._operations = operations
        self._machine = machine
        self._evm = evm

    async def round(self) -> Soon | None:
        """Judge every leg that owes an answer, a batch at a time."""
        after: LegKey | None = None
        while True:
            async with self._db.connection() as connection:
                # A leg whose transaction is under way cannot have an answer yet; asking the node about it would be work for nothing.
                keys = await leg_store.unanswered(connection, after, JUDGED_MAX)
                due = await self._engine.load(connection, keys, phases=WORKING)
                orders = await leg_store.last_orders(connection, due)
            if not keys:
                return None
            try:
                if due:
                    await self._judge_batch(due, orders)
            except EvmUnavailable:
                # The machine says so, once; the contract is asked again in the next round.
                return Soon(UNREACHED_SECONDS)
            after = keys[-1]

    async def _judge_batch(self, due: Sequence[LegWork], orders: dict[LegKey, Order]) -> None:
        keys = [self._book.entry_key(each) for each in due]
        result, block = await self._machine.call_at_final(self._book.contract, self._book.status_query(keys))
        place = Place(self._book.chain, self._book.contract, block.number, block.hash)
        found = dict(zip(((each.plan_id, each.leg_id) for each in due), self._book.statuses(result), strict=True))
        unpayable = await self._unpayable(due, found, block)
        async with self._db.transaction() as tx:
            # A status that was read before the leg went on, or before its transaction came to its end, says nothing about the leg as it is now.
            same = await self._engine.hold(tx, due)
            now = await leg_store.last_orders(tx, same)
            current = [each for each in same if now.get(key := (each.plan_id, each.leg_id)) == orders.get(key)]
            await self._store(tx, current, found, now, place, unpayable)
        self._machine.wake()

    async def _unpayable(self, due: Sequence[LegWork], found: dict[LegKey, str], block: Block) -> dict[LegKey, str]:
        """Of what would be promised now, at the block in which it was found held: why it could not be paid out."""
        asked, rules = self._book.preconditions, self._book.rules
        if asked is None:
            return {}
        held = [each for each in due if promised(each.phase, found[each.plan_id, each.leg_id], rules)]
        if not held:
            return {}
        try:
            answers = await self._evm.ask([asked.payout(each) for each in held], at=block)
        except EvmUnavailable:
            # Its prepare was rehearsed; a node that falls silent now says nothing against it.
            return {}
        return {(each.plan_id, each.leg_id): asked.unpayable(each, told) for each, told in zip(held, answers, strict=True)}

    async def _store(
        self,
        tx: Connection,
        work: Sequence[LegWork],
        found: dict[LegKey, str],
        orders: dict[LegKey, Order],
        place: Place,
        unpayable: dict[LegKey, str],
    ) -> None:
        completions: list[Completion] = []
        again: list[tuple[LegWork, int]] = []
        released: list[tuple[LegWork, int]] = []
        for each in work:
            name = (each.plan_id, each.leg_id)
            order = orders.get(name)
            attempt = order.attempt + 1 if order is not None else 1
            verdict = judge(each, self._book.entry_key(each), found[name], place, order, self._book.rules, unpayable.get(name, ""))
            match verdict:
                case Completion():
                    completions.append(verdict)
                case Again():
                    if verdict.why:
                        _log.error("dead_letter", plan_id=each.plan_id, leg_id=each.leg_id, why=verdict.why)
                        await self._engine.trouble(tx, each.plan_id, each.leg_id, verdict.why)
                    again.append((each, attempt))
                case Releases():
                    _log.warning("hold_released", plan_id=each.plan_id, leg_id=each.leg_id, why=verdict.why)
                    await self._engine.trouble(tx, each.plan_id, each.leg_id, verdict.why)
                    released.append((each, attempt))
                case Stuck():
                    _log.error("leg_stuck", plan_id=each.plan_id, leg_id=each.leg_id, why=verdict.why)
                    await self._engine.trouble(tx, each.plan_id, each.leg_id, verdict.why)
                case Waits():
                    pass
        await self._operations.carry(tx, again)
        await self._operations.release(tx, released)
        if completions:
            # A transaction goes on in the trace of the first plan whose legs it carries; what came of it is told in every plan's.
            ended = {each.plan_id for each in completions}
            traces = {each.plan_id: each.traceparent for each in work if each.plan_id in ended}
            with plan_spans("chain.judge", traces, attributes={BLOCK_NUMBER: place.block_number}):
                await self._engine.complete(tx, completions)
