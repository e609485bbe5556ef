"""Carries messages to and from the bank: what is queued goes out, what arrives is stored, judged, acknowledged. Holds no rules.

A delivery that arrives damaged is read again a few times, and then kept in the quarantine like any message that breaks a rule, so that it holds up
nothing: what it said is asked for as any answer that is lost. What the bank says of money and fits no payment is kept as an open matter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from bank_gateway import statements, store
from bank_gateway.bookkeeping import Hearing
from bank_gateway.breaks import open_break
from bank_gateway.gateway import BankOperations, Occasion
from bank_gateway.iso20022 import reader, writer
from bank_gateway.judging import judge, of_payment, stray
from bank_gateway.meanings import Meaning
from bank_gateway.message_spans import messaging
from bank_gateway.messages import (
    PAYMENTS,
    RESERVATION_REQUESTS,
    AnyStatement,
    Booking,
    Kind,
    PaymentReturn,
    PaymentStatus,
    Received,
    ReservationStatus,
)
from bank_gateway.metrics import ANSWERED, QUARANTINED, RECEIVED, SENT, told_status
from bank_gateway.payments import completion_of, known_payment, promise_until
from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, NoAnswer, Rail, TurnedDown
from bank_gateway.reconciliation import StatementBroken
from bank_gateway.references import is_repeat, message_id, rail_key
from bank_gateway.store import Claimed, Matter, MatterKind
from lockstep_kit.db import Connection, Database, is_transient
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.plan import LegKind
from lockstep_kit.spans import LEG_ID, PLAN_ID, span
from lockstep_kit.statements import Promise, Refusal

_log = structlog.get_logger()

#: Claimed messages are sent at the same time, each about another payment: a bank that hangs costs all of them one time-out, not each its own.
CLAIMED_MAX: Final = 16
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
        """Send what is due, until nothing is."""
        while True:
            async with self._db.transaction() as tx:
                claimed = await store.claim(tx, CLAIMED_MAX, CLAIM_LEASE, _RETRY_MAX, self._settings.in_flight_max)
            if not claimed:
                return
            await failpoint("bank-gateway.send.after_claim")
            ended = await asyncio.gather(*(self._carry(each) for each in claimed), return_exceptions=True)
            for error in ended:
                if error is not None:
                    raise error

    async def _carry(self, each: Claimed) -> None:
        keeping = asyncio.create_task(self._keep(each), name="bank.claim")
        try:
            handover = await self._hand_over(each)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await failpoint("bank-gateway.send.after_send")
        await self._note(each, handover)
        await failpoint("bank-gateway.send.after_commit")

    async def _keep(self, each: Claimed) -> None:
        """Renew a claim until cancelled. A database that is away for a moment costs a repeat at the worst."""
        while True:
            await asyncio.sleep(CLAIM_LEASE.total_seconds() / 3)
            try:
                async with self._db.connection() as connection:
                    await connection.execute(store.RESCHEDULE, each.id, CLAIM_LEASE)
            except Exception as error:
                if not is_transient(error):
                    raise
                _log.warning("claim_not_renewed", plan_id=each.plan_id, leg_id=each.leg_id, error=type(error).__name__)

    async def _hand_over(self, each: Claimed) -> Handover:
        attributes = {
            **messaging("send", self._settings.bank_bic, each.idempotency_key),
            PLAN_ID: each.plan_id,
            LEG_ID: each.leg_id,
            "iso20022.uetr": each.uetr,
            "bank.action": each.action,
        }
        with span("bank.send", traceparent=each.traceparent, kind=SpanKind.PRODUCER, attributes=attributes) as current:
            if each.action == "RELEASE":
                handover = await self._rail.release(each.uetr, each.octets, each.idempotency_key)
            else:
                octets = each.octets
                if each.attempts > 1 or is_repeat(each.idempotency_key):
                    # Bytes that were tried before may have arrived: the bank is told so, and answers as it did. The mark is signed with the rest.
                    octets = self._operations.agreement.seal(writer.possible_duplicate(octets))
                handover = await self._rail.send(octets, rail_key(each.idempotency_key))
            current.set_attribute("bank.handover", type(handover).__name__)
        SENT.labels(each.action, type(handover).__name__).inc()
        return handover

    async def _note(self, each: Claimed, handover: Handover) -> None:
        async with self._db.transaction() as tx:
            match handover:
                case Accepted():
                    await tx.execute(store.MARK_ACKED, each.id)
                case TurnedDown():
                    await self._turned_down(tx, each, handover)
                case NoAnswer():
                    wait = back_off_seconds(each.attempts, self._rng, first=0.2, most=RETRY_SECONDS_MAX)
                    await tx.execute(store.RESCHEDULE, each.id, timedelta(seconds=wait))
                    _log.warning(
                        "bank_gave_no_answer", plan_id=each.plan_id, leg_id=each.leg_id, why=handover.why, attempts=each.attempts
                    )

    async def _turned_down(self, tx: Connection, each: Claimed, handover: TurnedDown) -> None:
        """The bank will never take it. A payment that it was shown once and knows by no other content is a NO; anything else is for a person.

        Of a leg that has its answer it is nobody's business any more: a question that came too late contradicts nothing.
        """
        why = f"the bank turned down {each.action.lower()} {each.idempotency_key}: {handover.status} {handover.field} {handover.rule}".strip()
        works = await self._engine.load(tx, [(each.plan_id, each.leg_id)], lock=True)
        if not await store.mark_failed(tx, each.id, why):
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
        for delivery in deliveries:
            if delivery.damage and not self._read_often_enough(delivery):
                await self._acknowledge(after)
                raise MailboxUnavailable(f"delivery {delivery.cursor} {delivery.damage}")
            await self._take(delivery)
            after = delivery.cursor
        if deliveries:
            await self._acknowledge(after)

    async def _acknowledge(self, upto: int) -> None:
        self._arrived.set()
        await self._rail.acknowledge(upto)

    def _read_often_enough(self, delivery: Delivery) -> bool:
        place, reads = self._damaged
        self._damaged = (delivery.cursor, reads + 1 if place == delivery.cursor else 1)
        return self._damaged[1] >= DAMAGED_READS_MAX

    async def _take(self, delivery: Delivery) -> None:
        """One message, in one transaction: kept, judged, and never read again."""
        try:
            if delivery.damage:
                raise FieldInvalid("sha256", f"must be that of the delivery, which {delivery.damage}")
            received = self.read(delivery.octets)
        except FieldInvalid as finding:
            await self._quarantine(delivery, finding)
            return
        try:
            await self._keep_and_judge(delivery, received)
        except StatementBroken as finding:
            await self._quarantine(delivery, finding)
            return
        await failpoint("bank-gateway.receive.after_commit")
        RECEIVED.labels(received.kind.value, told_status(received)).inc()
        self._operations.wake()
        if received.pages:
            self.stated.set()

    async def _quarantine(self, delivery: Delivery, finding: FieldInvalid) -> None:
        """Keep what breaks a rule, for a person; of a statement that is none, its account and day are a break."""
        bank = self._settings.bank_bic
        QUARANTINED.inc()
        _log.error("message_quarantined", cursor=delivery.cursor, field=finding.field, rule=finding.rule)
        async with self._db.transaction() as tx:
            if await store.move_cursor(tx, bank, delivery.cursor):
                await tx.execute(store.QUARANTINE, bank, delivery.cursor, delivery.octets, finding.field, finding.rule)
                if isinstance(finding, StatementBroken):
                    await open_break(tx, self._engine, bank, finding.difference)

    async def _keep_and_judge(self, delivery: Delivery, received: Received) -> None:
        """Keep a message and do what it says; a delivery that was taken before changes nothing."""
        async with self._db.transaction() as tx:
            if not await store.move_cursor(tx, self._settings.bank_bic, delivery.cursor):
                return
            await self.keep(tx, received, delivery.octets)
            await failpoint("bank-gateway.receive.in_tx")

    def read(self, octets: bytes) -> Received:
        """A message of the bank to us.

        Raises:
            FieldInvalid: it breaks a rule, or is not as it is agreed; nothing of it may be used.
        """
        received = reader.read(octets, self._operations.schemas, self._operations.agreement)
        if (received.envelope.sender, received.envelope.receiver) != (self._settings.bank_bic, self._settings.own_bic):
            raise FieldInvalid("AppHdr", "must be from the bank to us")
        return received

    async def keep(self, tx: Connection, received: Received, octets: bytes) -> None:
        """Judge a message, and keep it byte for byte.

        Raises:
            StatementBroken: it is the last page of an account statement that does not hold together.
        """
        about = await self._judged(tx, received)
        await store.keep_message(tx, "IN", received.envelope.message_id, received.kind.value, about, octets)
        await statements.take(tx, received, self._operations.schemas)

    async def _judged(self, tx: Connection, received: Received) -> str | None:
        """Judge a message; returns the one UETR that it is about, if it is about one."""
        if received.undertaking is not None:
            return await self._operations.undertakings.judge(tx, self._engine, received, received.undertaking)
        received = replace(received, statements=await self._named(tx, received.statements))
        named = sorted({statement.uetr for statement in received.statements})
        await self._judge(tx, received, named)
        return named[0] if len(named) == 1 else None

    async def _named(self, tx: Connection, statements: Sequence[AnyStatement]) -> tuple[AnyStatement, ...]:
        """Statements by payment: what is said of a whole message of ours is said of every payment in it, or that it was about."""
        found: list[AnyStatement] = []
        for said in statements:
            match said:
                case PaymentStatus(uetr="", end_to_end_id=""):
                    named = await store.payments_of_message(tx, said.message_id, PAYMENTS)
                    found += [replace(said, uetr=uetr) for uetr in named] or [said]
                case ReservationStatus():
                    named = await store.payments_of_message(tx, said.message_id, RESERVATION_REQUESTS)
                    found.append(of_payment(said, named))
                case _:
                    found.append(said)
        return tuple(found)

    async def _judge(self, tx: Connection, received: Received, named: Sequence[str]) -> None:
        legs = {uetr: leg for uetr in named if (leg := await store.leg_of(tx, uetr)) is not None}
        matters = [
            await self._matter(tx, received, place, said, sentence)
            for place, said in enumerate(received.statements)
            if said.uetr not in legs and (sentence := stray(said))
        ]
        for uetr in named:
            if uetr not in legs:
                _log.warning("message_about_unknown_payment", uetr=uetr, message_id=received.envelope.message_id)
        # All legs before any payment, and in the engine's order, as everybody locks them.
        concerned = {*legs.values(), *(matter.leg for matter in matters if matter.leg is not None)}
        await self._engine.load(tx, sorted(concerned), lock=True)
        for matter in matters:
            await self._open_matter(tx, matter)
        hearing = await Hearing.of(tx, list(legs))
        for place, statement in enumerate(received.statements):
            if statement.uetr in legs:
                # Read again for each: the statement before it may have moved the leg.
                for work in await self._engine.load(tx, [legs[statement.uetr]]):
                    await self.hear(tx, work, received, place, statement, hearing)
        await hearing.post(tx)

    async def _matter(self, tx: Connection, received: Received, place: int, said: AnyStatement, sentence: str) -> Matter:
        """What is said of money and fits no payment, with the leg whose end-to-end reference it names."""
        reference = said.end_to_end_id if isinstance(said, PaymentStatus | Booking | PaymentReturn) else ""
        leg = await store.leg_of_reference(tx, reference) if reference else None
        envelope = received.envelope
        return Matter(
            envelope.sender,
            envelope.message_id,
            received.sha256,
            place,
            MatterKind.UNKNOWN_PAYMENT,
            said.uetr,
            reference,
            leg,
            sentence,
        )

    async def _open_matter(self, tx: Connection, matter: Matter) -> None:
        """Keep an open matter, and say so on the leg that it concerns; one that a person has closed stays closed."""
        added, still_open = await store.add_matter(tx, matter)
        if added:
            opened = await store.count_matters(tx)
            _log.error(
                "matter_opened", kind=matter.kind, uetr=matter.uetr, message_id=matter.message_id, why=matter.sentence, open=opened
            )
        if still_open and matter.leg is not None:
            await self._engine.trouble(tx, *matter.leg, matter.sentence)

    async def hear(
        self, tx: Connection, work: LegWork, received: Received, place: int, statement: AnyStatement, hearing: Hearing
    ) -> None:
        """Do what a statement about a leg means. The leg is locked."""
        row = await store.lock_payment(tx, statement.uetr)
        if row is None:
            return
        profile = row.profile
        until = promise_until(work, profile, row.asked_at, self._settings.hold_max)
        expected = known_payment(work.binding, row.settlement_date or row.asked_at.date(), until, profile.footing)
        attributes = {
            **messaging("process", received.envelope.sender, received.envelope.message_id),
            PLAN_ID: work.plan_id,
            LEG_ID: work.leg_id,
            "iso20022.message": received.kind.value,
            "iso20022.uetr": statement.uetr,
        }
        with span("bank.receive", traceparent=work.traceparent, kind=SpanKind.CONSUMER, attributes=attributes) as current:
            heard = judge(profile, row.known, work.phase, expected, statement, received.envelope, received.sha256)
            current.set_attribute("bank.meaning", heard.meaning.value)
            hearing.heard(work, profile.footing, statement, heard)
            if heard.known != row.known:
                await store.update_payment(tx, work.plan_id, work.leg_id, heard.known)
            match heard.meaning:
                case Meaning.TROUBLE:
                    _log.error("bank_contradicts", plan_id=work.plan_id, leg_id=work.leg_id, why=heard.detail)
                    if heard.misfit and isinstance(statement, Booking | PaymentReturn):
                        await self._open_matter(tx, self._misfit(received, place, statement, work, heard.detail))
                    else:
                        await self._engine.trouble(tx, work.plan_id, work.leg_id, heard.detail)
                case _:
                    completion = completion_of(work, heard, Promise(profile.promise, until), self._settings.bank_bic)
                    await self._engine.complete(tx, [completion] if completion is not None else [])
                    if completion is not None and row.matter:
                        # A leg that goes on clears what was said of it; what a person must look into stays.
                        await self._engine.trouble(tx, work.plan_id, work.leg_id, row.matter)
            if (step := profile.answered.get(heard.meaning)) is not None:
                occasion = Occasion(profile, await store.now(tx), work.revision, work.traceparent)
                await self._operations.take(tx, work, step, occasion)

    @staticmethod
    def _misfit(received: Received, place: int, said: Booking | PaymentReturn, work: LegWork, sentence: str) -> Matter:
        leg = work.plan_id, work.leg_id
        returned = isinstance(said, PaymentReturn) or said.returned
        envelope, kind = received.envelope, MatterKind.PAYMENT_RETURNED if returned else MatterKind.BOOKING_DIFFERS
        return Matter(
            envelope.sender, envelope.message_id, received.sha256, place, kind, said.uetr, said.end_to_end_id, leg, sentence
        )

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
            await connection.execute(store.SETTLE, SETTLED_MAX)


def _number_at(moment: datetime) -> int:
    """Number of what is asked because an answer is overdue: never one that was given before, also not before a restore, and beyond every revision."""
    return int(moment.timestamp() * 1_000_000)
