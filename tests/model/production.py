"""Production's own functions, as the search asks them: each answer is worked out once, by the code that the services run.

Coordinator: `protocol.step`, `gates.admit`, `certificates.check_release`, `operators.admit`, `reports.admit`, `commands.answered`, and the messages as
`convert.participant` builds them. Participant: `read_*`, `rules.authorise`, `rules.holds_own_yes`, `rules.judge`, `rules.begun`, `Signer.found` and the
fence under them, `report_of`. All signatures are real. What is left out is what those functions do not read: times inside signed statements are
always the beginning, transitions and journal events are counted from one anew at every step, sentences are empty.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from coordinator import certificates, gates, operators, protocol, reports, restoring
from coordinator.commands import Command, answered, command_of
from coordinator.convert import participant as outgoing
from coordinator.convert.participant import CALLS, CallName, Outgoing
from coordinator.dossier import Dossier, FiledTicket, LegFile, new_plan
from coordinator.model import (
    Created,
    Effect,
    Event,
    GateRecord,
    GateSigned,
    LegState,
    Limits,
    Moved,
    Order,
    Plan,
    State,
    Ticket,
)
from lockstep_kit import fence
from lockstep_kit.certificate import DeadlinePassed, NotAuthorised
from lockstep_kit.convert import certificate_from_pb
from lockstep_kit.fence import Action, Epoch, Finding, Phase
from lockstep_kit.ids import ActorId, LegId, PlanId
from lockstep_kit.keys import leg_key, lock_of
from lockstep_kit.participant import rules
from lockstep_kit.participant.completing import Signer
from lockstep_kit.participant.convert import read_abort, read_commit, read_prepare, read_reverse, report_of, stored_certificate
from lockstep_kit.participant.ports import Completion
from lockstep_kit.participant.records import Item, LegRecord, Rejection
from lockstep_kit.participant.verifying import VerifyingRegistry
from lockstep_kit.plan import Journal, Leg, LegKind, Notarisation, PlanHeader, Terms, legs_root
from lockstep_kit.resolutions import Resolution, ResolutionSignature, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.reversals import OperatorsResolution
from lockstep_kit.statements import (
    BankEvidence,
    Evidence,
    Gate,
    GateSignature,
    GateStatement,
    Promise,
    Refusal,
    SignedOutcome,
    SignedVote,
    Verdict,
    evidence_digest,
    sign_gate,
    votes_digest,
)
from lockstep_testkit import factories
from model.invariants import Broken
from model.world import BEGINNING, CLOCKS, DEADLINE, GENERATION, Asked, Config, Outside, Pool, Shape, Signing, Site

LIMITS: Final = Limits()
SIGNED_UNTIL: Final = BEGINNING + timedelta(days=365)
PLAN_KEY: Final = hashlib.sha256(b"lockstep model plan key").digest()
BROKEN: Final = Refusal("BANK_EXECUTE_FAILED", "AM04", "the promise was broken")

_EXECUTED_OF: Final = {Finding.EXECUTED, Finding.REVERSED}
_REFUSED_OF: Final = {Finding.REFUSED, Finding.LAPSED, Finding.REVERSAL_REFUSED}


def _terms(kind: LegKind) -> Terms:
    match kind:
        case LegKind.TOKEN_TRANSFER:
            return factories.token_terms()
        case LegKind.CREDIT_TRANSFER:
            return factories.credit_terms()
        case LegKind.ISSUE_INSTRUMENT:
            return factories.instrument_terms()
        case LegKind.NOTARISATION:
            return Notarisation(factories.CHAIN, factories.address_of("registry"))
        case LegKind.JOURNAL:
            return Journal()


def _octets(*words: object) -> bytes:
    return hashlib.sha256("/".join(str(each) for each in words).encode()).digest()[:16]


class Message(NamedTuple):
    """A command on its way to a leg."""

    #: What it orders.
    order: Order
    #: As its receiver reads it.
    item: Item


class Stepped(NamedTuple):
    """What the protocol made of an event."""

    #: The plan after it.
    plan: int
    #: Command given about each leg; 0: none.
    given: tuple[int, ...]
    #: For each leg that changed, the order whose command stays in force; None for the others.
    keeps: tuple[Order | None, ...]
    #: Whether Commits that were never sent are stopped.
    withholds: bool


class Taken(NamedTuple):
    """What a participant made of a message."""

    #: The site after it.
    site: int
    #: What the fence said; None: what the message shows does not allow it.
    action: Action | None
    #: Why, when rejected.
    reason: str


@dataclass(frozen=True, slots=True)
class Edge:
    """One answer of production's functions, for the invariants to judge."""

    #: Plan before and after, and everything that is to be done about it.
    before: Plan
    event: Event
    after: Plan
    effects: tuple[Effect, ...]
    #: By the coordinator's clock.
    moment: datetime


