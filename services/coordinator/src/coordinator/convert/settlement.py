"""SettlementService's messages, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeAlias

from google.protobuf.message import Message

from coordinator import facts
from coordinator.dossier import Consent, Dossier, FiledTicket, LegFile
from coordinator.model import GateRecord, LegState, Mandate, Moved, State
from coordinator.notices import Notice, NoticeKind
from coordinator.waiting import Waiting, WaitingKind
from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2
from lockstep.type.v1 import signature_pb2
from lockstep_kit import ids
from lockstep_kit.convert import (
    DECISIONS,
    GATES,
    enum_from_pb,
    enum_to_pb,
    evidence_to_pb,
    gate_from_pb,
    gate_octets,
    header_from_pb,
    header_octets,
    leg_from_pb,
    leg_octets,
    outcome_octets,
    outcome_to_pb,
    permit_from_pb,
    resolution_to_pb,
    time_to_pb,
    vote_octets,
)
from lockstep_kit.convert.parts import Part, number, part
from lockstep_kit.fields import require, within
from lockstep_kit.ids import LegId
from lockstep_kit.keeping import kept
from lockstep_kit.participant.convert import PAYER_SIGNATURE_BYTES_MAX, PHASES, PLAN_OUTCOMES
from lockstep_kit.plan import LEGS_MAX, Leg, PlanHeader
from lockstep_kit.spans import trace_id_of
from lockstep_kit.statements import GateSignature
from lockstep_kit.values import dataclass

STATES: Final = {
    settlement_pb2.PLAN_STATE_DRAFT: State.DRAFT,
    settlement_pb2.PLAN_STATE_INITIATED: State.INITIATED,
    settlement_pb2.PLAN_STATE_PRECONDITIONS_PENDING: State.PRECONDITIONS_PENDING,
    settlement_pb2.PLAN_STATE_READY_FOR_PREPARE: State.READY_FOR_PREPARE,
    settlement_pb2.PLAN_STATE_PREPARED: State.PREPARED,
    settlement_pb2.PLAN_STATE_EXECUTING: State.EXECUTING,
    settlement_pb2.PLAN_STATE_VALIDATING: State.VALIDATING,
    settlement_pb2.PLAN_STATE_COMMITTED: State.COMMITTED,
    settlement_pb2.PLAN_STATE_CLOSED: State.CLOSED,
    settlement_pb2.PLAN_STATE_ABORTED: State.ABORTED,
    settlement_pb2.PLAN_STATE_PARTIALLY_EXECUTED: State.PARTIALLY_EXECUTED,
    settlement_pb2.PLAN_STATE_UNWIND_PENDING: State.UNWIND_PENDING,
}
NOTICE_KINDS: Final = {
    settlement_pb2.NOTICE_KIND_EXECUTION_FAILED: NoticeKind.EXECUTION_FAILED,
    settlement_pb2.NOTICE_KIND_ABORTED: NoticeKind.ABORTED,
    settlement_pb2.NOTICE_KIND_RECOVERY_IN_PROGRESS: NoticeKind.RECOVERY_IN_PROGRESS,
    settlement_pb2.NOTICE_KIND_INTERVENTION_REQUIRED: NoticeKind.INTERVENTION_REQUIRED,
    settlement_pb2.NOTICE_KIND_INTERVENTION_RESOLVED: NoticeKind.INTERVENTION_RESOLVED,
}
WAITING_KINDS: Final = {
    settlement_pb2.WAITING_KIND_EXECUTE: WaitingKind.EXECUTE,
    settlement_pb2.WAITING_KIND_GATE: WaitingKind.GATE,
    settlement_pb2.WAITING_KIND_PARTICIPANT: WaitingKind.PARTICIPANT,
    settlement_pb2.WAITING_KIND_OPERATORS: WaitingKind.OPERATORS,
}

_HEADER, _PLAN_DIGEST = part(settlement_pb2.Plan, "header"), part(settlement_pb2.Plan, "plan_digest")
_LEGS, _GATES = part(settlement_pb2.Plan, "legs"), part(settlement_pb2.Plan, "gates")
_WAITING, _ESCALATIONS = part(settlement_pb2.Plan, "waiting"), part(settlement_pb2.Plan, "escalations")
_LEG, _LOCK = part(settlement_pb2.PlanLeg, "leg"), part(settlement_pb2.PlanLeg, "lock")
_PARTICIPANT, _PHASE = part(settlement_pb2.PlanLeg, "participant"), number(settlement_pb2.PlanLeg, "phase")
_VOTE, _OUTCOME = part(settlement_pb2.PlanLeg, "vote"), part(settlement_pb2.PlanLeg, "outcome")
_SIGNATURE = part(settlement_pb2.GateRecord, "signature")
_SEQUENCE = number(settlement_pb2.PlanEvent, "sequence")
#: How a change is written into the event that tells of it.
_CHANGES: Final[Mapping[type[object], Part]] = {
    Moved: part(settlement_pb2.PlanEvent, "transition"),
    tuple: part(settlement_pb2.PlanEvent, "leg"),
    GateRecord: part(settlement_pb2.PlanEvent, "gate"),
    FiledTicket: part(settlement_pb2.PlanEvent, "escalation"),
    Mandate: part(settlement_pb2.PlanEvent, "resolution"),
    Notice: part(settlement_pb2.PlanEvent, "notice"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A plan that a client asks for."""

    #: Head.
    header: PlanHeader
    #: Legs in plan order.
    legs: tuple[Leg, ...]
    #: The maker's signature.
    make: GateSignature


