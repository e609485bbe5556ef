"""The decision certificate, put together from the plan's own facts (docs/protocol.md, "Decision certificate"). Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from coordinator import facts
from coordinator.dossier import Dossier, LegKeys
from coordinator.model import GateRecord, Plan
from lockstep_kit.certificate import Certificate, Decision, NotAuthorised, check_commit
from lockstep_kit.registry import Registry
from lockstep_kit.statements import Gate, SignedVote


def assemble(dossier: Dossier) -> Certificate:
    """The certificate of a decided plan.

    Raises:
        AssertionError: the plan is not decided to commit; no command that needs a certificate is ordered then.
    """
    plan = dossier.plan
    make, approve, release = (facts.gate(plan, each) for each in (Gate.MAKE, Gate.APPROVE, Gate.RELEASE))
    if make is None or approve is None or release is None or plan.decided_at is None or plan.decision in (None, Decision.ABORT):
        raise AssertionError(f"plan {plan.plan_id} has no decision to show")
    decided = plan.decision is Decision.COMMIT and plan.delegate
    return Certificate(
        header=dossier.header,
        make=make.signed,
        approve=approve.signed,
        release=release.signed,
        votes=_votes(plan),
        decision=Decision.COMMIT if plan.decision is Decision.COMMIT else Decision.DELEGATED,
        delegated_leg_id=plan.delegate,
        delegated_outcome=facts.leg(plan, plan.delegate).outcome if decided else None,
        decided_at=plan.decided_at,
    )


def _votes(plan: Plan) -> tuple[SignedVote, ...]:
    return tuple(each.vote for each in plan.legs if each.vote is not None)


def check_release(dossier: Dossier, release: GateRecord, keys: LegKeys, registry: Registry, now: datetime) -> None:
    """The decision that this release would write is one that every participant would follow, as of now.

    Asked before the decision is written, since after it there is no way back.

    Raises:
        NotAuthorised: the first reason that a participant would have.
    """
    plan = replace(dossier.plan, gates=(*dossier.plan.gates, release), decided_at=now)
    soft = facts.soft_legs(plan)
    delegate = soft[0] if len(soft) == 1 else ""
    plan = replace(plan, delegate=delegate, decision=Decision.DELEGATED if delegate else Decision.COMMIT)
    certificate = assemble(replace(dossier, plan=plan))
    for file in dossier.files:
        leg = file.leg
        key = keys[leg.leg_id] if leg.settling else b""
        try:
            check_commit(certificate, dossier.binding(leg.leg_id), key, file.participant, registry)
        except NotAuthorised as refusal:
            # A delegated decision reaches its leg alone; the others will be shown that leg's Done. The rule is the last that is asked.
            if not (delegate and leg.leg_id != delegate and refusal.reason == "CERTIFICATE_DECISION"):
                raise
