"""Carries messages to and from the bank: what is queued goes out, what arrives is stored, judged, acknowledged. Holds no rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
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
from bank_gateway.store import Claimed
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import back_off_seconds
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.statements import Refusal
from lockstep_kit.telemetry import LEG_ID, PLAN_ID, span

_log = structlog.get_logger()

CLAIMED_MAX: Final = 64
#: Longer than a request can take: another replica tries again only when this one has given up.
CLAIM_LEASE: Final = timedelta(seconds=30)
RETRY_SECONDS_MAX: Final = 30.0
#: Numbers of what is asked because an answer is overdue start here, beyond every revision by which the first is numbered.
FIRST_REPEAT: Final = 1_000_000

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

    # -- Out ---------------------------------------------------------------------------------------------------------

    async def send_due(self) -> None:
        """Send what is due, until nothing is."""
        while True:
            async with self._db.transaction() as tx:
                claimed = await store.claim(tx, CLAIMED_MAX, CLAIM_LEASE)
            if not claimed:
                return
            await failpoint("bank-gateway.send.after_claim")
            for each in claimed:
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
        """The bank will never take it. A payment that it never took is a NO; anything else is for a person."""
        why = f"the bank turned down {each.action.lower()} {each.idempotency_key}: {handover.status} {handover.field} {handover.rule}".strip()
        works = await self._engine.load(tx, [(each.plan_id, each.leg_id)], lock=True)
        await tx.execute(store.MARK_FAILED, each.id, why)
        _log.error("bank_turned_down", plan_id=each.plan_id, leg_id=each.leg_id, why=why)
        if works and works[0].phase is Phase.PREPARING and each.action == "SEND" and each.attempts == 1:
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
                await tx.execute(store.QUARANTINE, bank, delivery.cursor, delivery.octets, finding.field, finding.rule)
                await tx.execute(store.MOVE_CURSOR, bank, delivery.cursor)
            return
        async with self._db.transaction() as tx:
            received = replace(received, statements=await self._named(tx, received.statements))
            named = sorted({statement.uetr for statement in received.statements})
            for uetr in named:
                await self._judge(tx, received, uetr)
            about = named[0] if len(named) == 1 else None
            await store.keep_message(tx, "IN", received.envelope.message_id, received.kind.value, about, delivery.octets)
            await tx.execute(store.MOVE_CURSOR, bank, delivery.cursor)
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

    async def _judge(self, tx: Connection, received: Received, uetr: str) -> None:
        leg = await store.leg_of(tx, uetr)
        if leg is None:
            _log.error("message_about_unknown_payment", uetr=uetr, message_id=received.envelope.message_id)
            return
        # The leg before the payment, as everybody locks them.
        for statement in received.statements:
            if statement.uetr == uetr:
                works = await self._engine.load(tx, [leg], lock=True)
                if works:
                    await self._hear(tx, works[0], received, statement)

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
                    await self._operations.inquire(tx, (work.plan_id, work.leg_id), work.revision, received.envelope.created_at)
                case _:
                    completion = completion_of(work, heard, self._settings.bank_bic)
                    await self._engine.complete(tx, [completion] if completion is not None else [])

    # -- In doubt ----------------------------------------------------------------------------------------------------

    async def inquire(self) -> None:
        """Ask about payments whose answer is overdue, ever more rarely."""
        after = timedelta(seconds=self._settings.inquiry_seconds)
        async with self._db.transaction() as tx:
            due = await store.to_inquire(tx, after, self._settings.inquiries_max)
            now = await store.now(tx)
            for plan_id, leg_id, phase, number in due:
                # What is lost may be the answer to our request to cancel, so that is repeated in turn with the question.
                if phase is Phase.ABORTING and number % 2:
                    await self._operations.cancel(tx, (plan_id, leg_id), FIRST_REPEAT + number, now)
                else:
                    await self._operations.inquire(tx, (plan_id, leg_id), FIRST_REPEAT + number, now)
        if due:
            self._operations.wake()
