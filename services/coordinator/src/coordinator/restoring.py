"""What a plan was, found again after the coordinator's database was put back: from the journal and from its participants. Pure.

Rules, in this order (docs/settlement-cycle.md, "Restores"):

1. The journal's entries beyond what the database holds are adopted as they stand: facts, transitions, numbers.
2. Where they hold no decision, a certificate that a participant obeys is the decision, with the gates and votes that it carries.
3. Where there is neither, the decision is ABORT; the protocol writes it, once `Restored` says that everybody was asked.
4. No command counts as sent that its participant does not show: fences were raised before anything was read, so that none that was is obeyed any more.

Nothing is believed that is not signed: votes and outcomes come from the participants' own reports, gates are checked as every participant checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any, Final

from coordinator import facts, orders
from coordinator.certificates import assemble
from coordinator.commands import Command
from coordinator.dossier import Dossier, LegKeys
from coordinator.model import Cause, EventType, GateRecord, LegState, Moved, Order, Plan, Record, State, Ticket
from coordinator.protocol import TABLE
from coordinator.reports import LegReport
from lockstep_kit.canonical import time_from_text
from lockstep_kit.certificate import Certificate, Decision, NotAuthorised, check_commit
from lockstep_kit.escalations import Said, said_in
from lockstep_kit.fence import Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId, Digest, LegId
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.statements import Gate, GateSignature, OutcomeKind, SignedVote
from lockstep_kit.values import dataclass, replace


class Contradicted(Exception):
    """What the journal, the participants and the database say cannot all be true: a person must look, and nothing goes on."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PayloadsErased(Contradicted):
    """The journal's chain of the plan says nothing any more: its payloads were erased, as only a sealed plan's are."""

    def __init__(self) -> None:
        super().__init__("the plan's payloads in the journal were erased: what its chain said cannot be found again")


