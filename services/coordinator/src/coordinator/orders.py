"""Which commands follow from a plan's state, decision and facts. Pure; called by the protocol after every event.

Order of execution: a delegated leg alone and first; legs whose promise can lapse before the others; then by dependency; an irrevocable leg last. In
COMMITTED and ABORTED the notarisation comes first, and the journal last: it is told the number of its closing entry, and from then on nothing else is
appended. In ABORTED both wait until nothing is held and the abort audit log is durable, since they are told its hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from coordinator import facts
from coordinator.model import Abort, Cause, Commit, Effect, LegState, Order, Plan, Prepare, Reverse, State, WriteAudit
from lockstep_kit.certificate import AbortAuthority, DeadlinePassed, Decision
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import OutcomeKind
from lockstep_kit.values import replace


def orders(plan: Plan, now: datetime) -> tuple[Plan, tuple[Effect, ...]]:
    """The plan with its new commands marked as given, and the commands."""
    effects: list[Effect] = []
    for each, effect in tuple(_due(plan, now)):
        given = {Prepare: Order.PREPARE, Commit: Order.COMMIT, Abort: Order.ABORT, Reverse: Order.REVERSE}[type(effect)]
        plan = facts.with_leg(plan, replace(each, order=given, ordered_at=now))
        if each.kind is LegKind.JOURNAL and given is not Order.PREPARE:
            plan = replace(plan, sealing=True, journal_sequence=plan.journal_sequence + 1)
        effects.append(effect)
    if _auditable(plan):
        plan = replace(plan, auditing_since=now)
        effects.append(WriteAudit())
    return plan, tuple(effects)


def _due(plan: Plan, now: datetime) -> Iterator[tuple[LegState, Effect]]:
    match plan.state:
        case State.READY_FOR_PREPARE:
            yield from ((each, Prepare(each.leg_id)) for each in plan.legs if each.order is Order.NONE)
        case State.EXECUTING if plan.decision is Decision.DELEGATED:
            yield from _delegated(plan, now)
        case State.EXECUTING:
            yield from ((each, Commit(each.leg_id)) for each in _executable(plan))
        case State.COMMITTED:
            yield from _evidence(plan)
        case State.ABORTED:
            held = _held(plan)
            yield from _releases(plan, held)
            if not held or plan.outcome is PlanOutcome.MIXED:
                yield from _evidence(plan)
        case State.PARTIALLY_EXECUTED if plan.outcome is PlanOutcome.MIXED:
            yield from _evidence(plan)
        case State.UNWIND_PENDING:
            yield from _releases(plan, _held(plan))
            yield from _reversals(plan)


def _delegated(plan: Plan, now: datetime) -> Iterator[tuple[LegState, Effect]]:
    """Its Commit goes alone, never to be begun after the deadline; after a refusal, or the deadline without an answer, its Abort."""
    delegate = facts.leg(plan, plan.delegate)
    if delegate.order is Order.PREPARE:
        yield delegate, Commit(delegate.leg_id, not_after=plan.deadline)
    elif delegate.order is Order.COMMIT and delegate.phase is Phase.REFUSED and delegate.outcome is not None:
        yield delegate, Abort(delegate.leg_id, delegate.outcome)
    elif delegate.order is Order.COMMIT and now > plan.deadline and not facts.executed(delegate):
        yield delegate, Abort(delegate.leg_id, DeadlinePassed())


def _executable(plan: Plan) -> Iterator[LegState]:
    """Legs not yet commanded whose predecessors are done. Legs whose promise can lapse go before all others, irrevocable ones after them."""
    soft = set(facts.soft_legs(plan))
    softs_done = all(facts.executed(each) for each in plan.legs if each.leg_id in soft)
    revocable_done = all(facts.executed(each) for each in facts.settling(plan) if not each.kind.irrevocable)
    for each in facts.settling(plan):
        ready = all(facts.executed(facts.leg(plan, before)) for before in each.depends_on)
        ready = ready and (revocable_done or not each.kind.irrevocable)
        if each.order is Order.PREPARE and not facts.executed(each) and ready and (softs_done or each.leg_id in soft):
            yield each


def _held(plan: Plan) -> tuple[LegState, ...]:
    """Settling legs for which something may be held."""
    return tuple(
        each
        for each in facts.settling(plan)
        if not (facts.barred(each) or facts.untouched(each) or facts.executed(each) or each.reversed)
    )


def _releases(plan: Plan, held: tuple[LegState, ...]) -> Iterator[tuple[LegState, Effect]]:
    why = authority(plan)
    yield from ((each, Abort(each.leg_id, why)) for each in held if each.order is not Order.ABORT)


def _reversals(plan: Plan) -> Iterator[tuple[LegState, Effect]]:
    """Nothing is reversed but by an order that can be shown; a coordinator that lost it to a restore asks operators for another."""
    why = plan.unwind_authority
    if why is None:
        return
    executed = (each for each in facts.settling(plan) if facts.executed(each))
    yield from ((each, Reverse(each.leg_id, why)) for each in executed if each.order is not Order.REVERSE)


def authority(plan: Plan) -> AbortAuthority:
    """What shows a participant that it may release: what was undone, what stopped the plan, else that its deadline has passed."""
    undone = facts.undone(plan)
    if undone is not None:
        return undone
    stopping = facts.stopping_gate(plan, plan.cause) if plan.cause else None
    if stopping is not None and plan.cause is not Cause.EVIDENCE_REJECTED:
        return stopping.signed
    if plan.reason_leg and plan.cause is Cause.VOTED_NO:
        vote = facts.leg(plan, plan.reason_leg).vote
        return vote if vote is not None else DeadlinePassed()
    if plan.reason_leg and plan.cause in (Cause.PROMISE_WITHDRAWN, Cause.DELEGATE_RELEASED, Cause.LEG_REFUSED):
        outcome = facts.leg(plan, plan.reason_leg).outcome
        # A leg that was found executed after all has signed that instead, and is a reason no more.
        if outcome is not None and outcome.outcome.kind is not OutcomeKind.DONE:
            return outcome
    # Whatever came after it, a leg that will never execute stays a reason.
    return facts.refusal(plan) or DeadlinePassed()


def _auditable(plan: Plan) -> bool:
    """Whether nothing is held any more, so that the abort audit log can say what became of every leg, and none is written yet."""
    if not facts.unsettled(plan) or plan.sealing or plan.audit is not None or plan.auditing_since is not None:
        return False
    return plan.outcome is PlanOutcome.MIXED or not _held(plan)


def _evidence(plan: Plan) -> Iterator[tuple[LegState, Effect]]:
    """Notarisations first; the journal once they are final. Of what did not settle they are told the abort audit log's hash, once that is durable."""
    how = closing(plan)
    if how is None:
        return
    commits = plan.decision is Decision.COMMIT and plan.state is not State.ABORTED
    # What was closed before an unwind stays closed as it was; that it says otherwise than the plan's outcome calls a person.
    waiting = [each for each in facts.notarisations(plan) if each.phase not in (Phase.COMMITTED, Phase.RELEASED)]
    for each in waiting or [facts.journal(plan)]:
        if commits and each.order is not Order.COMMIT:
            yield each, Commit(each.leg_id, closing=how)
        elif not commits and each.order is not Order.ABORT:
            yield each, Abort(each.leg_id, authority(plan), how)


def closing(plan: Plan) -> Closing | None:
    """How a plan that is about to end is to be closed; None as long as what it shows for it is not durable."""
    evidence = plan.audit if facts.unsettled(plan) else facts.evidence(plan)
    if evidence is None:
        return None
    return Closing(
        outcome=plan.outcome or PlanOutcome.ABORTED,
        evidence_digest=evidence,
        journal_sequence=plan.journal_sequence + 1,
        transition_no=plan.transition_no + 1,
        from_state=plan.state.value,
    )
