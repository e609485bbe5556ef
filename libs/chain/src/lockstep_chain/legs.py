"""Legs whose effect is an entry of a contract: carries them in transactions, and judges them at finality. Holds no rules.

A leg that begins a phase is carried at once where nothing has to be asked about it first and no others are gathered; else the carrier (`carrying`) takes it
up, which queues one chain transaction for as many as there are. When a transaction is final,
the entries are read in a final block and judged (`judging`); the answer is stored through the participant engine. A slow round over everything that is not
answered is the safety net: whatever was lost, the contract is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from lockstep_chain import leg_store
from lockstep_chain.book import Call, ContractBook
from lockstep_chain.judging import Again, Order, Place, Releases, Stuck, Waits, failure_code, judge, promised
from lockstep_chain.leg_store import Carried, Ended
from lockstep_chain.pacing import pause
from lockstep_chain.ports import Block, CallReverted, Evm, EvmUnavailable
from lockstep_chain.sender import Intent, SettledTransaction, TransactionMachine
from lockstep_chain.settling import BLOCK_NUMBER
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import derived
from lockstep_kit.loops import Soon
from lockstep_kit.participant.engine import Held, ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.participant.records import LegKey
from lockstep_kit.spans import plan_spans
from lockstep_kit.values import dataclass

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

    def __init__(self, book: ContractBook, machine: TransactionMachine, service: str) -> None:
        self._book = book
        self._machine = machine
        self._service = service
        #: Set when legs were begun which the carrier takes up.
        self.begun = asyncio.Event()
        #: When legs were carried last, on the loop's clock.
        self._sent_at: float | None = None
        #: Whether legs were begun since the carrier was woken that are left to it.
        self._waiting = False

    def capabilities(self) -> Capabilities:
        """What the contract allows."""
        return self._book.capabilities()

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Carry legs, which stand in their phase now, or leave them to the carrier; answer at once what can never be served here."""
        completions: list[Completion] = []
        ready: list[LegWork] = []
        left: list[LegWork] = []
        for each in work:
            refusal = self._book.refuses(each) if each.phase in _REFUSALS else None
            foreign = self._book.foreign(each)
            if refusal is not None:
                completions.append(Completion(each.plan_id, each.leg_id, _REFUSALS[each.phase], refusal=refusal))
            elif each.phase is Phase.ABORTING and foreign:
                # There is no entry to end, and its call could not even be written: it would take the batch with it.
                completions.append(Completion(each.plan_id, each.leg_id, Finding.RELEASED))
            elif foreign or (each.phase is Phase.PREPARING and self._book.preconditions is not None):
                left.append(each)
            else:
                ready.append(each)
        if self.pause() > 0:
            left += ready
        elif ready:
            self.sent()
            await self.carry(tx, [(each, 1) for each in ready])
        self._waiting = self._waiting or bool(left)
        return completions

    def pause(self) -> float:
        """For how many seconds legs are gathered before they are sent."""
        return pause(asyncio.get_running_loop().time(), self._sent_at, self._machine.beat)

    def sent(self) -> None:
        """Legs are carried now."""
        self._sent_at = asyncio.get_running_loop().time()

    def wake(self) -> None:
        """Have what was left taken up; what was carried is announced by the database."""
        waiting, self._waiting = self._waiting, False
        if waiting:
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
        await failpoint(f"{self._service}.chain.carry.in_tx")

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


@dataclass(frozen=True, slots=True)
class Reading:
    """What the contract says of entries in a final block."""

    #: The block, and the contract.
    place: Place
    #: Statuses by the entries' keys.
    statuses: Mapping[bytes, str]
    #: Of legs that would be promised now: why what is held could not be paid out.
    unpayable: Mapping[LegKey, str]