@dataclass(frozen=True, slots=True)
class Written:
    """An entry of the plan's chain in the journal, as it was read."""

    #: Place in the chain.
    sequence: int
    #: What kind.
    type: EventType
    #: Who acted.
    actor: str
    #: In which role.
    actor_role: str
    #: When it happened.
    event_time: datetime
    #: RFC 8785 bytes.
    payload: bytes = field(repr=False)
    #: The same, read.
    document: Mapping[str, Any] = field(repr=False)
    #: The gates' signatures in it.
    gates: tuple[GateRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a leg's participant answered, after its fence was raised."""

    #: What it knows; None: it does not know the leg.
    report: LegReport | None
    #: The certificate that told it to execute; None: it never was.
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A plan as it was found again."""

    #: The plan.
    plan: Plan
    #: Its transitions that the database did not have, each with its time.
    moves: tuple[tuple[Moved, datetime], ...]
    #: The journal's entries that the database did not have.
    written: tuple[Written, ...]
    #: Events that the journal does not have either.
    records: tuple[Record, ...]
    #: Escalations that the database did not have.
    tickets: tuple[Ticket, ...]
    #: What is said of each of them on chain, as the journal has it; None where it says nothing of that.
    said: tuple[Said | None, ...]
    #: Commands that were obeyed and that the database did not have: a participant that is put back is sent them again.
    commands: tuple[Command, ...]


#: The way to a decision: what each state before it is left for.
_ONWARD: Final = {
    State.DRAFT: Cause.EXECUTE_ASKED,
    State.INITIATED: Cause.CHECKS_BEGUN,
    State.PRECONDITIONS_PENDING: Cause.CHECKS_PASSED,
    State.READY_FOR_PREPARE: Cause.PREPARED_AND_APPROVED,
}


def adopt(
    dossier: Dossier,
    chain: Sequence[Written],
    heard: Mapping[LegId, Heard],
    keys: LegKeys,
    registry: Registry,
    now: datetime,
) -> Adopted:
    """The plan as the journal and its participants know it. `keys` are the settling legs' keys.

    Raises:
        Contradicted: they do not agree, or what they show would not be believed.
    """
    before = dossier.plan
    found = _Adoption(before, {leg_id: each.report for leg_id, each in heard.items() if each.report is not None})
    certificates = [each.certificate for each in heard.values() if each.certificate is not None]
    found.votes(vote for each in certificates for vote in each.votes)
    for entry in chain:
        if entry.sequence > before.journal_sequence:
            found.read(entry)
    if found.plan.decision is None and certificates:
        found.decide(certificates[0], registry, now)
    elif certificates and found.plan.decision is Decision.ABORT and not found.plan.delegate:
        raise Contradicted("a participant was shown a decision to commit, and the journal one to abort")
    if found.plan.decision in (Decision.COMMIT, Decision.DELEGATED) and before.decision is None:
        _check_decision(replace(dossier, plan=found.plan), keys, registry)
    found.command(before, now)
    return Adopted(
        plan=found.plan,
        moves=tuple(found.moves),
        written=tuple(found.written),
        records=tuple(found.records),
        tickets=tuple(found.tickets),
        said=tuple(found.said),
        commands=tuple(found.commands),
    )


def _check_decision(dossier: Dossier, keys: LegKeys, registry: Registry) -> None:
    """A decision that was found is one that every participant would follow."""
    if any(leg.vote is None for leg in dossier.plan.legs):
        raise Contradicted("the decision was found, but not every leg's vote")
    plan = dossier.plan
    if plan.decision is Decision.COMMIT and plan.delegate and facts.leg(plan, plan.delegate).outcome is None:
        raise Contradicted("the decision was delegated, but the outcome of its leg was not found")
    certificate = assemble(dossier)
    for file in dossier.files:
        leg = file.leg
        try:
            check_commit(certificate, dossier.binding(leg.leg_id), keys.get(leg.leg_id, b""), file.participant, registry)
        except NotAuthorised as refusal:
            delegated = plan.decision is Decision.DELEGATED and leg.leg_id != plan.delegate
            if not (delegated and refusal.reason == "CERTIFICATE_DECISION"):
                raise Contradicted(f"the decision that was found is not to be believed: {refusal.detail}") from refusal


class _Adoption:
    """A plan while it is found again."""

    def __init__(self, plan: Plan, reports: Mapping[LegId, LegReport]) -> None:
        self.plan = plan
        self.moves: list[tuple[Moved, datetime]] = []
        self.written: list[Written] = []
        self.records: list[Record] = []
        self.tickets: list[Ticket] = []
        self.said: list[Said | None] = []
        self.commands: list[Command] = []
        #: How the journal's closing entry says that it was told to close the plan.
        self._closing: Closing | None = None
        self._reports = reports
        self._votes: dict[LegId, SignedVote] = {leg_id: each.vote for leg_id, each in reports.items() if each.vote is not None}

    def votes(self, votes: Iterable[SignedVote]) -> None:
        """Votes that a certificate carries; checked with the decision."""
        for each in votes:
            self._votes.setdefault(each.vote.leg_id, each)

    # -- what the journal says ---------------------------------------------------------------------------------------

    def read(self, entry: Written) -> None:
        """Take over one entry."""
        if entry.sequence != self.plan.journal_sequence + 1:
            raise Contradicted(f"the journal's chain goes from {self.plan.journal_sequence} to {entry.sequence}")
        self.plan = replace(self.plan, journal_sequence=entry.sequence)
        self.written.append(entry)
        leg = entry.document.get("leg")
        if isinstance(leg, Mapping):
            self._about(entry.type, LegId(str(leg.get("leg_id"))))
        for gate in entry.gates:
            self._gate(gate)
        transition = entry.document.get("transition")
        if isinstance(transition, Mapping):
            self._move(entry, transition)
        if entry.type is EventType.EXCEPTION_RAISED:
            self._raise(entry)

    def _about(self, event: EventType, leg_id: LegId) -> None:
        """What an event says of a leg, as its participant reports it; its revision stays behind the report, which is news all the same."""
        report = self._reports.get(leg_id)
        if all(each.leg_id != leg_id for each in self.plan.legs):
            raise Contradicted(f"the journal speaks of a leg {leg_id} that the plan does not have")
        leg = facts.leg(self.plan, leg_id)
        leg = replace(leg, vote=leg.vote or self._votes.get(leg_id))
        if report is not None:
            leg = replace(leg, revision=max(leg.revision, report.revision - 1))
            kind = report.outcome.outcome.kind if report.outcome is not None else None
            match event:
                case EventType.LEG_PREPARED:
                    leg = replace(leg, phase=leg.phase or Phase.PREPARED)
                case EventType.LEG_REFUSED:
                    refused = report.outcome if kind is OutcomeKind.REFUSED else leg.outcome
                    leg = replace(leg, phase=Phase.REFUSED, outcome=refused)
                case EventType.LEG_EXECUTED if kind is OutcomeKind.DONE:
                    leg = replace(leg, phase=Phase.COMMITTED, outcome=report.outcome)
                case EventType.LEG_REVERSED:
                    leg = replace(leg, phase=Phase.REVERSED, reversed=True, reversal=report.reversal)
                case _:
                    pass
        self.plan = facts.with_leg(self.plan, leg)

    def _gate(self, record: GateRecord) -> None:
        nonces = {(each.signed.signature.key_id, each.signed.statement.nonce) for each in self.plan.gates}
        if (record.signed.signature.key_id, record.signed.statement.nonce) not in nonces:
            self.plan = replace(self.plan, gates=(*self.plan.gates, record))

    def _move(self, entry: Written, transition: Mapping[str, Any]) -> None:
        """A transition that the journal holds."""
        left, entered = State(transition["from"]), State(transition["to"])
        if (left, transition["transition_no"]) != (self.plan.state, self.plan.transition_no + 1):
            raise Contradicted(f"the journal's transition {transition['transition_no']} does not leave {self.plan.state}")
        closed = entered is State.CLOSED
        outcome = PlanOutcome(entry.document["outcome"]) if closed else self.plan.outcome
        if closed:
            # The journal's own entry: it seals what the coordinator had decided before.
            decision = self.plan.decision
            cause = Cause.SETTLED_OUTSIDE if outcome is PlanOutcome.MIXED else Cause.SEALED
        else:
            decision = Decision(transition["decision"]) if transition["decision"] else None
            cause = Cause(transition["cause"])
        moved = Moved(self.plan.transition_no + 1, left, entered, decision, cause, entry.sequence)
        self.moves.append((moved, entry.event_time))
        self.plan = _moved(self.plan, moved, entry.event_time)
        if entry.type is EventType.PLAN_RELEASED:
            told = entry.document["decision"]
            self.plan = replace(self.plan, decided_at=_time(told["decided_at"]), delegate=str(told["delegate"]))
        if entered in (State.ABORTED, State.PARTIALLY_EXECUTED) and cause is not Cause.UNWOUND:
            reason, leg = entry.document.get("reason", {}), entry.document.get("leg", {})
            self.plan = replace(
                self.plan,
                cause=cause,
                reason=str(reason.get("reason", "")),
                reason_leg=str(leg.get("leg_id", "")),
                reason_detail=str(reason.get("detail", "")),
            )
        if closed:
            self.plan = replace(self.plan, sealing=True, outcome=outcome)
            self._closing = _closing(entry, transition)
        else:
            self.plan = replace(self.plan, outcome=facts.outcome(self.plan, self.plan.state))

    def _raise(self, entry: Written) -> None:
        reason, leg = entry.document.get("reason", {}), entry.document.get("leg", {})
        ticket = Ticket(str(reason.get("reason")), str(leg.get("leg_id", "")), str(reason.get("detail", "")), entry.event_time)
        if all((each.reason, each.leg_id) != (ticket.reason, ticket.leg_id) for each in self.plan.tickets):
            self.tickets.append(ticket)
            self.said.append(said_in(entry.type.value, self.plan.plan_id, entry.event_time, entry.document))
            self.plan = replace(self.plan, tickets=(*self.plan.tickets, ticket))

    # -- what a certificate says -------------------------------------------------------------------------------------

    def decide(self, certificate: Certificate, registry: Registry, now: datetime) -> None:
        """Go on to the decision that a certificate shows, recording what the journal does not have."""
        for approval in (certificate.approve, *certificate.further_approvals):
            self._gate(_record_of(approval, registry, certificate.decided_at))
        for leg in self.plan.legs:
            if leg.vote is None and leg.leg_id in self._votes:
                self._about(EventType.LEG_PREPARED, leg.leg_id)
                self._record(EventType.LEG_PREPARED, leg_id=leg.leg_id)
        while (cause := _ONWARD.get(self.plan.state)) is not None:
            self._go(cause, now)
        for release in (certificate.release, *certificate.further_releases):
            self._gate(_record_of(release, registry, certificate.decided_at))
        self.plan = replace(self.plan, decided_at=certificate.decided_at, delegate=certificate.delegated_leg_id)
        self._go(Cause.RELEASED_DELEGATED if certificate.delegated_leg_id else Cause.RELEASED, now)

    def _go(self, cause: Cause, now: datetime) -> None:
        arc = TABLE[self.plan.state, self.plan.decision, cause]
        moved = Moved(self.plan.transition_no + 1, self.plan.state, arc.state, arc.decision, cause, self.plan.journal_sequence + 1)
        self.moves.append((moved, now))
        self.plan = _moved(self.plan, moved, now)
        gates = {EventType.PLAN_APPROVED: Gate.APPROVE, EventType.PLAN_RELEASED: Gate.RELEASE}
        self._record(arc.event, moved=moved, gate=facts.gate(self.plan, gates[arc.event]) if arc.event in gates else None)

    def _record(self, event: EventType, *, leg_id: str = "", moved: Moved | None = None, gate: GateRecord | None = None) -> None:
        self.plan = replace(self.plan, journal_sequence=self.plan.journal_sequence + 1)
        self.records.append(Record(self.plan.journal_sequence, event, leg_id, moved, gate))

    # -- what the participants show ----------------------------------------------------------------------------------

    def command(self, before: Plan, now: datetime) -> None:
        """Which command each leg was given last, as far as its participant shows it: the protocol gives every other one anew."""
        for old, leg in zip(before.legs, self.plan.legs, strict=True):
            if leg.kind is LegKind.JOURNAL and before.sealing:
                # The number of the closing entry is reserved, and the order that carries it stays as it is.
                continue
            report = self._reports.get(leg.leg_id)
            given = _given(self.plan, leg, report, self._closing)
            ordered = replace(leg, order=given, ordered_at=None if given is Order.NONE else now)
            self.plan = facts.with_leg(self.plan, ordered)
            if given is not old.order:
                self._keep(ordered)

    def _keep(self, leg: LegState) -> None:
        """Keep the last command to a leg as it was; not where what it carried is lost."""
        plan, leg_id = self.plan, leg.leg_id
        closing = None if leg.kind.settling or plan.outcome is None else self._closing or orders.closing(plan)
        if not leg.kind.settling and closing is None:
            return
        match leg.order:
            case Order.COMMIT:
                not_after = plan.deadline if leg_id == plan.delegate else None
                self.commands.append(Command(plan.plan_id, leg_id, Order.COMMIT, not_after=not_after, closing=closing))
            case Order.ABORT:
                why = orders.authority(plan)
                self.commands.append(Command(plan.plan_id, leg_id, Order.ABORT, closing=closing, authority=why))
            case Order.REVERSE if plan.unwind_authority is not None:
                self.commands.append(Command(plan.plan_id, leg_id, Order.REVERSE, authority=plan.unwind_authority))
            case _:
                pass


def _given(plan: Plan, leg: LegState, report: LegReport | None, closing: Closing | None) -> Order:
    """The last command that a leg's participant shows to have had; PREPARE where another one must be given anew."""
    if leg.kind is LegKind.JOURNAL and closing is not None:
        commits = plan.decision is Decision.COMMIT and closing.from_state != State.ABORTED.value
        return Order.COMMIT if commits else Order.ABORT
    if report is None:
        # It may have been asked in the time that was lost, and have lost that as well: only a command finds what stands outside.
        untouched = plan.state is State.CLOSED and leg.order is Order.NONE
        return Order.NONE if untouched else Order.PREPARE
    if leg.kind is LegKind.JOURNAL:
        # A seal is a seal in the chain: one that the journal only reports, it lost since.
        return Order.PREPARE
    match report.phase:
        case Phase.COMMITTED | Phase.REVERSING:
            return Order.COMMIT
        case Phase.REVERSED:
            return Order.REVERSE
        case Phase.RELEASED:
            return Order.ABORT
        case Phase.ABORTING if plan.decision is Decision.DELEGATED:
            return Order.ABORT
        case Phase.REFUSED if report.outcome is not None and plan.decision in (Decision.COMMIT, Decision.DELEGATED):
            return Order.COMMIT
        case _:
            return Order.PREPARE


def _closing(entry: Written, transition: Mapping[str, Any]) -> Closing:
    return Closing(
        outcome=PlanOutcome(entry.document["outcome"]),
        evidence_digest=Digest(bytes.fromhex(entry.document["evidence_digest"])),
        journal_sequence=entry.sequence,
        transition_no=int(transition["transition_no"]),
        from_state=str(transition["from"]),
    )


def _moved(plan: Plan, moved: Moved, at: datetime) -> Plan:
    return replace(
        plan,
        state=moved.entered,
        decision=moved.decision,
        since=at,
        transition_no=moved.transition_no,
    )


def _record_of(signed: GateSignature, registry: Registry, at: datetime) -> GateRecord:
    actor = registry.actor_of(signed.signature, signed.statement.signed_bytes(), at)
    if actor is None:
        raise Contradicted("a gate in a certificate is signed by nobody whom the registry knows")
    return GateRecord(signed, ActorId(actor.actor_id), at)


def _time(text: str) -> datetime:
    try:
        return time_from_text(text)
    except ValueError as error:
        raise FieldInvalid("decided_at", "must be a time") from error
