"""What the gateway does about undertakings: what is applied for, issued and withdrawn, and what the bank says of it. Holds no rules.

Prepare draws up the issuance (tsrv.001), keeps it unsent, and applies for it (tsin.005): the bank holds a draft that this very issuance alone makes an
undertaking. Commit hands the issuance over; Abort asks to end the draft (tsrv.004). These messages know no question, so in doubt the same is said again, in
the same bytes but for the mark of a possible duplicate, and the bank says again what it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from bank_gateway import store as common
from bank_gateway.instruments import store
from bank_gateway.instruments.operations import Heard, Known, hear, stray
from bank_gateway.instruments.store import Issuance
from bank_gateway.instruments.values import Undertaking, UndertakingWord, uetr_of, undertaking_of
from bank_gateway.iso20022 import undertakings as writer
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.meanings import Meaning
from bank_gateway.message_spans import messaging
from bank_gateway.messages import Envelope, Kind, Received
from bank_gateway.outbox_store import Queued, enqueue
from bank_gateway.outgoing import Outgoing
from bank_gateway.references import message_id, repeat_key
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.db import Connection, Database
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.spans import LEG_ID, PLAN_ID, span
from lockstep_kit.statements import InstrumentEvidence, Promise, PromiseKind, Refusal

_log = structlog.get_logger()

INQUIRED_MAX: Final = 64
#: What is issued binds the bank to its beneficiary, whose consent alone ends it, and which nobody asks for here.
STAYS_ISSUED: Final = Refusal(
    "REVERSAL_UNSUPPORTED", "", "an issued undertaking is irrevocable: it ends by its terms or by its beneficiary's consent"
)


class UndertakingDesk:
    """One bank's undertakings."""

    def __init__(self, settings: BankGatewaySettings, schemas: Schemas, agreement: Agreement) -> None:
        self._settings = settings
        self._schemas = schemas
        self._agreement = agreement

    async def begin(self, tx: Connection, work: LegWork, now: datetime) -> Sequence[Completion]:
        """Build what is to be said to the bank, keep it, queue it."""
        undertaking, leg = undertaking_of(work.binding), (work.plan_id, work.leg_id)
        match work.phase:
            case Phase.PREPARING:
                refusal = self._refuses(undertaking, now)
                if refusal is not None:
                    return [Completion(*leg, Finding.VOTED_NO, refusal=refusal)]
                await self._apply(tx, undertaking, work, now)
            case Phase.COMMITTING:
                return await self._issue(tx, undertaking, work, now)
            case Phase.ABORTING:
                await store.insert(tx, leg, undertaking, None, now)
                envelope = self._envelope(message_id(Kind.TERMINATION, *leg), now)
                octets = writer.termination(envelope, undertaking, self._schemas)
                await self._send(tx, leg, Kind.TERMINATION, envelope.message_id, undertaking, octets, work.traceparent)
            case Phase.REVERSING:
                return [Completion(*leg, Finding.REVERSAL_REFUSED, refusal=STAYS_ISSUED)]
            case _:
                raise AssertionError(f"nothing is begun in {work.phase}")
        return []

    def _refuses(self, undertaking: Undertaking, now: datetime) -> Refusal | None:
        """Why the bank need not even be asked."""
        terms, agreed = undertaking.terms, self._settings.instruments
        if agreed is None:
            raise AssertionError("legs of kinds that are not served are rejected before")
        if terms.issuing_bic != self._settings.bank_bic:
            return Refusal("BANK_PREPARE_FAILED", "RC03", f"this gateway speaks to {self._settings.bank_bic} only")
        if terms.amount.asset not in self._settings.currencies:
            return Refusal("BANK_PREPARE_FAILED", "AM11", f"{terms.amount.asset} is not agreed with the bank")
        if not now.date() < terms.expiry_date <= now.date() + timedelta(days=agreed.days_max):
            return Refusal("BANK_PREPARE_FAILED", "DT01", f"an undertaking ends within {agreed.days_max} days, and not today")
        return None

    async def _apply(self, tx: Connection, undertaking: Undertaking, work: LegWork, now: datetime) -> None:
        leg = work.plan_id, work.leg_id
        drawn = self._drawn(undertaking, message_id(Kind.ISSUANCE, *leg), now)
        await store.insert(tx, leg, undertaking, drawn, now)
        envelope = self._envelope(message_id(Kind.APPLICATION, *leg), now)
        octets = writer.application(envelope, undertaking, drawn.sha256, self._schemas)
        await self._send(tx, leg, Kind.APPLICATION, envelope.message_id, undertaking, octets, work.traceparent)

    def _drawn(self, undertaking: Undertaking, name: str, now: datetime) -> Issuance:
        octets = writer.issuance(self._envelope(name, now), undertaking, self._schemas)
        return Issuance(name, octets, writer.document_sha256(octets))

    async def _issue(self, tx: Connection, undertaking: Undertaking, work: LegWork, now: datetime) -> Sequence[Completion]:
        """Hand over the issuance as it was drawn up. One that a restore lost is drawn up again: the same, but for the message's own name and time."""
        leg = work.plan_id, work.leg_id
        row = await store.lock(tx, leg)
        if row is None:
            again = self._drawn(undertaking, message_id(Kind.ISSUANCE, *leg, work.revision), now)
            await store.insert(tx, leg, undertaking, again, now)
            row = store.UndertakingRow(again, Known())
        if row.known.issued:
            return [Completion(*leg, Finding.EXECUTED, evidence=self._evidence(row.known, undertaking, row.issuance))]
        if row.issuance is None:
            raise AssertionError("a leg that was given up before it was prepared is never committed")
        issuance = row.issuance
        await self._send(tx, leg, Kind.ISSUANCE, issuance.message_id, undertaking, issuance.octets, work.traceparent)
        return []

    # -- In ----------------------------------------------------------------------------------------------------------

    async def judge(self, tx: Connection, engine: ParticipantEngine, received: Received, told: UndertakingWord) -> str | None:
        """Take a statement about an undertaking to its leg; returns the leg's UETR, or None for one that is not ours."""
        leg = await store.leg_of(tx, told.reference)
        if leg is None:
            await self._stray(tx, received, told)
            return None
        # Legs before undertakings, as everybody locks them.
        for work in await engine.load(tx, [leg], lock=True):
            await self._hear(tx, engine, work, received, told)
        return uetr_of(told.reference)

    async def _stray(self, tx: Connection, received: Received, told: UndertakingWord) -> None:
        _log.warning("message_about_unknown_undertaking", reference=told.reference, message_id=received.envelope.message_id)
        if sentence := stray(told):
            envelope, kind = received.envelope, common.MatterKind.UNKNOWN_PAYMENT
            about = uetr_of(told.reference) or told.reference
            matter = common.Matter(envelope.sender, envelope.message_id, received.sha256, 0, kind, about, "", None, sentence)
            added, _ = await common.add_matter(tx, matter)
            if added:
                _log.error("matter_opened", kind=kind, uetr=about, message_id=envelope.message_id, why=sentence)

    async def _hear(
        self, tx: Connection, engine: ParticipantEngine, work: LegWork, received: Received, told: UndertakingWord
    ) -> None:
        leg, undertaking = (work.plan_id, work.leg_id), undertaking_of(work.binding)
        row = await store.lock(tx, leg)
        if row is None:
            return
        attributes = {
            **messaging("process", received.envelope.sender, received.envelope.message_id),
            PLAN_ID: work.plan_id,
            LEG_ID: work.leg_id,
            "iso20022.message": received.kind.value,
        }
        with span("bank.receive", traceparent=work.traceparent, kind=SpanKind.CONSUMER, attributes=attributes) as current:
            heard = hear(row.known, work.phase, undertaking, told, received.envelope, received.sha256)
            current.set_attribute("bank.meaning", heard.meaning.value)
            if heard.known != row.known:
                await store.update(tx, leg, heard.known)
            if heard.meaning is Meaning.TROUBLE:
                _log.error("bank_contradicts", plan_id=work.plan_id, leg_id=work.leg_id, why=heard.detail)
                await engine.trouble(tx, *leg, heard.detail)
                return
            completion = self._completion(work, heard, undertaking, row.issuance)
            await engine.complete(tx, [] if completion is None else [completion])

    def _completion(self, work: LegWork, heard: Heard, undertaking: Undertaking, issuance: Issuance | None) -> Completion | None:
        leg = work.plan_id, work.leg_id
        evidence = self._evidence(heard.known, undertaking, issuance)
        match heard.meaning:
            case Meaning.VOTES_YES:
                return Completion(*leg, Finding.VOTED_YES, promise=Promise(PromiseKind.GUARANTEED, None, evidence))
            case Meaning.VOTES_NO | Meaning.LAPSED | Meaning.REFUSED:
                finding = {
                    Meaning.VOTES_NO: Finding.VOTED_NO,
                    Meaning.LAPSED: Finding.LAPSED,
                    Meaning.REFUSED: Finding.REFUSED,
                }[heard.meaning]
                return Completion(*leg, finding, refusal=Refusal(heard.reason, heard.known.reason, heard.detail))
            case Meaning.SETTLES:
                return Completion(*leg, Finding.EXECUTED, evidence=evidence)
            case Meaning.RELEASED:
                return Completion(*leg, Finding.RELEASED, evidence=evidence)
            case _:
                return None

    def _evidence(self, known: Known, undertaking: Undertaking, issuance: Issuance | None) -> InstrumentEvidence:
        return InstrumentEvidence(
            bank_bic=self._settings.bank_bic,
            reference=undertaking.reference,
            undertaking_number=undertaking.number,
            status=known.status,
            message_id=known.message_id,
            message_sha256=bytes.fromhex(known.sha256),
            issuance_sha256=b"" if issuance is None else issuance.sha256,
        )

    # -- In doubt ----------------------------------------------------------------------------------------------------

    async def inquire(self, db: Database) -> bool:
        """Say again what is not answered, ever more rarely, and never for the last time; returns whether anything was."""
        after = timedelta(seconds=self._settings.inquiry_seconds)
        most = timedelta(seconds=self._settings.inquiry_seconds_max)
        async with db.transaction() as tx:
            due = await store.to_inquire(tx, after, most, INQUIRED_MAX)
            number = int((await common.now(tx)).timestamp() * 1_000_000)
            for plan_id, leg_id, phase in due:
                await self._repeat(tx, (plan_id, leg_id), phase, number)
        return bool(due)

    async def _repeat(self, tx: Connection, leg: tuple[PlanId, LegId], phase: Phase, number: int) -> None:
        """The same message once more. What was never queued is not said again."""
        kind = {Phase.PREPARING: Kind.APPLICATION, Phase.COMMITTING: Kind.ISSUANCE, Phase.ABORTING: Kind.TERMINATION}[phase]
        row = await store.lock(tx, leg)
        drawn = None if row is None else row.issuance
        name = drawn.message_id if drawn is not None and kind is Kind.ISSUANCE else message_id(kind, *leg)
        queued = await store.queued(tx, name)
        if queued is not None:
            octets, traceparent = queued
            await enqueue(tx, [Queued(leg, uetr(*leg), "SEND", repeat_key(name, number), octets, traceparent)])

    # -- Out ---------------------------------------------------------------------------------------------------------

    async def _send(
        self,
        tx: Connection,
        leg: tuple[PlanId, LegId],
        kind: Kind,
        name: str,
        undertaking: Undertaking,
        octets: bytes,
        traceparent: str | None,
    ) -> None:
        about, octets = uetr_of(undertaking.reference), self._agreement.seal(octets)
        outgoing = Outgoing()
        outgoing.add(
            Queued(leg, about, "SEND", name, octets, traceparent), common.KeptMessage("OUT", name, kind.value, about, octets)
        )
        await outgoing.flush(tx)

    def _envelope(self, name: str, now: datetime) -> Envelope:
        return Envelope(self._settings.own_bic, self._settings.bank_bic, name, now)
