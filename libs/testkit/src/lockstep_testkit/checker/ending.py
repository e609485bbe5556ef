"""I5: every plan is at its end, or a person was called, or it waits for one by design; nothing is held for a plan that ended or that nobody knows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lockstep_contracts.escrow import LegStatus
from lockstep_testkit.checker.evidence import Effect, Evidence, Violation


def check_ending(evidence: Evidence) -> Iterator[Violation]:
    """Every plan that is stuck, and every hold that nobody will end."""
    for plan in evidence.judged_plans:
        if not plan.ended and not plan.escalated and plan.plan_id not in evidence.resting:
            yield Violation("I5", plan.plan_id, "", f"the plan is still {plan.state}, and nobody is called")
        for leg in plan.settling:
            if plan.ended and not plan.escalated and evidence.effect(plan, leg) is Effect.HELD:
                yield Violation("I5", plan.plan_id, leg.leg_id, "the plan is closed, and value is still held for the leg")
    yield from _orphans(evidence)
    for name, row in evidence.judged_rows:
        known, phase = evidence.plans.get(row.plan_id), row.fence.phase
        if known is not None and known.ended and not known.escalated and phase is not None and not phase.final:
            yield Violation("I5", row.plan_id, row.leg_id, f"the plan is closed, and {name} still has the leg {phase}")


def _orphans(evidence: Evidence) -> Iterator[Violation]:
    for key, status in evidence.chain.statuses.items():
        if status is LegStatus.PREPARED and key not in evidence.leg_keys:
            yield Violation("I5", "", "", f"the escrow holds tokens for leg {key.hex()}, which is in no plan")
    for reference, undertaking in evidence.bank.undertakings.items():
        if undertaking.state == "LODGED" and reference not in evidence.instruments:
            yield Violation("I5", "", "", f"the bank holds the draft of undertaking {reference}, which is in no plan")
    for reference, payment in evidence.bank.payments.items():
        if payment.state == "HELD" and reference not in evidence.uetrs:
            yield Violation("I5", "", "", f"the bank holds money for payment {reference}, which is in no plan")