class Stack:
    """One configuration's plan, with everything that production's functions ever said about it."""

    def __init__(self, config: Config) -> None:
        self.config: Final = config
        legs = tuple(_leg(shape) for shape in config.legs)
        header = PlanHeader(
            plan_id=PlanId("00000000-0000-4000-8000-000000000001"),
            reference="MODEL",
            parties=(factories.BUYER, factories.SELLER),
            deadline=DEADLINE,
            policy=config.policy,
            sod_version=1,
            leg_count=len(legs),
            legs_root=legs_root(legs),
        )
        self.header: Final = header
        self.registry: Final = VerifyingRegistry(factories.registry_of())
        self.keys: Final = {leg.leg_id: leg_key(PLAN_KEY, header.plan_id, leg.leg_id) for leg in legs}
        self.participants: Final = tuple(factories.PARTICIPANTS[leg.kind] for leg in legs)
        self._signers = tuple(Signer(name, factories.key_of(name)) for name in self.participants)
        self._places = {leg.leg_id: place for place, leg in enumerate(legs)}
        self._evidence = tuple(_evidence(leg) for leg in legs)
        self._papers = Dossier(
            plan=new_plan(header, legs),
            header=header,
            files=tuple(
                LegFile(leg, name, lock_of(self.keys[leg.leg_id]), b"signed" if leg.kind is LegKind.TOKEN_TRANSFER else b"")
                for leg, name in zip(legs, self.participants, strict=True)
            ),
            tickets=(),
            version=1,
            created_at=BEGINNING,
            updated_at=BEGINNING,
            traceparent=None,
        )
        self.plans: Final[Pool[Plan]] = Pool()
        self.sites: Final[Pool[Site]] = Pool()
        self.rows: Final[Pool[Command | None]] = Pool()
        self.rows.number(None)
        self.messages: Final[tuple[Pool[Message | None], ...]] = tuple(Pool() for _ in legs)
        for pool in self.messages:
            pool.number(None)
        self.reports: Final[Pool[tuple[int, reports.LegReport]]] = Pool()
        self.edges: list[Edge] = []
        self._messages_known: dict[object, int] = {}
        self._dossiers: dict[int, Dossier] = {}
        self._resolutions: dict[Resolution, tuple[ResolutionSignature, ...]] = {}
        self._signatures: dict[tuple[object, ...], GateSignature] = {}

    # -- The coordinator ---------------------------------------------------------------------------------------------

    def created(self) -> int:
        """The plan in DRAFT, signed by its maker."""
        make = GateRecord(self.signature(self._papers.plan, Gate.MAKE, Verdict.APPROVE), ActorId("alice"), BEGINNING)
        made = protocol.step(self._papers.plan, Created(make), BEGINNING, LIMITS)
        return self.plans.number(canonical(made.plan))

    def step(self, plan_no: int, event: Event, moment: datetime, base: datetime) -> Stepped:
        """What the protocol makes of an event at a moment, of a plan in which everything happened at `base`."""
        before = stamped(self.plans[plan_no], base)
        stepped = protocol.step(before, event, moment, LIMITS)
        after = stepped.plan
        self.edges.append(Edge(before, event, after, stepped.effects, moment))
        given = [0] * len(after.legs)
        for effect in stepped.effects:
            command = command_of(after.plan_id, effect)
            if command is not None:
                given[self._places[command.leg_id]] = self.rows.number(canonical_row(command))
        withholds = any(isinstance(each, Moved) and each.entered is State.PARTIALLY_EXECUTED for each in stepped.effects)
        return Stepped(self.plans.number(canonical(after)), tuple(given), _keeps(before.legs, after.legs), withholds)

    def dossier(self, plan: Plan) -> Dossier:
        """A plan with all its papers."""
        return replace(self._papers, plan=plan)

    def signature(self, plan: Plan, gate: Gate, verdict: Verdict) -> GateSignature:
        """A person's signature at a gate, over what the plan shows them."""
        shown: tuple[SignedVote | SignedOutcome, ...] = ()
        if gate is Gate.RELEASE and verdict is Verdict.APPROVE:
            shown = tuple(each.vote for each in plan.legs if each.vote is not None)
        if gate is Gate.VALIDATE and verdict is Verdict.APPROVE:
            shown = tuple(each.outcome for each in plan.legs if each.kind.settling and each.outcome is not None)
        key = (gate, verdict, len(plan.gates), shown)
        known = self._signatures.get(key)
        if known is None:
            known = self._signatures[key] = self._sign(gate, verdict, len(plan.gates), shown)
        return known

    def _sign(self, gate: Gate, verdict: Verdict, place: int, shown: tuple[SignedVote | SignedOutcome, ...]) -> GateSignature:
        over = (gate, verdict)
        votes = (
            votes_digest([each for each in shown if isinstance(each, SignedVote)])
            if over == (Gate.RELEASE, Verdict.APPROVE)
            else None
        )
        outcomes = [each for each in shown if isinstance(each, SignedOutcome)]
        evidence = evidence_digest(outcomes) if over == (Gate.VALIDATE, Verdict.APPROVE) else None
        statement = GateStatement(gate, verdict, self.header.digest, _octets(gate, verdict, place), SIGNED_UNTIL, votes, evidence)
        return sign_gate(statement, factories.key_of(factories.SIGNERS[gate]))

    def gate(self, plan_no: int, signing: Signing, moment: datetime) -> GateSigned | None:
        """A person signs a gate; None where production does not let them."""
        dossier = self.dossier(stamped(self.plans[plan_no], moment))
        try:
            record = gates.admit(dossier, self.signature(dossier.plan, *signing), self.registry, moment)
            if signing == (Gate.RELEASE, Verdict.APPROVE):
                certificates.check_release(dossier, record, self.keys, self.registry, moment)
        except NotAuthorised:
            return None
        return GateSigned(record)

    def resolutions(self, plan_no: int, truths: tuple[Outside, ...], nth: int, moment: datetime) -> list[tuple[str, Event]]:
        """Everything that two operators may decide now, who look at the outside world before they say what became of a leg."""
        plan = stamped(self.plans[plan_no], moment)
        found = []
        for ticket in plan.tickets:
            filed = FiledTicket("escalation", ticket, None)
            for move in sorted(operators.options(plan, filed, moment, LIMITS)):
                event = self._resolution(plan, filed, move, truths, nth, moment)
                if event is not None:
                    found.append((f"operators {move} ({ticket.reason} {ticket.leg_id})", event))
        return found

    def _resolution(
        self, plan: Plan, filed: FiledTicket, move: operators.Move, truths: tuple[Outside, ...], nth: int, moment: datetime
    ) -> Event | None:
        leg_id = filed.ticket.leg_id if move.names_leg else ""
        executed = evidence = None
        if move is operators.Move.RESOLVE_LEG:
            truth = truths[self._places[LegId(leg_id)]]
            if truth not in (Outside.EXECUTED, Outside.RELEASED, Outside.GONE):
                return None
            executed, evidence = truth is Outside.EXECUTED, self._evidence[self._places[LegId(leg_id)]]
        # Each time they say it in other words: the same resolution takes effect once.
        resolution = Resolution(self.header.digest, filed.escalation_id, move.verb, leg_id, executed, evidence, f"seen {nth}")
        signatures = self._operators(resolution, nth)
        dossier = self.dossier(plan)
        try:
            first = operators.admit(dossier, filed, signatures[0], [], self.registry, LIMITS, moment)
            return operators.admit(dossier, filed, signatures[1], [first.record], self.registry, LIMITS, moment).event
        except NotAuthorised:
            return None

    def hear(self, plan_no: int, report_no: int) -> tuple[Event, ...]:
        """A report as the plan's news."""
        place, report = self.reports[report_no]
        known = self._dossiers.get(plan_no)
        if known is None:
            known = self._dossiers[plan_no] = self.dossier(self.plans[plan_no])
        return reports.admit(report, self.participants[place], known, self.registry)

    def forged(self, place: int) -> list[int]:
        """What whoever has taken the coordinator over could send to any leg at any time: time's own authority, and operators' that it was shown once."""
        plan, leg_id = self._papers.plan, self._papers.files[place].leg.leg_id
        resolution = Resolution(self.header.digest, "escalation", Verb.REVERSE, detail="forged")
        authorities = (Order.ABORT, DeadlinePassed()), (Order.REVERSE, OperatorsResolution(self._operators(resolution, 0)))
        rows = [Command(self._papers.plan_id, leg_id, order, authority=authority) for order, authority in authorities]
        return [self._message(plan, place, row, epoch_of(0)) for row in rows]

    def _operators(self, resolution: Resolution, nth: int) -> tuple[ResolutionSignature, ...]:
        known = self._resolutions.get(resolution)
        if known is None:
            known = self._resolutions[resolution] = tuple(
                sign_resolution(ResolutionStatement(resolution, _octets(who, nth), SIGNED_UNTIL), factories.key_of(who))
                for who in ("erin", "frank")
            )
        return known

    def message(self, plan_no: int, place: int, row_no: int, epoch: int) -> int:
        """The message that the relay sends for a command in force."""
        row = self.rows[row_no]
        if row is None:
            return 0
        plan = self.plans[plan_no]
        shown: object = None
        if row.order is Order.COMMIT:
            done = next((each.outcome for each in plan.legs if each.leg_id == plan.delegate), None)
            shown = (plan.decision, plan.delegate, done, tuple(each.vote for each in plan.legs))
        key = (place, row_no, epoch, shown)
        known = self._messages_known.get(key)
        if known is None:
            known = self._messages_known[key] = self._message(plan, place, row, epoch_of(epoch))
        return known

    def _message(self, plan: Plan, place: int, row: Command, epoch: Epoch) -> int:
        batch = [Outgoing(row, self.dossier(plan), epoch, PLAN_KEY)]
        match CALLS[row.order]:
            case CallName.PREPARE:
                item = read_prepare(outgoing.prepare_request(batch, LIMITS.delivery_margin).commands[0])
            case CallName.COMMIT:
                request = outgoing.commit_request(batch)
                certificate = request.certificates[0]
                item = read_commit(request.commands[0], certificate_from_pb(certificate), certificate)
            case CallName.ABORT:
                item = read_abort(outgoing.abort_request(batch).commands[0])
            case CallName.REVERSE:
                item = read_reverse(outgoing.reverse_request(batch).commands[0])
        return self.messages[place].number(Message(row.order, item))

    # -- A participant -----------------------------------------------------------------------------------------------

    def take(self, place: int, site_no: int, message_no: int, clock: int) -> Taken:
        """A participant takes a message, as its engine does: authorise, judge, store what is begun."""
        site, message = self.sites[site_no], self.messages[place][message_no]
        if message is None:
            raise AssertionError("no message")
        item, now, record = message.item, CLOCKS[clock], site.record
        refusal: NotAuthorised | None = None
        try:
            executed_by = None if record is None else stored_certificate(record)
            rules.authorise(item, self.participants[place], self.registry, now, executed_by)
        except NotAuthorised as found:
            refusal = found
        own_yes = rules.holds_own_yes(item, self.participants[place], self.registry)
        ruling = rules.judge(record, item, refusal, now, own_yes=own_yes)
        if isinstance(ruling, Rejection):
            return Taken(site_no, None, ruling.reason)
        if ruling.row is None:
            return Taken(site_no, ruling.action, ruling.reason or "")
        if ruling.action is not Action.BEGIN:
            if record is None:
                return Taken(site_no, ruling.action, ruling.reason or "")
            kept = replace(site, record=replace(record, fence=ruling.row))
            return Taken(self.sites.number(kept), ruling.action, ruling.reason or "")
        begun = canonical_record(rules.begun(record, item, ruling.row, BEGINNING, None))
        asked = site.asked | (Asked.EXECUTE if begun.fence.phase is Phase.COMMITTING else Asked.NOTHING)
        after = self.told(place, replace(site, record=begun, asked=asked))
        return Taken(self.sites.number(after), ruling.action, "")

    def raised(self, place: int, site_no: int, message_no: int) -> int:
        """The site after `GetLeg(raise)` with the epoch of the command in force."""
        message = self.messages[place][message_no]
        if message is None:
            raise AssertionError("no message")
        return self._raised(place, site_no, message.item.epoch)

    def raised_to(self, place: int, site_no: int, epoch: int) -> int:
        """The site after `GetLeg(raise)` with an epoch."""
        return self._raised(place, site_no, epoch_of(epoch))

    def _raised(self, place: int, site_no: int, epoch: Epoch) -> int:
        site = self.sites[site_no]
        record = site.record
        row = fence.raise_epoch(None if record is None else record.fence, epoch)
        if row is None:
            return site_no
        leg_id = self._papers.files[place].leg.leg_id
        raised = LegRecord(self._papers.plan_id, leg_id, row, None, None) if record is None else replace(record, fence=row)
        return self.sites.number(replace(site, record=raised))

    def adopted(self, plan_no: int, sites: tuple[int, ...]) -> int:
        """An older plan, with what its participants show now; the journal has nothing that the database does not have."""
        heard = {}
        for place, number in enumerate(sites):
            site, leg_id = self.sites[number], self._papers.files[place].leg.leg_id
            known = site.record is not None and site.record.fence.phase is not None
            report = self.reports[site.reports[-1]][1] if known else None
            heard[leg_id] = restoring.Heard(report, None if site.record is None else stored_certificate(site.record))
        dossier = self.dossier(self.plans[plan_no])
        try:
            found = restoring.adopt(dossier, (), heard, self.keys, self.registry, BEGINNING)
        except restoring.Contradicted as finding:
            raise Broken("a restore finds what was decided", finding.detail) from finding
        return self.plans.number(canonical(found.plan))

    def found(self, place: int, site: Site, finding: Finding, outside: Outside, answer: Promise | Refusal | None = None) -> Site:
        """The site after a finding, signed as production signs it."""
        record = site.record
        if record is None:
            raise AssertionError("nothing is found about a leg without a row")
        completion = Completion(
            plan_id=record.plan_id,
            leg_id=record.leg_id,
            finding=finding,
            promise=answer if isinstance(answer, Promise) else None,
            refusal=answer if isinstance(answer, Refusal) else BROKEN if finding in _REFUSED_OF else None,
            evidence=self._evidence[place] if finding in _EXECUTED_OF else None,
        )
        after = self._signers[place].found(record, completion, BEGINNING)
        return self.told(place, replace(site, record=after or record, outside=outside))

    def told(self, place: int, site: Site) -> Site:
        """The site with the report of its row added, where it says something new."""
        if site.record is None or site.record.fence.phase is None:
            return site
        last = self.reports[site.reports[-1]][1] if site.reports else None
        report = outgoing.report_from_pb(report_of(site.record))
        if last is not None and (last.revision, last.phase, last.trouble) == (report.revision, report.phase, report.trouble):
            return site
        return replace(site, reports=(*site.reports, self.reports.number((place, report))))


