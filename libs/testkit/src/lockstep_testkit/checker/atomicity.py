"""I1: never one leg executed and another released without an open escalation or a recorded MIXED outcome; no execution without the durable decision. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import certificate_pb2
from lockstep_kit.certificate import Certificate, NotAuthorised, check_commit
from lockstep_kit.convert import binding_from_pb, certificate_from_pb
from lockstep_kit.fence import Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.plan import Leg
from lockstep_testkit.checker.evidence import Effect, Evidence, PlanRow, Violation

#: A leg in one of these was told to execute.
_COMMANDED = frozenset({Phase.COMMITTING, Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED})

#: What was given up, or given back.
_GONE = (Effect.RELEASED, Effect.REVERSED)


def check_atomicity(evidence: Evidence) -> Iterator[Violation]:
    """Every way in which a plan is half-settled, or was settled by nobody's decision."""
    for plan in evidence.judged_plans:
        yield from _mixed(evidence, plan)
        for leg in plan.settling:
            if evidence.effect(plan, leg) in (Effect.EXECUTED, Effect.REVERSED):
                yield from _decided(plan, leg)
    for name, row in evidence.judged_rows:
        if row.fence.phase in _COMMANDED:
            yield from _certified(evidence, name, row)


def _mixed(evidence: Evidence, plan: PlanRow) -> Iterator[Violation]:
    effects = {leg.leg_id: evidence.effect(plan, leg) for leg in plan.settling}
    standing = [name for name, effect in effects.items() if effect is Effect.EXECUTED]
    # Where the plan is at its end, what never began never will.
    gone = [name for name, effect in effects.items() if effect in _GONE or (effect is Effect.NONE and plan.ended)]
    if standing and gone and not plan.escalated:
        told = ", ".join(f"{name} {effect}" for name, effect in effects.items())
        yield Violation("I1", plan.plan_id, standing[0], f"the plan is half-settled, and nobody is called: {told}")


def _decided(plan: PlanRow, leg: Leg) -> Iterator[Violation]:
    if plan.decision == "":
        yield Violation("I1", plan.plan_id, leg.leg_id, "the leg is executed, and nothing was decided about its plan")
    elif plan.decision == "DELEGATED" and plan.delegate != leg.leg_id:
        yield Violation("I1", plan.plan_id, leg.leg_id, f"the leg is executed, and the decision lies with {plan.delegate}")
    elif plan.decision == "ABORT" and plan.outcome != "REVERSED" and not plan.escalated:
        yield Violation("I1", plan.plan_id, leg.leg_id, "the leg is executed, its plan was aborted, and nobody is called")


def _certified(evidence: Evidence, name: str, row: LegRecord) -> Iterator[Violation]:
    """Whoever executes holds a certificate by which it may, about the decision that stands in the coordinator's database."""
    plan = evidence.plans.get(row.plan_id)
    if row.certificate is None or row.binding is None:
        # Found executed though it was told to release: a contradiction, for a person.
        if plan is None or not plan.escalated:
            yield Violation("I1", row.plan_id, row.leg_id, f"{name} executed the leg without a certificate, and nobody is called")
        return
    try:
        certificate = certificate_from_pb(certificate_pb2.DecisionCertificate.FromString(row.certificate))
        binding = binding_from_pb(leg_pb2.LegBinding.FromString(row.binding))
        check_commit(certificate, binding, row.key or b"", name, evidence.registry)
    except (NotAuthorised, FieldInvalid) as finding:
        yield Violation("I1", row.plan_id, row.leg_id, f"{name} executed by a certificate that does not hold: {finding}")
        return
    if plan is None:
        yield Violation("I1", row.plan_id, row.leg_id, f"{name} executes a leg of a plan that the coordinator does not know")
    elif not _same_decision(plan, certificate):
        said = f"{certificate.decision} at {certificate.decided_at}"
        yield Violation(
            "I1", row.plan_id, row.leg_id, f"{name} executed by {said}, but {plan.decision} stands at {plan.decided_at}"
        )


def _same_decision(plan: PlanRow, certificate: Certificate) -> bool:
    """A delegated decision becomes COMMIT or, once its leg is released, ABORT; nothing else may differ."""
    same = certificate.decision in (plan.decision, "DELEGATED")
    return same and plan.decided_at == certificate.decided_at and plan.delegate == certificate.delegated_leg_id