class LegJudge:
    """Reads entries at finality and reports what is found: as a rule in the database transaction that settles the transaction that carried them."""

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

    async def read(self, settled: Sequence[SettledTransaction], final: Block) -> Reading | None:
        """What the contract says of the entries that transactions carried which have come to their end by a final block; None: they are judged later."""
        own = [each.idempotency_key for each in settled if each.purpose in _PURPOSES]
        if not own:
            return None
        async with self._db.connection() as connection:
            carried = await leg_store.entries(connection, own)
            begun = [leg for _, leg, phase in carried if phase is Phase.PREPARING] if self._book.preconditions is not None else []
            promising = await self._engine.load(connection, begun, phases=(Phase.PREPARING,))
        keys = list({key: None for key, _, _ in carried})
        if not 0 < len(keys) <= JUDGED_MAX:
            return None
        try:
            result = await self._evm.call(self._book.contract, self._book.status_query(keys), at=final)
            statuses = dict(zip(keys, self._book.statuses(result), strict=True))
            unpayable = await self._unpayable(promising, {leg: statuses[key] for key, leg, _ in carried}, final)
        except (EvmUnavailable, CallReverted):
            return None
        return Reading(self._place(final), statuses, unpayable)

    async def settle(self, tx: Connection, settled: Sequence[SettledTransaction], reading: Reading | None) -> None:
        """Note which legs the transactions skipped that came to their end, and judge their legs by what was read; else have every replica's judge woken.

        Runs inside the database transaction that stores the ends.
        """
        ended: list[Ended] = []
        for each in settled:
            if each.purpose in _PURPOSES:
                skips = [(skip.key, skip.code, skip.detail) for skip in self._book.skips(each.logs)]
                otherwise = ("", "") if each.succeeded else (failure_code(each.state, each.evidence), each.detail)
                ended += await leg_store.settle_orders(tx, each.idempotency_key, each.transaction_hash, skips, otherwise)
        if not ended:
            return
        if reading is None or not reading.statuses.keys() >= {each.entry_key for each in ended}:
            # Told by the database when this transaction commits: a judge that was woken before would find nothing settled.
            await leg_store.tell(tx)
            return
        held = await self._engine.lock(tx, [(each.plan_id, each.leg_id) for each in ended])
        told = {(each.plan_id, each.leg_id): each for each in ended}
        # A leg never comes back to a phase that it has left: as long as it stands in that of its transaction, the status is about it.
        current = [
            each
            for each in held.works(WORKING)
            if (each.phase, each.order_no) == ((of := told[each.plan_id, each.leg_id]).phase, of.order_no)
        ]
        found = {leg: reading.statuses[each.entry_key] for leg, each in told.items()}
        orders = {leg: each.order for leg, each in told.items()}
        await self._store(tx, current, found, orders, reading.place, reading.unpayable, held)

    def _place(self, block: Block) -> Place:
        return Place(self._book.chain, self._book.contract, block.number, block.hash)

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
            if len(keys) < JUDGED_MAX:
                return None
            after = keys[-1]

    async def _judge_batch(self, due: Sequence[LegWork], orders: dict[LegKey, Order]) -> None:
        keys = [self._book.entry_key(each) for each in due]
        result, block = await self._machine.call_at_final(self._book.contract, self._book.status_query(keys))
        found = dict(zip(((each.plan_id, each.leg_id) for each in due), self._book.statuses(result), strict=True))
        unpayable = await self._unpayable(due, found, block)
        async with self._db.transaction() as tx:
            # A status that was read before the leg went on, or before its transaction came to its end, says nothing about the leg as it is now.
            held = await self._engine.lock(tx, [(each.plan_id, each.leg_id) for each in due])
            loaded = {(each.plan_id, each.leg_id): each.revision for each in due}
            same = [each for each in held.works(WORKING) if loaded[each.plan_id, each.leg_id] == each.revision]
            now = await leg_store.last_orders(tx, same)
            current = [each for each in same if now.get(key := (each.plan_id, each.leg_id)) == orders.get(key)]
            await self._store(tx, current, found, now, self._place(block), unpayable, held)

    async def _unpayable(self, due: Sequence[LegWork], found: Mapping[LegKey, str], block: Block) -> Mapping[LegKey, str]:
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
        found: Mapping[LegKey, str],
        orders: Mapping[LegKey, Order],
        place: Place,
        unpayable: Mapping[LegKey, str],
        held: Held,
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
                await self._engine.complete(tx, completions, held)