def _leg(shape: Shape) -> Leg:
    depends = tuple(LegId(each) for each in shape.depends_on)
    return Leg(LegId(shape.leg_id), _octets("salt", shape.leg_id), depends, _terms(shape.kind))


def _evidence(leg: Leg) -> Evidence:
    found = factories.evidence_of(leg)
    return replace(found, uetr="00000000-0000-4000-8000-000000000002") if isinstance(found, BankEvidence) else found


def _keeps(before: tuple[LegState, ...], after: tuple[LegState, ...]) -> tuple[Order | None, ...]:
    """What `engine.Work` leaves in the outbox: the last command about a leg, as long as it is not answered."""
    return tuple(
        None if old == new or new.order is Order.NONE else Order.NONE if answered(new) else new.order
        for old, new in zip(before, after, strict=True)
    )


def epoch_of(number: int) -> Epoch:
    """The epoch of a state."""
    return Epoch(1 + number // GENERATION, 1 + number % GENERATION)


def stamped(plan: Plan, base: datetime) -> Plan:
    """A canonical plan, everything in which happened at a moment."""
    if base == BEGINNING:
        return plan
    legs = tuple(each if each.ordered_at is None else replace(each, ordered_at=base) for each in plan.legs)
    auditing = None if plan.auditing_since is None else base
    return replace(plan, legs=legs, since=base, auditing_since=auditing)


def canonical(plan: Plan) -> Plan:
    """A plan without what decides nothing: when things happened, how many did, in which words."""
    return replace(
        plan,
        legs=tuple(each if each.ordered_at in (None, BEGINNING) else replace(each, ordered_at=BEGINNING) for each in plan.legs),
        since=BEGINNING,
        auditing_since=None if plan.auditing_since is None else BEGINNING,
        decided_at=None if plan.decided_at is None else BEGINNING,
        transition_no=1,
        journal_sequence=1,
        gates=tuple(each if each.at == BEGINNING else replace(each, at=BEGINNING) for each in plan.gates),
        tickets=_canonical_tickets(plan.tickets),
        forgotten=_canonical_tickets(plan.forgotten),
        reason_detail="",
    )


def _canonical_tickets(tickets: tuple[Ticket, ...]) -> tuple[Ticket, ...]:
    plain = {replace(each, detail="", at=BEGINNING) for each in tickets}
    return tuple(sorted(plain, key=lambda each: (each.reason, each.leg_id)))


def canonical_row(command: Command) -> Command:
    """A command without the trace that it belongs to."""
    return replace(command, attempts=0, traceparent=None)


def canonical_record(record: LegRecord) -> LegRecord:
    """A participant's row without what none of its rules read again."""
    return replace(record, authority=None, closing=None)
