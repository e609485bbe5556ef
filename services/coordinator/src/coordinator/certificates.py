"""The decision certificate, put together from the plan's own facts (docs/protocol.md, "Decision certificate"). Pure."""

from __future__ import annotations

from datetime import datetime

from coordinator import facts
from coordinator.dossier import Dossier, LegKeys
from coordinator.model import GateRecord, Plan
from lockstep_kit.certificate import Certificate, Decision, NotAuthorised, check_commit
from lockstep_kit.registry import Registry
from lockstep_kit.statements import Gate, SignedVote
from lockstep_kit.values import replace


def assemble(dossier: Dossier) -> Certificate:
    """The certificate of a decided plan.

    Raises:
        AssertionError: the plan is not decided to commit; no command that needs a certificate is ordered then.
    """
    plan = dossier.plan
    if plan.decided_at is None or plan.decision in (None, Decision.ABORT):
        raise AssertionError(f"plan {plan.plan_id} has no decision to show")
    make = facts.gate(plan, Gate.MAKE)
    approvals, releases = (facts.standing(plan, each, plan.decided_at) for each in (Gate.APPROVE, Gate.RELEASE))
    if make is None or not approvals or not releases:
        raise AssertionError(f"plan {plan.plan_id} has no decision to show")
    decided = plan.decision is Decision.COMMIT and plan.delegate
    return Certificate(
        header=dossier.header,
        make=make.signed,
        approve=approvals[0].signed,
        release=releases[0].signed,
        votes=_votes(plan),
        decision=Decision.COMMIT if plan.decision is Decision.COMMIT else Decision.DELEGATED,
        delegated_leg_id=plan.delegate,
        delegated_outcome=facts.leg(plan, plan.delegate).outcome if decided else None,
        decided_at=plan.decided_at,
        further_approvals=tuple(each.signed for each in approvals[1:]),
        further_releases=tuple(each.signed for each in releases[1:]),
    )


def _votes(plan: Plan) -> tuple[SignedVote, ...]:
    return tuple(each.vote for each in plan.legs if each.vote is not None)


def check_release(dossier: Dossier, release: GateRecord, keys: LegKeys, registry: Registry, now: datetime) -> None:
    """The decision that this release would write is one that every participant would follow, as of now.

    Asked before the decision is written, since after it there is no way back.

    Nothing is asked of a release that is not yet the last that the gate takes: it decides nothing.

    Raises:
        NotAuthorised: the first reason that a participant would have.
    """
    plan = replace(dossier.plan, gates=(*dossier.plan.gates, release), decided_at=now)
    if not facts.opened(plan, Gate.APPROVE, now):
        raise NotAuthorised("GATE_EXPIRED", "fewer approvals stand than the gate takes: one's time is over")
    if not facts.opened(plan, Gate.RELEASE, now):
        return
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