def asked_from_pb(message: settlement_service_pb2.CreatePlanRequest) -> Asked:
    """A plan that a client asks for, with every form rule checked.

    Raises:
        FieldInvalid: the first rule that is broken, with the field's path in the request.
    """
    require(message.HasField("header"), "header", "must be present")
    require(message.HasField("make"), "make", "must be present")
    require(1 <= len(message.legs) <= LEGS_MAX, "legs", f"must be 1 to {LEGS_MAX}")
    with within("header"):
        header = header_from_pb(message.header)
    legs = []
    for index, each in enumerate(message.legs):
        with within(f"legs[{index}]"):
            legs.append(leg_from_pb(each, header))
    return Asked(header, tuple(legs), signed_from_pb(message.make, "make"))


def signed_from_pb(message: signature_pb2.GateSignature, field: str) -> GateSignature:
    """A person's signature in a request.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    with within(field):
        return gate_from_pb(message)


def payers_from_pb(message: settlement_service_pb2.ExecutePlanRequest) -> dict[LegId, Consent]:
    """Token payers' consents by leg.

    Raises:
        FieldInvalid: a leg twice, a signature of no acceptable length, or a permit of another form.
    """
    found: dict[LegId, Consent] = {}
    require(len(message.payer_signatures) <= LEGS_MAX, "payer_signatures", f"must be at most {LEGS_MAX}")
    for index, each in enumerate(message.payer_signatures):
        field = f"payer_signatures[{index}]"
        leg_id = ids.leg_id(each.leg_id, f"{field}.leg_id")
        require(leg_id not in found, f"{field}.leg_id", "must name no leg twice")
        size = len(each.signature)
        require(1 <= size <= PAYER_SIGNATURE_BYTES_MAX, f"{field}.signature", f"must be 1 to {PAYER_SIGNATURE_BYTES_MAX} bytes")
        permit = None
        if each.HasField("permit"):
            with within(f"{field}.permit"):
                permit = permit_from_pb(each.permit)
        found[leg_id] = Consent(each.signature, permit)
    return found


def states_from_pb(numbers: Sequence[settlement_pb2.PlanState.ValueType]) -> tuple[State, ...]:
    """States to list.

    Raises:
        FieldInvalid: a value that this version does not know.
    """
    require(len(numbers) <= len(STATES), "states", f"must be at most {len(STATES)}")
    return tuple(enum_from_pb(STATES, each, f"states[{index}]") for index, each in enumerate(numbers))


@kept
def _papers_octets(header: PlanHeader) -> bytes:
    """What is shown of a plan that never changes, its legs aside."""
    return _HEADER(header_octets(header)) + _PLAN_DIGEST(header.digest)


def plan_octets(dossier: Dossier, waits: Sequence[Waiting]) -> bytes:
    """A plan as clients see it, as the bytes of a message."""
    plan = dossier.plan
    done = all(facts.executed(each) for each in facts.settling(plan))
    message = settlement_pb2.Plan(
        state=enum_to_pb(STATES, plan.state),
        delegated_leg_id=plan.delegate,
        reason=plan.reason,
        reason_leg_id=plan.reason_leg,
        reason_detail=plan.reason_detail,
        votes_digest=facts.votes(plan) or b"",
        evidence_digest=facts.evidence(plan) if done else b"",
        transition_no=plan.transition_no,
        journal_sequence=plan.journal_sequence,
        create_time=time_to_pb(dossier.created_at),
        update_time=time_to_pb(dossier.updated_at),
        etag=dossier.etag,
        trace_id=trace_id_of(dossier.traceparent),
    )
    if plan.decision is not None:
        message.decision = enum_to_pb(DECISIONS, plan.decision)
    if plan.outcome is not None:
        message.outcome = enum_to_pb(PLAN_OUTCOMES, plan.outcome)
    if plan.decided_at is not None:
        message.decide_time.CopyFrom(time_to_pb(plan.decided_at))
    octets = [_papers_octets(dossier.header)]
    octets += [_LEGS(leg_file_octets(file, leg)) for file, leg in zip(dossier.files, plan.legs, strict=True)]
    octets += [_GATES(gate_record_octets(each)) for each in plan.gates]
    octets += [_WAITING(waiting_to_pb(each).SerializeToString(deterministic=True)) for each in waits]
    octets += [_ESCALATIONS(ticket_to_pb(each).SerializeToString(deterministic=True)) for each in dossier.tickets]
    return b"".join((*octets, message.SerializeToString(deterministic=True)))


def plan_to_pb(dossier: Dossier, waits: Sequence[Waiting]) -> settlement_pb2.Plan:
    """A plan as clients see it."""
    return settlement_pb2.Plan.FromString(plan_octets(dossier, waits))


@kept
def _file_octets(file: LegFile) -> bytes:
    """What is shown of a leg that never changes."""
    return _LEG(leg_octets(file.leg)) + _LOCK(file.lock) + _PARTICIPANT(file.participant.encode())


def leg_file_octets(file: LegFile, leg: LegState) -> bytes:
    """A leg as clients see it, as the bytes of a message."""
    octets = _file_octets(file)
    if leg.phase is not None:
        octets += _PHASE(enum_to_pb(PHASES, leg.phase))
    if leg.vote is not None:
        octets += _VOTE(vote_octets(leg.vote))
    if leg.outcome is not None:
        octets += _OUTCOME(outcome_octets(leg.outcome))
    if leg.trouble or leg.operators_evidence is not None or leg.reversal is not None:
        octets += _exceptional(leg).SerializeToString(deterministic=True)
    return octets


def _exceptional(leg: LegState) -> settlement_pb2.PlanLeg:
    """What few legs have."""
    message = settlement_pb2.PlanLeg(trouble=leg.trouble)
    if leg.operators_evidence is not None:
        message.operators_executed = leg.operators_evidence.executed
        message.operators_evidence.CopyFrom(evidence_to_pb(leg.operators_evidence.evidence))
    if leg.reversal is not None:
        message.reversal.CopyFrom(outcome_to_pb(leg.reversal))
    return message


@kept
def gate_record_octets(record: GateRecord) -> bytes:
    """A signed gate as clients see it, as the bytes of a message."""
    told = settlement_pb2.GateRecord(actor_id=record.actor, sign_time=time_to_pb(record.at))
    return _SIGNATURE(gate_octets(record.signed)) + told.SerializeToString(deterministic=True)


def waiting_to_pb(waits: Waiting) -> settlement_pb2.Waiting:
    """Something that a plan waits for."""
    message = settlement_pb2.Waiting(
        kind=enum_to_pb(WAITING_KINDS, waits.kind),
        leg_id=waits.leg_id,
        who=waits.who,
        signatures_missing=waits.signatures_missing,
    )
    if waits.gate is not None:
        message.gate = enum_to_pb(GATES, waits.gate)
    if waits.until is not None:
        message.until.CopyFrom(time_to_pb(waits.until))
    return message


def ticket_to_pb(filed: FiledTicket) -> settlement_pb2.Escalation:
    """An escalation as clients see it."""
    ticket = filed.ticket
    message = settlement_pb2.Escalation(
        escalation_id=filed.escalation_id,
        reason=ticket.reason,
        leg_id=ticket.leg_id,
        detail=ticket.detail,
        raise_time=time_to_pb(ticket.at),
    )
    if filed.resolved_at is not None:
        message.resolve_time.CopyFrom(time_to_pb(filed.resolved_at))
    return message


def transition_to_pb(moved: Moved, at: datetime) -> settlement_pb2.Transition:
    """A transition as clients see it."""
    message = settlement_pb2.Transition(
        transition_no=moved.transition_no,
        to_state=enum_to_pb(STATES, moved.entered),
        cause=moved.cause.value,
        transition_time=time_to_pb(at),
        journal_sequence=moved.journal_sequence,
    )
    if moved.left is not None:
        message.from_state = enum_to_pb(STATES, moved.left)
    if moved.decision is not None:
        message.decision = enum_to_pb(DECISIONS, moved.decision)
    return message


def notice_to_pb(notice: Notice) -> settlement_pb2.Notice:
    """A notice as clients see it."""
    return settlement_pb2.Notice(
        notice_id=notice.notice_id,
        kind=enum_to_pb(NOTICE_KINDS, notice.kind),
        reason=notice.reason,
        leg_id=notice.leg_id,
        state=enum_to_pb(STATES, notice.state),
        escalation_id=notice.escalation_id,
        what_happened=notice.happened,
        what_to_do=notice.to_do,
        action_required=notice.action_required,
    )


#: What watchers are told of.
Change: TypeAlias = Moved | tuple[LegFile, LegState] | GateRecord | FiledTicket | Mandate | Notice


def shown(leg: LegState) -> tuple[object, ...]:
    """What watchers see of a leg."""
    return (leg.phase, leg.vote, leg.outcome, leg.trouble, leg.operators_evidence, leg.reversal)


def event_octets(plan_id: str, at: datetime, what: Change) -> bytes:
    """A change for watchers as it is kept; its sequence is the row's."""
    told = settlement_pb2.PlanEvent(plan_id=plan_id, event_time=time_to_pb(at)).SerializeToString(deterministic=True)
    return told + _CHANGES[type(what)](_change_octets(what, at))


