"""Carries messages to and from the bank: what is queued goes out, what arrives is stored, judged, acknowledged. Holds no rules."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from bank_gateway import store
from bank_gateway.gateway import BankOperations
from bank_gateway.iso20022 import reader, writer
from bank_gateway.messages import PaymentStatus, Received, Statement
from bank_gateway.operations import Meaning, hear
from bank_gateway.payments import completion_of, known_payment
from bank_gateway.rail import Accepted, Delivery, Handover, NoAnswer, Rail, TurnedDown
from bank_gateway.references import references
from bank_gateway.store import Claimed
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.statements import Refusal
from lockstep_kit.telemetry import LEG_ID, PLAN_ID, span

_log = structlog.get_logger()

#: Claimed messages are sent at the same time, each about another payment: a bank that hangs costs all of them one time-out, not each its own.
CLAIMED_MAX: Final = 16
INQUIRED_MAX: Final = 64
#: Longer than a request can take: another replica tries again only when this one has given up.
CLAIM_LEASE: Final = timedelta(seconds=30)
RETRY_SECONDS_MAX: Final = 30.0
#: Pause after an empty mailbox, for banks that do not hold their answer back.
MAILBOX_PAUSE_SECONDS: Final = 0.1

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

    def loops(self) -> tuple[Loop, ...]:
        """Loops to run beside the server."""
        settings = self._settings
        return (
            Loop("bank.send", self.send_due, poll_seconds=settings.poll_seconds, wake=self._operations.queued),
            Loop("bank.receive", self.receive, poll_seconds=MAILBOX_PAUSE_SECONDS, wake=self._arrived),
            Loop("bank.inquire", self.inquire, poll_seconds=settings.inquiry_seconds / 2),
        )

    # -- Out ---------------------------------------------------------------------------------------------------------

    async def send_due(self) -> None:
        """Send what is due, until nothing is."""
        while True:
            async with self._db.transaction() as tx:
                claimed = await store.claim(tx, CLAIMED_MAX, CLAIM_LEASE)
            if not claimed:
                return
            await failpoint("bank-gateway.send.after_claim")
            ended = await asyncio.gather(*(self._carry(each) for each in claimed), return_exceptions=True)
            for error in ended:
                if error is not None:
                    raise error

    async def _carry(self, each: Claimed) -> None:
        handover = await self._hand_over(each)
        await failpoint("bank-gateway.send.after_send")
        await self._note(each, handover)
        await failpoint("bank-gateway.send.after_commit")

    async def _hand_over(self, each: Claimed) -> Handover:
        attributes = {PLAN_ID: each.plan_id, LEG_ID: each.leg_id, "iso20022.uetr": each.uetr, "bank.action": each.action}
        with span("bank.send", traceparent=each.traceparent, kind=SpanKind.CLIENT, attributes=attributes) as current:
            if each.action == "RELEASE":
                handover = await self._rail.release(each.uetr, each.octets, each.idempotency_key)
            else:
                # Bytes that were tried before may have arrived: the bank is told so, and answers as it did.
                octets = writer.possible_duplicate(each.octets) if each.attempts > 1 else each.octets
                handover = await self._rail.send(octets, each.idempotency_key)
            current.set_attribute("bank.handover", type(handover).__name__)
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
        """The bank will never take it. A payment that it was shown once and knows by no other content is a NO; anything else is for a person."""
        why = f"the bank turned down {each.action.lower()} {each.idempotency_key}: {handover.status} {handover.field} {handover.rule}".strip()
        works = await self._engine.load(tx, [(each.plan_id, each.leg_id)], lock=True)
        if not await store.mark_failed(tx, each.id, why):
            return
        _log.error("bank_turned_down", plan_id=each.plan_id, leg_id=each.leg_id, why=why)
        is_payment = each.idempotency_key == references(each.plan_id, each.leg_id).message_id
        if works and works[0].phase is Phase.PREPARING and is_payment and each.attempts == 1 and not handover.differs:
            refusal = Refusal("BANK_PREPARE_FAILED", handover.status, why)
            await self._engine.complete(tx, [Completion(each.plan_id, each.leg_id, Finding.VOTED_NO, refusal=refusal)])
        elif works:
            await self._engine.trouble(tx, each.plan_id, each.leg_id, why)

    # -- In ----------------------------------------------------------------------------------------------------------

    async def receive(self) -> None:
        """Wait for the bank's next messages, store and judge them, then acknowledge them."""
        bank = self._settings.bank_bic
        async with self._db.connection() as connection:
            after = await store.cursor(connection, bank)
        deliveries = await self._rail.receive(after, self._settings.mailbox_wait_seconds)
        for delivery in deliveries:
            await self._take(delivery)
        if deliveries:
            self._arrived.set()
            await self._rail.acknowledge(deliveries[-1].cursor)

    async def _take(self, delivery: Delivery) -> None:
        """One message, in one transaction: kept, judged, and never read again."""
        bank = self._settings.bank_bic
        try:
            received = reader.read(delivery.octets, self._operations.schemas)
            if (received.envelope.sender, received.envelope.receiver) != (bank, self._settings.own_bic):
                raise FieldInvalid("AppHdr", "must be from the bank to us")
        except FieldInvalid as finding:
            _log.error("message_quarantined", cursor=delivery.cursor, field=finding.field, rule=finding.rule)
            async with self._db.transaction() as tx:
                if await store.move_cursor(tx, bank, delivery.cursor):
                    await tx.execute(store.QUARANTINE, bank, delivery.cursor, delivery.octets, finding.field, finding.rule)
            return
        async with self._db.transaction() as tx:
            if not await store.move_cursor(tx, bank, delivery.cursor):
                return
            received = replace(received, statements=await self._named(tx, received.statements))
            named = sorted({statement.uetr for statement in received.statements})
            await self._judge(tx, received, named)
            about = named[0] if len(named) == 1 else None
            await store.keep_message(tx, "IN", received.envelope.message_id, received.kind.value, about, delivery.octets)
            await failpoint("bank-gateway.receive.in_tx")
        await failpoint("bank-gateway.receive.after_commit")
        self._operations.wake()

    async def _named(self, tx: Connection, statements: Sequence[Statement]) -> tuple[Statement, ...]:
        """Statements by payment: what is said of a whole message of ours is said of every payment in it."""
        found: list[Statement] = []
        for said in statements:
            if isinstance(said, PaymentStatus) and not said.uetr and not said.end_to_end_id:
                found += [replace(said, uetr=uetr) for uetr in await store.payments_of_message(tx, said.message_id)] or [said]
            else:
                found.append(said)
        return tuple(found)

    async def _judge(self, tx: Connection, received: Received, named: Sequence[str]) -> None:
        legs = {uetr: leg for uetr in named if (leg := await store.leg_of(tx, uetr)) is not None}
        for uetr in named:
            if uetr not in legs:
                _log.error("message_about_unknown_payment", uetr=uetr, message_id=received.envelope.message_id)
        # All legs before any payment, and in the engine's order, as everybody locks them.
        await self._engine.load(tx, list(legs.values()), lock=True)
        for statement in received.statements:
            if statement.uetr in legs:
                # Read again for each: the statement before it may have moved the leg.
                for work in await self._engine.load(tx, [legs[statement.uetr]]):
                    await self._hear(tx, work, received, statement)

    async def _hear(self, tx: Connection, work: LegWork, received: Received, statement: Statement) -> None:
        row = await store.lock_payment(tx, statement.uetr)
        if row is None:
            return
        expected = known_payment(work.binding, row.asked_at, work.hold_until or row.asked_at)
        attributes = {
            PLAN_ID: work.plan_id,
            LEG_ID: work.leg_id,
            "iso20022.message": received.kind.value,
            "iso20022.uetr": statement.uetr,
        }
        with span("bank.receive", traceparent=work.traceparent, kind=SpanKind.CONSUMER, attributes=attributes) as current:
            heard = hear(row.known, work.phase, expected, statement, received.envelope, received.sha256)
            current.set_attribute("bank.meaning", heard.meaning.value)
            if heard.known != row.known:
                await store.update_payment(tx, work.plan_id, work.leg_id, heard.known)
            match heard.meaning:
                case Meaning.TROUBLE:
                    _log.error("bank_contradicts", plan_id=work.plan_id, leg_id=work.leg_id, why=heard.detail)
                    await self._engine.trouble(tx, work.plan_id, work.leg_id, heard.detail)
                case Meaning.INQUIRE:
                    await self._operations.inquire(tx, (work.plan_id, work.leg_id), work.revision, await store.now(tx))
                case _:
                    completion = completion_of(work, heard, self._settings.bank_bic)
                    await self._engine.complete(tx, [completion] if completion is not None else [])

    # -- In doubt ----------------------------------------------------------------------------------------------------

    async def inquire(self) -> None:
        """Ask about payments whose answer is overdue, ever more rarely."""
        after = timedelta(seconds=self._settings.inquiry_seconds)
        async with self._db.transaction() as tx:
            due = await store.to_inquire(tx, after, self._settings.inquiries_max, INQUIRED_MAX)
            now = await store.now(tx)
            for plan_id, leg_id, phase, count in due:
                # What is lost may be the answer to our request to cancel, so that is repeated in turn with the question.
                if phase is Phase.ABORTING and count % 2:
                    await self._operations.cancel(tx, (plan_id, leg_id), _number_at(now), now)
                else:
                    await self._operations.inquire(tx, (plan_id, leg_id), _number_at(now), now)
        if due:
            self._operations.wake()


def _number_at(moment: datetime) -> int:
    """Number of what is asked because an answer is overdue: never one that was given before, also not before a restore, and beyond every revision."""
    return int(moment.timestamp() * 1_000_000)
