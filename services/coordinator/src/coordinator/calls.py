"""When a person is called, and when time next matters to a plan. Pure; called by the protocol after every event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from coordinator import facts
from coordinator.model import Effect, Escalate, EventType, LegState, Limits, Order, Plan, Record, State, Ticket
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.statements import Gate
from lockstep_kit.values import replace


def overdue(plan: Plan, now: datetime, limits: Limits) -> tuple[Plan, tuple[Effect, ...]]:
    """The plan with its new tickets, and the calls. A ticket is raised once per reason and leg, and only a person closes it."""
    effects: tuple[Effect, ...] = ()
    for reason, leg_id, detail in tuple(findings(plan, now, limits)):
        plan, called = call(plan, reason, leg_id, detail, now)
        effects = (*effects, *called)
    return plan, effects


def call(plan: Plan, reason: str, leg_id: str, detail: str, now: datetime) -> tuple[Plan, tuple[Effect, ...]]:
    """The plan with a ticket, and the call; nothing where a ticket for the same reason and leg is open, or the very same was closed after the end."""
    if any((ticket.reason, ticket.leg_id) == (reason, leg_id) for ticket in plan.tickets):
        return plan, ()
    told = (reason, leg_id, detail)
    if plan.state is State.CLOSED and any((each.reason, each.leg_id, each.detail) == told for each in plan.forgotten):
        return plan, ()
    ticket = Ticket(reason, leg_id, detail, now)
    plan = replace(plan, tickets=(*plan.tickets, ticket))
    if plan.sealing or plan.state is State.CLOSED:
        return plan, (Escalate(ticket),)
    plan = replace(plan, journal_sequence=plan.journal_sequence + 1)
    record = Record(plan.journal_sequence, EventType.EXCEPTION_RAISED, leg_id, reason=reason, detail=detail)
    return plan, (record, Escalate(ticket))


def findings(plan: Plan, now: datetime, limits: Limits) -> Iterator[tuple[str, str, str]]:
    """Reason, leg and sentence of everything that a person must look into now."""
    if plan.state in facts.UNDECIDED:
        return
    for each in facts.settling(plan):
        if each.trouble and plan.state is not State.PARTIALLY_EXECUTED:
            yield "LEG_TROUBLE", each.leg_id, each.trouble
        if facts.gainsaid(each):
            yield "RESOLUTION_CONTRADICTED", each.leg_id, "its participant says otherwise than two operators did"
    yield from _late_findings(plan)
    if plan.state is State.UNWIND_PENDING and plan.unwind_authority is None:
        yield "REVERSAL_UNORDERED", "", "the plan is being unwound, and the order to reverse was lost with what a restore took back"
    for each in _unanswered(plan):
        if _older(each, now, limits.unknown_max):
            told = {Order.ABORT: "release", Order.REVERSE: "reversal"}.get(each.order, "execution")
            yield "UNKNOWN_TOO_OLD", each.leg_id, f"the {told} was ordered and its participant cannot say what became of it"
    if plan.state is State.VALIDATING and plan.since is not None and now - plan.since > limits.validate_max:
        yield "VALIDATION_OVERDUE", "", "no validator has signed"
    if plan.auditing_since is not None and now - plan.auditing_since > limits.evidence_max:
        yield "AUDIT_LOG_OVERDUE", "", "the abort audit log cannot be stored, and the plan is not closed without it"
    if _closing(plan):
        yield from _evidence_findings(plan, now, limits)


def _late_findings(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """What comes too late for a transition: the plan is being sealed, or is closed. A MIXED plan promised nothing that could be contradicted."""
    if not plan.sealing:
        return
    for each in facts.settling(plan):
        if plan.outcome in (PlanOutcome.ABORTED, PlanOutcome.REVERSED) and facts.executed(each):
            yield "ABORTED_LEG_EXECUTED", each.leg_id, "a leg of an aborted plan took effect"
        if plan.outcome is PlanOutcome.COMMITTED and not facts.executed(each):
            yield "EVIDENCE_CONTRADICTED", each.leg_id, "a leg of a settled plan is not executed any more"


def _unanswered(plan: Plan) -> tuple[LegState, ...]:
    """Legs whose answer is still waited for: what was settled outside needs none."""
    return () if plan.outcome is PlanOutcome.MIXED else facts.unknown_legs(plan)


def _closing(plan: Plan) -> bool:
    """Whether the evidence legs are to close the plan now."""
    outside = plan.state is State.PARTIALLY_EXECUTED and plan.outcome is PlanOutcome.MIXED
    return plan.state in (State.COMMITTED, State.ABORTED) or outside


def _evidence_findings(plan: Plan, now: datetime, limits: Limits) -> Iterator[tuple[str, str, str]]:
    """An evidence leg that refuses or is silent calls a person, and never changes state or outcome."""
    for each in plan.legs:
        if each.kind.settling or each.order not in (Order.COMMIT, Order.ABORT):
            continue
        if plan.state is State.ABORTED and each.phase is Phase.COMMITTED:
            yield "EVIDENCE_LEG_CONTRADICTED", each.leg_id, "the evidence leg was closed as settled before the plan was unwound"
        elif each.order is Order.COMMIT and each.phase is Phase.REFUSED:
            yield "EVIDENCE_LEG_REFUSED", each.leg_id, "the evidence leg refused to close the plan"
        elif each.phase not in (Phase.COMMITTED, Phase.RELEASED) and _older(each, now, limits.evidence_max):
            yield "EVIDENCE_LEG_OVERDUE", each.leg_id, "the evidence leg has not closed the plan"


def _older(each: LegState, now: datetime, limit: timedelta) -> bool:
    return each.ordered_at is not None and now - each.ordered_at > limit


def next_due(plan: Plan, limits: Limits) -> datetime | None:
    """When the plan must be given a Tick at the latest, or None where time alone changes nothing."""
    moments: list[datetime] = []
    delegated = plan.decision is Decision.DELEGATED and facts.leg(plan, plan.delegate).order is not Order.ABORT
    if plan.state in facts.UNDECIDED or delegated:
        # The deadline has passed only after it, and times are kept to the microsecond.
        moments.append(plan.deadline + timedelta(microseconds=1))
    raised = {(ticket.reason, ticket.leg_id) for ticket in plan.tickets}
    for each in _unanswered(plan):
        if each.ordered_at is not None and ("UNKNOWN_TOO_OLD", each.leg_id) not in raised:
            moments.append(each.ordered_at + limits.unknown_max)
    if plan.state is State.VALIDATING and plan.since is not None and ("VALIDATION_OVERDUE", "") not in raised:
        moments.append(plan.since + limits.validate_max)
    if plan.auditing_since is not None and ("AUDIT_LOG_OVERDUE", "") not in raised:
        moments.append(plan.auditing_since + limits.evidence_max)
    if _closing(plan):
        moments.extend(
            each.ordered_at + limits.evidence_max
            for each in plan.legs
            if not each.kind.settling
            and each.order in (Order.COMMIT, Order.ABORT)
            and each.ordered_at is not None
            and each.phase not in (Phase.COMMITTED, Phase.RELEASED)
            and ("EVIDENCE_LEG_OVERDUE", each.leg_id) not in raised
        )
    return min(moments, default=None)


def awaited_gate(plan: Plan, now: datetime) -> Gate | None:
    """The gate that a person must sign now for the plan to go on."""
    match plan.state:
        case State.READY_FOR_PREPARE | State.PREPARED if not facts.opened(plan, Gate.APPROVE, now):
            return Gate.APPROVE
        case State.PREPARED:
            return Gate.RELEASE
        case State.VALIDATING:
            return Gate.VALIDATE
        case _:
            return None
