"""Carries messages to and from the bank: what is queued goes out, what arrives is stored, judged, acknowledged. Holds no rules.

A delivery that arrives damaged is read again a few times, and then kept in the quarantine like any message that breaks a rule, so that it holds up
nothing: what it said is asked for as any answer that is lost. What the bank says of money and fits no payment is kept as an open matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import structlog
from opentelemetry.trace import Span, SpanKind

from bank_gateway import outbox_store, store
from bank_gateway.bookkeeping import Hearing
from bank_gateway.breaks import open_break
from bank_gateway.gateway import BankOperations
from bank_gateway.iso20022 import writer
from bank_gateway.listening import Listening
from bank_gateway.message_spans import messaging
from bank_gateway.messages import (
    PAYMENTS,
    Kind,
    Received,
)
from bank_gateway.metrics import ANSWERED, QUARANTINED, RECEIVED, SENT, told_status
from bank_gateway.outbox_store import Claimed
from bank_gateway.rail import (
    Accepted,
    Delivery,
    Handover,
    MailboxUnavailable,
    Message,
    NoAnswer,
    Rail,
    Release,
    Request,
    TurnedDown,
)
from bank_gateway.reconciliation import StatementBroken
from bank_gateway.references import is_repeat, message_id, rail_key
from lockstep_kit.db import Connection, Database, is_transient
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion
from lockstep_kit.plan import LegKind
from lockstep_kit.spans import LEG_ID, PLAN_ID, span
from lockstep_kit.statements import Refusal

_log = structlog.get_logger()

#: Claimed messages go in one request, each about another payment: a bank that hangs costs all of them one time-out, not each its own.
CLAIMED_MAX: Final = 128
#: Octets of messages in one request; a message that has more by itself goes alone.
REQUEST_OCTETS_MAX: Final = 2 * 1024 * 1024
INQUIRED_MAX: Final = 64
#: Messages that are noted as settled at once.
SETTLED_MAX: Final = 1_000
#: How long a message stays claimed without being renewed. Short, so that what a dead process had claimed soon goes out; it is renewed while a request is
#: under way, so that no other replica sends the same beside it.
CLAIM_LEASE: Final = timedelta(seconds=3)
RETRY_SECONDS_MAX: Final = 30.0
_RETRY_MAX: Final = timedelta(seconds=RETRY_SECONDS_MAX)
#: Pause after an empty mailbox, for banks that do not hold their answer back.
MAILBOX_PAUSE_SECONDS: Final = 0.1
#: By which a Prepare asks; one that is turned down is a NO.
ASKING: Final = (*PAYMENTS, Kind.RESERVATION, Kind.APPLICATION)
#: A delivery that is damaged so often is not damaged on its way.
DAMAGED_READS_MAX: Final = 3

#: A delivery as it was read, or why it cannot be.
_Read: TypeAlias = tuple[Delivery, Received | FieldInvalid]

for _where in ("send.after_claim", "send.after_send", "send.after_commit", "receive.in_tx", "receive.after_commit"):
    declare(f"bank-gateway.{_where}")


class Courier:
    """One bank's messages, out and in."""

    def __init__(self, db: Database, engine: ParticipantEngine, operations: BankOperations, rail: Rail) -> None:
        self._db = db
        self._engine = engine
        self._operations = operations
        self._settings = operations.settings
        self._rail = rail
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._arrived = asyncio.Event()
        #: Place of the delivery that came damaged last, and how often it was read.
        self._damaged = (0, 0)
        #: What is done about what the bank says.
        self.listening = Listening(engine, operations)
        #: Set when a page of an account statement was taken.
        self.stated = asyncio.Event()

    def loops(self) -> tuple[Loop, ...]:
        """Loops to run beside the server."""
        settings = self._settings
        return (
            Loop("bank.send", self.send_due, poll_seconds=settings.poll_seconds, wake=self._operations.queued),
            Loop("bank.receive", self.receive, poll_seconds=MAILBOX_PAUSE_SECONDS, wake=self._arrived),
            Loop("bank.inquire", self.inquire, poll_seconds=settings.inquiry_seconds / 2),
            *self._undertakings(),
            Loop("bank.settle", self.settle, poll_seconds=settings.inquiry_seconds / 2),
        )

    def _undertakings(self) -> tuple[Loop, ...]:
        """What is asked about undertakings, where any are issued."""
        if self._settings.instruments is None:
            return ()
        return (Loop("bank.undertakings", self._inquire_undertakings, poll_seconds=self._settings.inquiry_seconds / 2),)

    async def _inquire_undertakings(self) -> None:
        if await self._operations.undertakings.inquire(self._db):
            self._operations.wake()

    # -- Out ---------------------------------------------------------------------------------------------------------

    async def send_due(self) -> None:
        """Send what is due, until nothing is. What became of messages is noted by the transaction that takes the next ones."""
        async with self._db.connection() as connection:
            if not await outbox_store.is_due(connection, _RETRY_MAX):
                return
        handovers: Sequence[tuple[Claimed, Handover]] = ()
        while True:
            for each, handover in handovers:
                if isinstance(handover, TurnedDown):
                    async with self._db.transaction() as tx:
                        await self._turned_down(tx, each, handover)
            async with self._db.transaction() as tx:
                await self._note(tx, handovers)
                claimed = await outbox_store.claim(tx, CLAIMED_MAX, CLAIM_LEASE, _RETRY_MAX, self._settings.in_flight_max)
            if handovers:
                await failpoint("bank-gateway.send.after_commit")
            if not claimed:
                return
            await failpoint("bank-gateway.send.after_claim")
            handovers = await self._carry(claimed)
            await failpoint("bank-gateway.send.after_send")

    async def _carry(self, claimed: Sequence[Claimed]) -> Sequence[tuple[Claimed, Handover]]:
        """Hand over what was claimed, and keep the claims until it is answered."""
        handing = asyncio.create_task(self._hand_over(claimed), name="bank.send")
        try:
            while not (await asyncio.wait([handing], timeout=CLAIM_LEASE.total_seconds() / 3))[0]:
                await self._renew(claimed)
            return handing.result()
        finally:
            handing.cancel()
            await asyncio.gather(handing, return_exceptions=True)

    async def _renew(self, claimed: Collection[Claimed]) -> None:
        """Renew claims. A database that is away for a moment costs a repeat at the worst."""
        try:
            async with self._db.connection() as connection:
                await outbox_store.put_off(connection, dict.fromkeys((each.id for each in claimed), CLAIM_LEASE))
        except Exception as error:
            if not is_transient(error):
                raise
            _log.warning("claims_not_renewed", messages=len(claimed), error=type(error).__name__)

    async def _hand_over(self, claimed: Sequence[Claimed]) -> Sequence[tuple[Claimed, Handover]]:
        """Hand over messages and keys in one request, each in its own trace; one that is recorded tells of the request."""
        found: list[tuple[Claimed, Handover]] = []
        for part in _carried_together(claimed):
            with contextlib.ExitStack() as stack:
                # The last one is the current one.
                recorded_last = sorted(part, key=lambda each: (each.traceparent or "").endswith("-01"))
                spans = {each.id: stack.enter_context(self._span(each)) for each in recorded_last}
                handovers = await self._rail.hand_over([self._request(each) for each in part])
                for each, handover in zip(part, handovers, strict=True):
                    spans[each.id].set_attribute("bank.handover", type(handover).__name__)
                    SENT.labels(each.action, type(handover).__name__).inc()
                    found.append((each, handover))
        return found

    def _span(self, each: Claimed) -> AbstractContextManager[Span]:
        attributes = {
            **messaging("send", self._settings.bank_bic, each.idempotency_key),
            PLAN_ID: each.plan_id,
            LEG_ID: each.leg_id,
            "iso20022.uetr": each.uetr,
            "bank.action": each.action,
        }
        return span("bank.send", traceparent=each.traceparent, kind=SpanKind.PRODUCER, attributes=attributes)

    def _request(self, each: Claimed) -> Request:
        if each.action == "RELEASE":
            return Release(each.uetr, each.octets, each.idempotency_key)
        octets = each.octets
        if each.attempts > 1 or is_repeat(each.idempotency_key):
            # Bytes that were tried before may have arrived: the bank is told so, and answers as it did. The mark is signed with the rest.
            octets = self._operations.agreement.seal(writer.possible_duplicate(octets))
        return Message(octets, rail_key(each.idempotency_key))

    async def _note(self, tx: Connection, handovers: Sequence[tuple[Claimed, Handover]]) -> None:
        """Note what became of messages, but for those that the bank turned down."""
        waits: dict[int, timedelta] = {}
        for each, handover in handovers:
            if isinstance(handover, NoAnswer):
                wait = back_off_seconds(each.attempts, self._rng, first=0.2, most=RETRY_SECONDS_MAX)
                waits[each.id] = timedelta(seconds=wait)
                _log.warning(
                    "bank_gave_no_answer", plan_id=each.plan_id, leg_id=each.leg_id, why=handover.why, attempts=each.attempts
                )
        await outbox_store.mark_acked(tx, [each.id for each, handover in handovers if isinstance(handover, Accepted)])
        await outbox_store.put_off(tx, waits)

    async def _turned_down(self, tx: Connection, each: Claimed, handover: TurnedDown) -> None:
        """The bank will never take it. A payment that it was shown once and knows by no other content is a NO; anything else is for a person.

        Of a leg that has its answer it is nobody's business any more: a question that came too late contradicts nothing.
        """
        why = f"the bank turned down {each.action.lower()} {each.idempotency_key}: {handover.status} {handover.field} {handover.rule}".strip()
        works = await self._engine.load(tx, [(each.plan_id, each.leg_id)], lock=True)
        if not await outbox_store.mark_failed(tx, each.id, why):
            return
        _log.error("bank_turned_down", plan_id=each.plan_id, leg_id=each.leg_id, why=why)
        asks = each.idempotency_key in {message_id(kind, each.plan_id, each.leg_id) for kind in ASKING}
        if works and works[0].phase is Phase.PREPARING and asks and each.attempts == 1 and not handover.differs:
            refusal = Refusal("BANK_PREPARE_FAILED", handover.status, why)
            await self._engine.complete(tx, [Completion(each.plan_id, each.leg_id, Finding.VOTED_NO, refusal=refusal)])
            if works[0].binding.leg.kind is LegKind.CREDIT_TRANSFER:
                hearing = await Hearing.of(tx, [each.uetr])
                hearing.turned_down(works[0])
                await hearing.post(tx)
        elif works and works[0].phase.working:
            await self._engine.trouble(tx, each.plan_id, each.leg_id, why)

    # -- In ----------------------------------------------------------------------------------------------------------

    async def receive(self) -> None:
        """Wait for the bank's next messages, store and judge them, then acknowledge them."""
        bank = self._settings.bank_bic
        async with self._db.connection() as connection:
            after = await store.cursor(connection, bank)
        deliveries = await self._rail.receive(after, self._settings.mailbox_wait_seconds)
        ANSWERED.set_to_current_time()
        damaged = next((each for each in deliveries if each.damage and not self._read_often_enough(each)), None)
        # What was taken before is not looked at again.
        whole = [each for each in itertools.takewhile(lambda each: each is not damaged, deliveries) if each.cursor > after]
        for batch in _taken_together([(each, self._read(each)) for each in whole]):
            if not await self._take(after, batch):
                # Another replica has taken some of them meanwhile: what is left is read again.
                self._arrived.set()
                return
            after = batch[-1][0].cursor
        if deliveries:
            self._arrived.set()
            await self._rail.acknowledge(after)
        if damaged is not None:
            raise MailboxUnavailable(f"delivery {damaged.cursor} {damaged.damage}")

    def _read_often_enough(self, delivery: Delivery) -> bool:
        place, reads = self._damaged
        self._damaged = (delivery.cursor, reads + 1 if place == delivery.cursor else 1)
        return self._damaged[1] >= DAMAGED_READS_MAX

    def _read(self, delivery: Delivery) -> Received | FieldInvalid:
        try:
            if delivery.damage:
                raise FieldInvalid("sha256", f"must be that of the delivery, which {delivery.damage}")
            found: Received | FieldInvalid = self.listening.read(delivery.octets)
        except FieldInvalid as finding:
            found = finding
        return found

    async def _take(self, after: int, batch: Sequence[_Read]) -> bool:
        """Messages behind a place, in one transaction: kept, judged, and never read again. One that spoils it has each taken by itself.

        False when the mailbox is not at that place any more.
        """
        ((delivery, found), *others) = batch
        if isinstance(found, FieldInvalid):
            return await self._quarantine(after, delivery, found)
        try:
            taken = await self._keep(after, [(each, received) for each, received in batch if isinstance(received, Received)])
        except Exception as error:
            if not others:
                if isinstance(error, StatementBroken):
                    return await self._quarantine(after, delivery, error)
                raise
            if is_transient(error):
                raise
            for each in batch:
                if not await self._take(after, [each]):
                    return False
                after = each[0].cursor
            return True
        if taken:
            self._operations.wake()
        return taken

    async def _keep(self, after: int, batch: Sequence[tuple[Delivery, Received]]) -> bool:
        async with self._db.transaction() as tx:
            if not await store.move_cursor(tx, self._settings.bank_bic, after, batch[-1][0].cursor):
                return False
            await self.listening.keep(tx, [(received, delivery.octets) for delivery, received in batch])
            await failpoint("bank-gateway.receive.in_tx")
        await failpoint("bank-gateway.receive.after_commit")
        for _, received in batch:
            RECEIVED.labels(received.kind.value, told_status(received)).inc()
            if received.pages:
                self.stated.set()
        return True

    async def _quarantine(self, after: int, delivery: Delivery, finding: FieldInvalid) -> bool:
        """Keep what breaks a rule, for a person; of a statement that is none, its account and day are a break."""
        bank = self._settings.bank_bic
        QUARANTINED.inc()
        _log.error("message_quarantined", cursor=delivery.cursor, field=finding.field, rule=finding.rule)
        async with self._db.transaction() as tx:
            if not await store.move_cursor(tx, bank, after, delivery.cursor):
                return False
            await tx.execute(store.QUARANTINE, bank, delivery.cursor, delivery.octets, finding.field, finding.rule)
            if isinstance(finding, StatementBroken):
                await open_break(tx, self._engine, bank, finding.difference)
        return True

    # -- In doubt ----------------------------------------------------------------------------------------------------

    async def inquire(self) -> None:
        """Ask about payments whose answer is overdue, ever more rarely, and never for the last time."""
        after, most = timedelta(seconds=self._settings.inquiry_seconds), timedelta(seconds=self._settings.inquiry_seconds_max)
        async with self._db.transaction() as tx:
            due = await store.to_inquire(tx, after, most, INQUIRED_MAX)
            now = await store.now(tx)
            for plan_id, leg_id, _, count in due:
                for work in await self._engine.load(tx, [(plan_id, leg_id)]):
                    await self._operations.overdue(tx, work, count, _number_at(now), now)
        if due:
            self._operations.wake()

    # -- At the end --------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Note which messages nothing is waited for any more."""
        async with self._db.connection() as connection:
            await connection.execute(outbox_store.SETTLE, SETTLED_MAX)


def _carried_together(claimed: Sequence[Claimed]) -> Iterator[list[Claimed]]:
    """What goes in one request, in its order: no more octets than a request may have."""
    part: list[Claimed] = []
    octets = 0
    for each in claimed:
        if part and octets + len(each.octets) > REQUEST_OCTETS_MAX:
            yield part
            part, octets = [], 0
        part.append(each)
        octets += len(each.octets)
    yield part


def _taken_together(read: Sequence[_Read]) -> Iterator[list[_Read]]:
    """What is taken in one transaction: messages about payments. What is said of an undertaking locks legs of its own; what cannot be read is told apart."""
    batch: list[_Read] = []
    for each in read:
        if isinstance(each[1], FieldInvalid) or each[1].undertaking is not None:
            if batch:
                yield batch
            yield [each]
            batch = []
        else:
            batch.append(each)
    if batch:
        yield batch


def _number_at(moment: datetime) -> int:
    """Number of what is asked because an answer is overdue: never one that was given before, also not before a restore, and beyond every revision."""
    return int(moment.timestamp() * 1_000_000)
