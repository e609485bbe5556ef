"""Who may sign which gate of a plan, and when (docs/protocol.md, "Gates"). Pure; every refusal has a name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from coordinator import facts
from coordinator.dossier import DISTINCT_GATES, Dossier, signers
from coordinator.model import GateRecord, Plan, State
from lockstep_kit.certificate import NotAuthorised, check_gate
from lockstep_kit.registry import Registry
from lockstep_kit.statements import Gate, GateSignature, Verdict

_BEFORE_PREPARED: Final = (State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING, State.READY_FOR_PREPARE)

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
STATE_REASONS: Final = frozenset({"PLAN_STATE", "GATE_ALREADY_OPEN", "GATE_VOTES_DIGEST", "GATE_EVIDENCE_DIGEST", "PLAN_FROZEN"})


def admit(dossier: Dossier, signed: GateSignature, registry: Registry, now: datetime) -> GateRecord:
    """The gate's record, to be added to the plan. That the nonce is fresh is the store's to say, and `certificates.check_release` comes on top.

    Raises:
        NotAuthorised: the first reason found; those of STATE_REASONS are about the plan's state.
    """
    plan, statement = dossier.plan, signed.statement
    actor = check_gate(signed, statement.gate, plan.digest, registry, now).actor_id
    _check_state(plan, statement.gate, statement.verdict)
    _check_not_open(plan, statement.gate, now)
    if statement.gate in DISTINCT_GATES and actor in signers(plan, but=statement.gate):
        raise NotAuthorised("GATE_SAME_PERSON", f"{actor} has signed another gate of this plan")
    if statement.votes_digest is not None and statement.votes_digest != facts.votes(plan):
        raise NotAuthorised("GATE_VOTES_DIGEST", "the votes that were signed over are not the plan's votes")
    if statement.evidence_digest is not None and statement.evidence_digest != facts.evidence(plan):
        raise NotAuthorised("GATE_EVIDENCE_DIGEST", "the evidence that was signed over is not the plan's evidence")
    if dossier.frozen and statement.gate is Gate.RELEASE and statement.verdict is Verdict.APPROVE:
        raise NotAuthorised("PLAN_FROZEN", "the plan's journal is frozen; it must not be decided")
    return GateRecord(signed, actor, now)


def _check_state(plan: Plan, gate: Gate, verdict: Verdict) -> None:
    states = STATES.get((gate, verdict))
    if states is None:
        raise NotAuthorised("GATE_WRONG", f"the gate {gate} cannot be answered with {verdict} here")
    if plan.state not in states:
        raise NotAuthorised("PLAN_STATE", f"a plan that is {plan.state} does not take {verdict} at the gate {gate}")


def _check_not_open(plan: Plan, gate: Gate, now: datetime) -> None:
    """A gate that stands open is not signed again; an approval that has run out is."""
    record = facts.gate(plan, gate)
    if record is not None and now < record.signed.statement.expires_at:
        raise NotAuthorised("GATE_ALREADY_OPEN", f"{record.actor} has signed the gate {gate} already")
