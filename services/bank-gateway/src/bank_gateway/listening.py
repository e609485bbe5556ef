"""Does what the bank's messages say, many at a time, and keeps them. Holds no rules.

What the bank says of money and fits no payment is kept as an open matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import structlog
from opentelemetry.trace import SpanKind

from bank_gateway import statements, store
from bank_gateway.bookkeeping import Hearing
from bank_gateway.gateway import BankOperations, Occasion
from bank_gateway.iso20022 import reader
from bank_gateway.judging import judge, of_payment, stray
from bank_gateway.meanings import Meaning
from bank_gateway.message_spans import messaging
from bank_gateway.messages import (
    PAYMENTS,
    RESERVATION_REQUESTS,
    AnyStatement,
    Booking,
    PaymentReturn,
    PaymentStatus,
    Received,
    ReservationStatus,
)
from bank_gateway.operations import Heard, Known
from bank_gateway.outgoing import Outgoing
from bank_gateway.payments import completion_of, known_payment, promise_until
from bank_gateway.store import KeptMessage, Matter, MatterKind, PaymentRow
from lockstep_kit.db import Connection
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.spans import LEG_ID, PLAN_ID, span
from lockstep_kit.statements import Promise
from lockstep_kit.values import dataclass, replace

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Said:
    """One statement of a message."""

    #: The message.
    received: Received
    #: Which of its statements it is, from 0.
    place: int
    #: What it says.
    statement: AnyStatement


@dataclass(frozen=True, slots=True)
class _Understood:
    """A statement about a leg, and what it means."""

    said: Said
    work: LegWork
    row: PaymentRow
    heard: Heard
    completion: Completion | None


class _Rows:
    """Payments that are locked, with what is known of them by now; written once, when everything was heard."""

    def __init__(self, of: dict[str, PaymentRow]) -> None:
        #: By UETR.
        self.of = of
        self._changed: dict[tuple[PlanId, LegId], Known] = {}

    def note(self, understood: _Understood) -> None:
        """Note what is known after a statement."""
        known, work = understood.heard.known, understood.work
        if known != understood.row.known:
            self.of[understood.said.statement.uetr] = replace(understood.row, known=known)
            self._changed[work.plan_id, work.leg_id] = known

    async def look_again(self, tx: Connection, uetrs: Sequence[str]) -> None:
        """Read the open matters of payments once more: one may have been opened."""
        found = await store.lock_payments(tx, uetrs)
        self.of |= {uetr: replace(self.of[uetr], matter=row.matter) for uetr, row in found.items()}

    async def keep(self, tx: Connection) -> None:
        """Write what changed."""
        await store.update_payments(tx, self._changed)
        self._changed = {}


class Listening:
    """What is done about one bank's words, in the transactions of those who read them."""

    def __init__(self, engine: ParticipantEngine, operations: BankOperations) -> None:
        self._engine = engine
        self._operations = operations
        self._settings = operations.settings

    def read(self, octets: bytes) -> Received:
        """A message of the bank to us.

        Raises:
            FieldInvalid: it breaks a rule, or is not as it is agreed; nothing of it may be used.
        """
        received = reader.read(octets, self._operations.schemas, self._operations.agreement)
        if (received.envelope.sender, received.envelope.receiver) != (self._settings.bank_bic, self._settings.own_bic):
            raise FieldInvalid("AppHdr", "must be from the bank to us")
        return received

    async def keep(self, tx: Connection, messages: Sequence[tuple[Received, bytes]]) -> None:
        """Judge messages in their order, and keep them byte for byte. One about an undertaking comes alone: it locks a leg of its own.

        Raises:
            StatementBroken: one is the last page of an account statement that does not hold together.
        """
        received = [each for each, _ in messages]
        undertaking = received[0].undertaking
        if undertaking is not None:
            about = [await self._operations.undertakings.judge(tx, self._engine, received[0], undertaking)]
        else:
            about = await self._judge(tx, received)
        await store.keep_messages(
            tx,
            [
                KeptMessage("IN", each.envelope.message_id, each.kind.value, uetr, octets)
                for (each, octets), uetr in zip(messages, about, strict=True)
            ],
        )
        for each in received:
            await statements.take(tx, each, self._operations.schemas)

    async def _judge(self, tx: Connection, messages: Sequence[Received]) -> list[str | None]:
        """Judge messages about payments; returns for each the one UETR that it is about, if it is about one."""
        told = [Said(each, place, statement) for each in messages for place, statement in enumerate(await self._named(tx, each))]
        named = {each.statement.uetr for each in told}
        legs = await store.legs_of(tx, named)
        matters = [
            await self._matter(tx, each, sentence)
            for each in told
            if each.statement.uetr not in legs and (sentence := stray(each.statement))
        ]
        for each in told:
            if each.statement.uetr not in legs:
                _log.warning(
                    "message_about_unknown_payment", uetr=each.statement.uetr, message_id=each.received.envelope.message_id
                )
        # All legs before any payment, and in the engine's order, as everybody locks them.
        concerned = {*legs.values(), *(matter.leg for matter in matters if matter.leg is not None)}
        works = {(work.plan_id, work.leg_id): work for work in await self._engine.load(tx, sorted(concerned), lock=True)}
        for matter in matters:
            await self._open_matter(tx, matter)
        hearing = await Hearing.of(tx, list(legs))
        rows = _Rows(await store.lock_payments(tx, sorted(uetr for uetr, leg in legs.items() if leg in works)))
        moved: set[tuple[PlanId, LegId]] = set()
        for turn in _turns(each for each in told if each.statement.uetr in rows.of):
            # The turn before may have moved some of the legs.
            again = sorted(moved & {legs[uetr] for uetr in turn})
            works |= {(work.plan_id, work.leg_id): work for work in (await self._engine.load(tx, again) if again else ())}
            moved |= await self._hear(tx, [(works[legs[uetr]], each) for uetr, each in turn.items()], rows, hearing)
        await rows.keep(tx)
        await hearing.post(tx)
        about = [{each.statement.uetr for each in told if each.received is message} for message in messages]
        return [uetrs.pop() if len(uetrs) == 1 else None for uetrs in about]

    async def _named(self, tx: Connection, received: Received) -> list[AnyStatement]:
        """Statements by payment: what is said of a whole message of ours is said of every payment in it, or that it was about."""
        found: list[AnyStatement] = []
        for said in received.statements:
            match said:
                case PaymentStatus(uetr="", end_to_end_id=""):
                    named = await store.payments_of_message(tx, said.message_id, PAYMENTS)
                    found += [replace(said, uetr=uetr) for uetr in named] or [said]
                case ReservationStatus():
                    named = await store.payments_of_message(tx, said.message_id, RESERVATION_REQUESTS)
                    found.append(of_payment(said, named))
                case _:
                    found.append(said)
        return found

    async def hear(self, tx: Connection, told: Sequence[tuple[LegWork, Said]], hearing: Hearing) -> None:
        """Do what statements about legs mean, one about each leg. The legs are locked."""
        rows = _Rows(await store.lock_payments(tx, [said.statement.uetr for _, said in told]))
        await self._hear(tx, [(work, said) for work, said in told if said.statement.uetr in rows.of], rows, hearing)
        await rows.keep(tx)

    async def _hear(
        self, tx: Connection, told: Sequence[tuple[LegWork, Said]], rows: _Rows, hearing: Hearing
    ) -> set[tuple[PlanId, LegId]]:
        """Do what statements mean, one about each of some locked payments; returns the legs that are no longer as they were."""
        understood = [self._understand(work, said, rows.of[said.statement.uetr], hearing) for work, said in told]
        troubled = [each for each in understood if each.heard.meaning is Meaning.TROUBLE]
        for each in understood:
            rows.note(each)
        for each in troubled:
            await self._call_a_person(tx, each)
        await self._engine.complete(tx, [each.completion for each in understood if each.completion is not None])
        outgoing = Outgoing()
        for each in understood:
            if each.completion is not None and each.row.matter:
                # A leg that goes on clears what was said of it; what a person must look into stays.
                await self._engine.trouble(tx, each.work.plan_id, each.work.leg_id, each.row.matter)
            if (step := each.row.profile.answered.get(each.heard.meaning)) is not None:
                occasion = Occasion(each.row.profile, await store.now(tx), each.work.revision, each.work.traceparent)
                await self._operations.take(tx, each.work, step, occasion, outgoing)
        await outgoing.flush(tx)
        await rows.look_again(tx, [each.said.statement.uetr for each in troubled])
        moved = [*troubled, *(each for each in understood if each.completion is not None)]
        return {(each.work.plan_id, each.work.leg_id) for each in moved}

    def _understand(self, work: LegWork, said: Said, row: PaymentRow, hearing: Hearing) -> _Understood:
        profile, envelope = row.profile, said.received.envelope
        until = promise_until(work, profile, row.asked_at, self._settings.hold_max)
        expected = known_payment(work.binding, row.settlement_date or row.asked_at.date(), until, profile.footing)
        attributes = {
            **messaging("process", envelope.sender, envelope.message_id),
            PLAN_ID: work.plan_id,
            LEG_ID: work.leg_id,
            "iso20022.message": said.received.kind.value,
            "iso20022.uetr": said.statement.uetr,
        }
        with span("bank.receive", traceparent=work.traceparent, kind=SpanKind.CONSUMER, attributes=attributes) as current:
            heard = judge(profile, row.known, work.phase, expected, said.statement, envelope, said.received.sha256)
            current.set_attribute("bank.meaning", heard.meaning.value)
            hearing.heard(work, profile.footing, said.statement, heard)
        completion = completion_of(work, heard, Promise(profile.promise, until), self._settings.bank_bic)
        return _Understood(said, work, row, heard, completion)

    async def _call_a_person(self, tx: Connection, each: _Understood) -> None:
        work, heard, statement = each.work, each.heard, each.said.statement
        _log.error("bank_contradicts", plan_id=work.plan_id, leg_id=work.leg_id, why=heard.detail)
        if heard.misfit and isinstance(statement, Booking | PaymentReturn):
            await self._open_matter(tx, _misfit(each.said, statement, work, heard.detail))
        else:
            await self._engine.trouble(tx, work.plan_id, work.leg_id, heard.detail)

    async def _matter(self, tx: Connection, said: Said, sentence: str) -> Matter:
        """What is said of money and fits no payment, with the leg whose end-to-end reference it names."""
        told = said.statement
        reference = told.end_to_end_id if isinstance(told, PaymentStatus | Booking | PaymentReturn) else ""
        leg = await store.leg_of_reference(tx, reference) if reference else None
        return _matter_of(said, MatterKind.UNKNOWN_PAYMENT, reference, leg, sentence)

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


def _turns(told: Iterable[Said]) -> Iterator[dict[str, Said]]:
    """Statements by payment, in turns that have one about each: what comes later about a payment is heard when what comes before has been."""
    waiting: dict[str, list[Said]] = {}
    for each in told:
        waiting.setdefault(each.statement.uetr, []).append(each)
    while waiting:
        yield {uetr: those.pop(0) for uetr, those in waiting.items()}
        waiting = {uetr: those for uetr, those in waiting.items() if those}


def _misfit(said: Said, told: Booking | PaymentReturn, work: LegWork, sentence: str) -> Matter:
    returned = isinstance(told, PaymentReturn) or told.returned
    kind = MatterKind.PAYMENT_RETURNED if returned else MatterKind.BOOKING_DIFFERS
    return _matter_of(said, kind, told.end_to_end_id, (work.plan_id, work.leg_id), sentence)


def _matter_of(said: Said, kind: MatterKind, reference: str, leg: tuple[PlanId, LegId] | None, sentence: str) -> Matter:
    envelope, uetr = said.received.envelope, said.statement.uetr
    return Matter(envelope.sender, envelope.message_id, said.received.sha256, said.place, kind, uetr, reference, leg, sentence)
