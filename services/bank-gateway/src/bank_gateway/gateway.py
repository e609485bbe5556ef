"""What the gateway does when a leg enters a working phase: builds messages, keeps them, queues them. Holds no rules.

Which steps it takes when is the profile's (`profiles`); each step is one method here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import field
from datetime import date, datetime
from typing import Final

from bank_gateway import bookkeeping, drafts, store
from bank_gateway.drafts import Draft, DraftState
from bank_gateway.instruments.desk import UndertakingDesk
from bank_gateway.iso20022 import writer
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.messages import Envelope, Footing, Kind, Payment
from bank_gateway.operations import Known
from bank_gateway.outbox_store import Queued
from bank_gateway.outgoing import Outgoing
from bank_gateway.payments import CANCELLATION_REASON, credit_terms, evidence_of, hold_ends, known_payment, promise_until
from bank_gateway.profiles import PROFILES, Profile, Step
from bank_gateway.references import message_id, references, repeat_key
from bank_gateway.settings import BankGatewaySettings
from bank_gateway.store import KeptMessage, NewPayment
from lockstep_kit.amounts import known_scale
from lockstep_kit.calendars import Hours, open_window
from lockstep_kit.db import Connection
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_kit.participant.ports import AssetCapability, Capabilities, Completion, LegWork
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import Promise, Refusal
from lockstep_kit.values import dataclass, replace

#: Money that a bank has booked comes back by its new owner's consent only, which is another payment and not this leg.
STAYS_PAID: Final = Refusal("REVERSAL_UNSUPPORTED", "", "a booked credit transfer is returned by its creditor, not taken back")

#: The operator allows a debtor so much, and the bank is not asked for more (ExternalStatusReason1Code: settlement limit exceeded).
LIMIT_REACHED: Final = Refusal("LIQUIDITY_DENIED", "AM23", "the debtor's limit at this gateway leaves less than the payment")


#: Phases in which something is said to the bank.
ENTERED: Final = (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING)


@dataclass(frozen=True, slots=True)
class Occasion:
    """When a step is taken, and of what kind its payment is."""

    #: How the payment is promised and made.
    profile: Profile
    #: The database's clock.
    now: datetime
    #: Tells one request about a leg from the next.
    number: int
    #: Trace of whoever caused it.
    traceparent: str | None = None


@dataclass
class BankOperations:
    """`Operations` of a participant whose legs are payments at one bank."""

    #: Who we are, and who the bank is.
    settings: BankGatewaySettings
    #: The official schemas.
    schemas: Schemas
    #: What is agreed with the bank about messages.
    agreement: Agreement = field(default_factory=Agreement)
    #: Set when something was queued.
    queued: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        #: What is done about undertakings.
        self.undertakings = UndertakingDesk(self.settings, self.schemas, self.agreement)

    @property
    def profile(self) -> Profile:
        """How payments are promised and made that are asked for now."""
        return PROFILES[self.settings.profile]

    def capabilities(self) -> Capabilities:
        """What the profile promises, until a hold or reservation ends; the draft of an undertaking, where drafts are agreed, without an end."""
        issued = () if self.settings.instruments is None else (LegKind.ISSUE_INSTRUMENT.value,)
        return Capabilities(
            leg_kinds=("credit_transfer", *issued),
            promise_kind=self.profile.promise,
            promise_max=self.settings.hold_max,
            assets=tuple(
                AssetCapability(each, known_scale(each) or 0, hours=self._hours(each)) for each in self.settings.currencies
            ),
            venues=(self.settings.bank_bic,),
            firm_kinds=issued,
            promise_margin=self.settings.hold_margin,
        )

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Build what is to be said to the bank, keep it, queue it."""
        completions: list[Completion] = []
        paying: list[LegWork] = []
        begun: list[tuple[LegWork, Footing]] = []
        for each in work:
            if each.binding.leg.kind is LegKind.ISSUE_INSTRUMENT:
                completions.extend(await self.undertakings.begin(tx, each, now))
            else:
                paying.append(each)
        refusals = await self._refusals(tx, paying, now)
        entering = [each for each in paying if each.phase in ENTERED and (each.plan_id, each.leg_id) not in refusals]
        known, outgoing = await self._note(tx, entering, now), Outgoing()
        for each in paying:
            match each.phase:
                case Phase.PREPARING if (refusal := refusals.get((each.plan_id, each.leg_id))) is not None:
                    completions.append(Completion(each.plan_id, each.leg_id, Finding.VOTED_NO, refusal=refusal))
                case Phase.PREPARING | Phase.COMMITTING | Phase.ABORTING:
                    completion, profile = await self._enter(tx, each, known.get((each.plan_id, each.leg_id)), now, outgoing)
                    if completion is None or completion.finding is Finding.VOTED_YES:
                        begun.append((each, profile.footing))
                    if completion is not None:
                        completions.append(completion)
                case Phase.REVERSING:
                    completions.append(Completion(each.plan_id, each.leg_id, Finding.REVERSAL_REFUSED, refusal=STAYS_PAID))
                case _:
                    raise AssertionError(f"nothing is begun in {each.phase}")
        await outgoing.flush(tx)
        await bookkeeping.begun(tx, begun)
        return completions

    def wake(self) -> None:
        """Send what was queued."""
        self.queued.set()

    async def _refusals(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> dict[tuple[PlanId, LegId], Refusal]:
        """Legs that are prepared and that the bank need not even be asked about. A limit counts for those that nothing else speaks against."""
        found: dict[tuple[PlanId, LegId], Refusal] = {}
        asking: list[LegWork] = []
        for each in work:
            if each.phase is Phase.PREPARING:
                refusal = self._refuses(each, now)
                if refusal is None:
                    asking.append(each)
                else:
                    found[each.plan_id, each.leg_id] = refusal
        denied = await bookkeeping.denied(tx, asking)
        return found | {(each.plan_id, each.leg_id): LIMIT_REACHED for each in asking if uetr(each.plan_id, each.leg_id) in denied}

    def _refuses(self, work: LegWork, now: datetime) -> Refusal | None:
        """Why the bank need not even be asked."""
        terms = credit_terms(work.binding)
        if terms.debtor.agent_bic != self.settings.bank_bic:
            return Refusal("BANK_PREPARE_FAILED", "RC03", f"this gateway speaks to {self.settings.bank_bic} only")
        if terms.amount.asset not in self.settings.currencies:
            return Refusal("BANK_PREPARE_FAILED", "AM11", f"{terms.amount.asset} is not agreed with the bank")
        if work.hold_until is None or work.hold_until > now + self.settings.hold_max:
            return Refusal("BANK_PREPARE_FAILED", "CH03", "the promise would have to stand longer than the bank holds money")
        if work.hold_until < work.binding.header.deadline + self.settings.hold_margin:
            margin = self.settings.hold_margin.total_seconds()
            return Refusal("BANK_PREPARE_FAILED", "", f"the promise must outlive the plan's deadline by {margin:g} seconds")
        return self._too_late(terms.amount.asset, work, now)

    def _too_late(self, currency: str, work: LegWork, now: datetime) -> Refusal | None:
        """Why the money could not settle while it is held: nobody knows before when it will be released."""
        calendar = self.settings.calendar(currency)
        if calendar.continuous:
            return None
        window = open_window(calendar, now)
        if window is None:
            why = f"{currency} does not settle at {self.settings.bank_bic} before {calendar.settles_at(now):%Y-%m-%dT%H:%M:%SZ}"
            return Refusal("BANK_PREPARE_FAILED", "TM01", why)
        if hold_ends(work) > window.cut_off:
            why = f"the hold would end after {window.cut_off:%Y-%m-%dT%H:%M:%SZ}, the cut-off of {currency} at {self.settings.bank_bic}"
            return Refusal("BANK_PREPARE_FAILED", "TM01", why)
        return None

    def _hours(self, currency: str) -> Hours | None:
        calendar = self.settings.calendar(currency)
        return None if calendar.continuous else calendar

    async def _note(
        self, tx: Connection, work: Sequence[LegWork], now: datetime
    ) -> dict[tuple[PlanId, LegId], tuple[Known, Profile]]:
        """Note the payments of legs; returns what is known of those that are not asked for first."""
        noted: list[NewPayment] = []
        for each in work:
            # A row that was restored from its vote has its payment's times from there.
            asked_at = now if each.phase is not Phase.COMMITTING else each.since if each.vote is None else each.vote.vote.voted_at
            names = references(each.plan_id, each.leg_id)
            noted.append(NewPayment((each.plan_id, each.leg_id), names, asked_at, self._day(each, asked_at)))
        await store.insert_payments(tx, noted, self.profile)
        return await store.payments(tx, [(each.plan_id, each.leg_id) for each in work if each.phase is not Phase.PREPARING])

    async def _enter(
        self, tx: Connection, work: LegWork, found: tuple[Known, Profile] | None, now: datetime, outgoing: Outgoing
    ) -> tuple[Completion | None, Profile]:
        """Take the steps of the phase; returns what it ends with, and how the payment is made. One that settled before a restore is found settled."""
        profile = self.profile
        if found is not None:
            known, profile = found
            if work.phase is Phase.COMMITTING and known.settled:
                evidence = evidence_of(known, work.plan_id, work.leg_id, self.settings.bank_bic)
                return Completion(work.plan_id, work.leg_id, Finding.EXECUTED, evidence=evidence), profile
        occasion = Occasion(profile, now, work.revision, work.traceparent)
        sent = work.phase is Phase.ABORTING and await self._was_sent(tx, work, profile)
        completion = None
        for step in profile.begun[work.phase, sent]:
            if step is Step.PROMISE:
                promise = Promise(profile.promise, self._payment(work, profile, now).expires_at)
                completion = Completion(work.plan_id, work.leg_id, Finding.VOTED_YES, promise=promise)
            else:
                await self.take(tx, work, step, occasion, outgoing)
        return completion, profile

    async def overdue(self, tx: Connection, work: LegWork, count: int, number: int, now: datetime) -> None:
        """Ask for an answer that is overdue, for the `count`th time in this phase, from 1; `number` tells one request from the next."""
        found = await store.payments(tx, [(work.plan_id, work.leg_id)])
        if not found:
            return
        ((known, profile),) = found.values()
        if (work.phase, known.payment_over) not in profile.overdue:
            return  # the leg has gone on since it was found to owe an answer
        occasion = Occasion(profile, now, number, work.traceparent)
        first, second = profile.overdue[work.phase, known.payment_over]
        step, other = (first, second) if count % 2 else (second, first)
        outgoing = Outgoing()
        if not await self.take(tx, work, step, occasion, outgoing):
            await self.take(tx, work, other, occasion, outgoing)
        await outgoing.flush(tx)

    async def take(self, tx: Connection, work: LegWork, step: Step, occasion: Occasion, outgoing: Outgoing) -> bool:
        """Take one step; False where it may not be taken now, or there is nothing to take it with. What it says goes out with `outgoing`."""
        match step:
            case Step.PAY:
                self._pay(work, occasion, outgoing)
            case Step.DRAFT:
                await self._draft(tx, work, occasion.profile, occasion.now)
            case Step.RESERVE:
                self._ask(work, Kind.RESERVATION, replace(occasion, number=1), outgoing)
            case Step.SHOW_KEY:
                return await self._show_key(tx, work, occasion, outgoing)
            case Step.SEND:
                await self._send_draft(tx, work, occasion, outgoing)
            case Step.WITHDRAW:
                await self._withdraw(tx, work, occasion.profile)
            case Step.CANCEL:
                self._ask(work, Kind.CANCELLATION, occasion, outgoing)
            case Step.UNRESERVE:
                self._ask(work, Kind.RESERVATION_DELETION, occasion, outgoing)
            case Step.INQUIRE:
                self._ask(work, Kind.INQUIRY, occasion, outgoing)
            case Step.INQUIRE_RESERVATION:
                self._ask(work, Kind.RESERVATION_QUERY, occasion, outgoing)
            case Step.SEND_AGAIN:
                # What the bank may not have yet is begun now, if at all.
                may = await store.key_of_executing(tx, work.plan_id, work.leg_id) is not None
                return may and await self._repeat(tx, work, Kind.PAYMENT, occasion.number, outgoing)
            case Step.RESERVE_AGAIN:
                return await self._repeat(tx, work, Kind.RESERVATION, occasion.number, outgoing)
            case Step.PROMISE:
                raise AssertionError("a promise is no message")
        return True

    def _pay(self, work: LegWork, occasion: Occasion, outgoing: Outgoing) -> None:
        told = self._payment(work, occasion.profile, occasion.now)
        envelope = self._envelope(work, Kind.PAYMENT, 1, occasion.now)
        octets = writer.payment(envelope, told, self.schemas)
        self._send(work, told.kind, envelope.message_id, octets, occasion.traceparent, outgoing)

    async def _draft(self, tx: Connection, work: LegWork, profile: Profile, asked_at: datetime) -> Draft:
        """Build the payment and keep it; the same leg at the same time makes the same octets, on any replica and after any loss."""
        told, envelope = self._payment(work, profile, asked_at), self._envelope(work, Kind.PAYMENT, 1, asked_at)
        octets = writer.payment(envelope, told, self.schemas)
        await drafts.keep(tx, (work.plan_id, work.leg_id), envelope.message_id, told.kind, octets)
        return Draft(DraftState.KEPT, envelope.message_id, told.kind, octets)

    async def _send_draft(self, tx: Connection, work: LegWork, occasion: Occasion, outgoing: Outgoing) -> None:
        """Send the payment that was kept; one that a restore lost is built again."""
        leg = work.plan_id, work.leg_id
        draft = await drafts.find(tx, leg)
        if draft is None:
            asked_at = occasion.now if work.vote is None else work.vote.vote.voted_at
            draft = await self._draft(tx, work, occasion.profile, asked_at)
        if draft.state is DraftState.WITHDRAWN:
            raise AssertionError("the fence commits no leg that was given up")
        await drafts.move(tx, leg, DraftState.SENT)
        self._send(work, draft.kind, draft.message_id, draft.octets, occasion.traceparent, outgoing)

    async def _was_sent(self, tx: Connection, work: LegWork, profile: Profile) -> bool:
        """Whether the payment may be at the bank already, as far as this database knows."""
        if profile.footing is Footing.CONDITIONAL:
            return True
        draft = await drafts.find(tx, (work.plan_id, work.leg_id))
        return draft is not None and draft.state is DraftState.SENT

    async def _withdraw(self, tx: Connection, work: LegWork, profile: Profile) -> None:
        leg = work.plan_id, work.leg_id
        await drafts.move(tx, leg, DraftState.WITHDRAWN)
        if profile.reserves:
            found = await store.payments(tx, [leg])
            await store.update_payments(tx, {each: replace(known, payment_over=True) for each, (known, _) in found.items()})

    async def _show_key(self, tx: Connection, work: LegWork, occasion: Occasion, outgoing: Outgoing) -> bool:
        """Show the key; once more to a bank that may have forgotten that it was shown, but not where nothing may begin any more."""
        names = references(work.plan_id, work.leg_id)
        key, name = work.key, f"{names.instruction_id}-release"
        if occasion.number != work.revision:
            may = await store.key_of_executing(tx, work.plan_id, work.leg_id)
            if may is None:
                return False
            key, name = may, f"{name}-{occasion.number}"
        outgoing.add(Queued((work.plan_id, work.leg_id), names.uetr, "RELEASE", name, key, occasion.traceparent))
        return True

    def _ask(self, work: LegWork, kind: Kind, occasion: Occasion, outgoing: Outgoing) -> None:
        """A request about the payment or its reservation; the bank answers for those that it never saw too, and bars them."""
        names = references(work.plan_id, work.leg_id)
        told = self._payment(work, occasion.profile, occasion.now)
        envelope = self._envelope(work, kind, occasion.number, occasion.now)
        match kind:
            case Kind.CANCELLATION:
                octets = writer.cancellation(envelope, names, CANCELLATION_REASON, self.schemas, told.kind)
            case Kind.INQUIRY:
                octets = writer.inquiry(envelope, names, self.schemas, told.kind)
            case Kind.RESERVATION:
                octets = writer.reservation(envelope, told, self.schemas)
            case Kind.RESERVATION_DELETION:
                octets = writer.reservation_deletion(envelope, told, self.schemas)
            case _:
                octets = writer.reservation_query(envelope, told, self.schemas)
        self._send(work, kind, envelope.message_id, octets, occasion.traceparent, outgoing)

    async def _repeat(self, tx: Connection, work: LegWork, kind: Kind, number: int, outgoing: Outgoing) -> bool:
        """A message of ours once more, as it went; False for one that this database does not know."""
        name = message_id(kind, work.plan_id, work.leg_id)
        sent = await drafts.sent_message(tx, name)
        if sent is None:
            return False
        uetr = references(work.plan_id, work.leg_id).uetr
        key = repeat_key(name, number)
        outgoing.add(Queued((work.plan_id, work.leg_id), uetr, "SEND", key, sent[1], work.traceparent))
        return True

    def _send(self, work: LegWork, kind: Kind, name: str, octets: bytes, traceparent: str | None, outgoing: Outgoing) -> None:
        uetr, octets = references(work.plan_id, work.leg_id).uetr, self.agreement.seal(octets)
        queued = Queued((work.plan_id, work.leg_id), uetr, "SEND", name, octets, traceparent)
        outgoing.add(queued, KeptMessage("OUT", name, kind.value, uetr, octets))

    def _payment(self, work: LegWork, profile: Profile, asked_at: datetime) -> Payment:
        until = promise_until(work, profile, asked_at, self.settings.hold_max)
        return known_payment(work.binding, self._day(work, asked_at), until, profile.footing)

    def _day(self, work: LegWork, asked_at: datetime) -> date:
        return self.settings.calendar(credit_terms(work.binding).amount.asset).settlement_day(asked_at)

    def _envelope(self, work: LegWork, kind: Kind, number: int, now: datetime) -> Envelope:
        name = message_id(kind, work.plan_id, work.leg_id, number)
        return Envelope(self.settings.own_bic, self.settings.bank_bic, name, now)
