"""Who may sign which gate of a plan, and when (docs/protocol.md, "Gates"). Pure; every refusal has a name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier, barred_from
from coordinator.model import GateRecord, Plan, Quorum, State
from lockstep_kit.certificate import NotAuthorised, check_gate, matrix_of
from lockstep_kit.ids import ActorId
from lockstep_kit.registry import Registry
from lockstep_kit.sod import Scope, able
from lockstep_kit.statements import Gate, GateSignature, Verdict

_BEFORE_PREPARED: Final = (State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING, State.READY_FOR_PREPARE)

#: Most signatures that a plan takes before its decision, but for one that stops it: those that ran out stay among them.
SIGNATURES_OF_A_PLAN_MAX: Final = 60

#: (gate, verdict) -> states in which it may be signed. The maker's gate is signed with CreatePlan, never later.
STATES: Final[Mapping[tuple[Gate, Verdict], tuple[State, ...]]] = {
    (Gate.APPROVE, Verdict.APPROVE): (*_BEFORE_PREPARED, State.PREPARED),
    (Gate.APPROVE, Verdict.REJECT): _BEFORE_PREPARED,
    (Gate.RELEASE, Verdict.APPROVE): (State.PREPARED,),
    (Gate.RELEASE, Verdict.REJECT): (State.READY_FOR_PREPARE, State.PREPARED),
    (Gate.VALIDATE, Verdict.APPROVE): (State.VALIDATING,),
    (Gate.VALIDATE, Verdict.REJECT): (State.VALIDATING,),
    (Gate.CANCEL, Verdict.APPROVE): facts.UNDECIDED,
}

#: Refusals that are about the plan's state rather than about the person: FAILED_PRECONDITION, not PERMISSION_DENIED.
STATE_REASONS: Final = frozenset(
    {"PLAN_STATE", "GATE_ALREADY_OPEN", "GATE_TOO_MANY", "GATE_VOTES_DIGEST", "GATE_EVIDENCE_DIGEST", "PLAN_FROZEN"}
)


def admit(dossier: Dossier, signed: GateSignature, registry: Registry, now: datetime) -> GateRecord:
    """The gate's record, to be added to the plan. That the nonce is fresh is the store's to say, and `certificates.check_release` comes on top.

    Raises:
        NotAuthorised: the first reason found; those of STATE_REASONS are about the plan's state.
    """
    plan, statement = dossier.plan, signed.statement
    scope = dossier.scope
    actor = check_gate(signed, statement.gate, scope, registry, now).actor_id
    _check_state(plan, statement.gate, statement.verdict)
    _check_not_open(plan, statement.gate, actor, now)
    # What stops a plan is always taken, and after the decision there is no other way than on.
    if plan.decision is None and statement.verdict is Verdict.APPROVE and statement.gate is not Gate.CANCEL:
        _check_room(plan)
    if actor in barred_from(plan, statement.gate, matrix_of(scope, registry)):
        raise NotAuthorised("GATE_SAME_PERSON", f"{actor} has signed another gate of this plan")
    if statement.votes_digest is not None and statement.votes_digest != facts.votes(plan):
        raise NotAuthorised("GATE_VOTES_DIGEST", "the votes that were signed over are not the plan's votes")
    if statement.evidence_digest is not None and statement.evidence_digest != facts.evidence(plan):
        raise NotAuthorised("GATE_EVIDENCE_DIGEST", "the evidence that was signed over is not the plan's evidence")
    if dossier.frozen and statement.gate is Gate.RELEASE and statement.verdict is Verdict.APPROVE:
        raise NotAuthorised("PLAN_FROZEN", "the plan's journal is frozen; it must not be decided")
    return GateRecord(signed, actor, now)


def check_staffed(scope: Scope, maker: ActorId, quorum: Quorum, registry: Registry) -> None:
    """Every gate of a plan can be opened: as many may sign it for what the plan is worth as it takes.

    Asked before the plan is accepted, since after its decision there is no way back.

    Raises:
        NotAuthorised: GATE_UNSTAFFED.
    """
    for gate, needed in ((Gate.APPROVE, quorum.approve), (Gate.RELEASE, quorum.release), (Gate.VALIDATE, quorum.validate)):
        if len(able(registry, scope, gate, {maker})) < needed:
            raise NotAuthorised(
                "GATE_UNSTAFFED", f"the gate {gate} takes {needed}, and fewer may sign it for what the plan is worth"
            )


def _check_state(plan: Plan, gate: Gate, verdict: Verdict) -> None:
    states = STATES.get((gate, verdict))
    if states is None:
        raise NotAuthorised("GATE_WRONG", f"the gate {gate} cannot be answered with {verdict} here")
    if plan.state not in states:
        raise NotAuthorised("PLAN_STATE", f"a plan that is {plan.state} does not take {verdict} at the gate {gate}")


def _check_room(plan: Plan) -> None:
    if len(plan.gates) >= SIGNATURES_OF_A_PLAN_MAX:
        raise NotAuthorised("GATE_TOO_MANY", "the plan has taken as many signatures as it can, those that ran out included")


def _check_not_open(plan: Plan, gate: Gate, actor: ActorId, now: datetime) -> None:
    """A gate that stands open is not signed again, nor twice by one person; an approval that has run out is."""
    signed = [record.actor for record in facts.standing(plan, gate, now)]
    if facts.opened(plan, gate, now) or actor in signed:
        raise NotAuthorised("GATE_ALREADY_OPEN", f"{', '.join(signed)} signed the gate {gate} already")
