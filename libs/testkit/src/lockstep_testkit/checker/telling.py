"""I8: what clients were told of a plan's end, and what every record of it says, is what the ledgers show. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lockstep_client.journal_chain import CLOSED
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.plan import Anchoring, Notarisation
from lockstep_testkit.checker.evidence import Effect, Evidence, PlanRow, Told, Violation
from lockstep_testkit.checker.journalling import document

#: Outcome -> how the notary's contract names it.
_NOTARISED = {
    "COMMITTED": PlanStatus.COMMITTED,
    "ABORTED": PlanStatus.ABORTED,
    "REVERSED": PlanStatus.ABORTED,
    "MIXED": PlanStatus.MIXED,
}

#: What shows that value moved, whatever became of it.
_MOVED = {Effect.EXECUTED, Effect.REVERSED}


def check_telling(evidence: Evidence) -> Iterator[Violation]:
    """Everything that was said of an end and is not so."""
    for plan in (each for each in evidence.judged_plans if each.ended):
        for who, outcome in _said(evidence, plan):
            yield from _true(evidence, plan, who, outcome)
    for told in evidence.told:
        if evidence.judged(told.plan_id):
            yield from _heard(evidence, told)


def _heard(evidence: Evidence, told: Told) -> Iterator[Violation]:
    plan = evidence.plans.get(told.plan_id)
    if plan is None:
        yield Violation("I8", told.plan_id, "", f"a client was told by {told.how} of a plan that the coordinator does not know")
    elif told.state == "CLOSED":
        yield from _true(evidence, plan, f"a client's {told.how}", told.outcome)
    elif told.state == "ABORTED" and not plan.escalated:
        for leg in plan.settling:
            if evidence.effect(plan, leg) is Effect.EXECUTED:
                text = f"a client was told by {told.how} that the plan is aborted, and the leg is executed"
                yield Violation("I8", plan.plan_id, leg.leg_id, text)


def _said(evidence: Evidence, plan: PlanRow) -> Iterator[tuple[str, str]]:
    """Who recorded which outcome."""
    yield "the coordinator", plan.outcome
    for entry in evidence.chains.get(plan.plan_id, ()):
        if entry.type == CLOSED:
            yield "the journal's seal", str(document(entry).get("outcome", ""))
    for terms in (leg.terms for leg in plan.legs if isinstance(leg.terms, Notarisation)):
        status = evidence.chain.notarised.get(plan.digest, PlanStatus.NONE)
        # A deferred plan may have ended before its batch is anchored.
        if terms.anchoring is Anchoring.DEFERRED and status in (PlanStatus.NONE, PlanStatus.REGISTERED):
            continue
        # A plan that was stopped before it was registered needs no entry to say that nothing happened.
        if status is not PlanStatus.NONE or plan.outcome != "ABORTED":
            names = {status for outcome, status in _NOTARISED.items() if outcome == plan.outcome}
            yield "the notary's registry", plan.outcome if status in names else status.name


def _true(evidence: Evidence, plan: PlanRow, who: str, outcome: str) -> Iterator[Violation]:
    effects = {leg.leg_id: evidence.effect(plan, leg) for leg in plan.settling}
    shown = set(effects.values())
    match outcome:
        case "COMMITTED":
            holds = shown == {Effect.EXECUTED}
        case "ABORTED":
            holds = not shown & _MOVED
        case "REVERSED":
            holds = Effect.REVERSED in shown and Effect.EXECUTED not in shown
        case "MIXED":
            holds = True
        case _:
            holds = False
    if plan.escalated and outcome == plan.outcome:
        return
    if outcome != plan.outcome:
        yield Violation(
            "I8", plan.plan_id, "", f"{who} says {outcome or 'nothing'}, and the coordinator {plan.outcome or 'nothing'}"
        )
    if not holds:
        told = ", ".join(f"{name} {effect}" for name, effect in effects.items())
        yield Violation("I8", plan.plan_id, "", f"{who} says {outcome or 'nothing'}, and the ledgers say {told}")