def _change_octets(what: Change, at: datetime) -> bytes:
    match what:
        case GateRecord():
            return gate_record_octets(what)
        case tuple():
            return leg_file_octets(*what)
        case Moved():
            message: Message = transition_to_pb(what, at)
        case FiledTicket():
            message = ticket_to_pb(what)
        case Mandate():
            resolution = resolution_to_pb(what.signatures[0]).resolution
            message = settlement_pb2.OperatorsDecision(resolution=resolution, actor_ids=what.actors)
        case Notice():
            message = notice_to_pb(what)
    return message.SerializeToString(deterministic=True)


def numbered_octets(octets: bytes, sequence: int) -> bytes:
    """A kept change with its number, as the bytes of a message."""
    return octets + _SEQUENCE(sequence)


@lru_cache(maxsize=4_096)
def event_of(octets: bytes, sequence: int) -> settlement_pb2.PlanEvent:
    """A kept change; the same message for everybody who is shown it."""
    return settlement_pb2.PlanEvent.FromString(numbered_octets(octets, sequence))


@lru_cache(maxsize=4_096)
def states_in(octets: bytes) -> frozenset[State]:
    """The states that a kept change left and entered; none where it is no transition."""
    moved = settlement_pb2.PlanEvent.FromString(octets).transition
    return frozenset(STATES[each] for each in (moved.from_state, moved.to_state) if each in STATES)
