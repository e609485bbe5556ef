"""When a person is called, and when time next matters to a plan. Pure; called by the protocol after every event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from coordinator import facts
from coordinator.model import Effect, Escalate, EventType, LegState, Limits, Order, Plan, Record, State, Ticket
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.statements import Gate


def overdue(plan: Plan, now: datetime, limits: Limits) -> tuple[Plan, tuple[Effect, ...]]:
    """The plan with its new tickets, and the calls. A ticket is raised once per reason and leg, and only a person closes it."""
    effects: tuple[Effect, ...] = ()
    for reason, leg_id, detail in tuple(_findings(plan, now, limits)):
        plan, called = call(plan, reason, leg_id, detail, now)
        effects = (*effects, *called)
    return plan, effects


def call(plan: Plan, reason: str, leg_id: str, detail: str, now: datetime) -> tuple[Plan, tuple[Effect, ...]]:
    """The plan with a ticket, and the call; nothing where a ticket for the same reason and leg is open."""
    if any((ticket.reason, ticket.leg_id) == (reason, leg_id) for ticket in plan.tickets):
        return plan, ()
    ticket = Ticket(reason, leg_id, detail, now)
    plan = replace(plan, tickets=(*plan.tickets, ticket))
    if plan.sealing or plan.state is State.CLOSED:
        return plan, (Escalate(ticket),)
    plan = replace(plan, journal_sequence=plan.journal_sequence + 1)
    record = Record(plan.journal_sequence, EventType.EXCEPTION_RAISED, leg_id, reason=reason, detail=detail)
    return plan, (record, Escalate(ticket))


def _findings(plan: Plan, now: datetime, limits: Limits) -> Iterator[tuple[str, str, str]]:
    if plan.state in facts.UNDECIDED:
        return
    for each in facts.settling(plan):
        if each.trouble and plan.state is not State.PARTIALLY_EXECUTED:
            yield "LEG_TROUBLE", each.leg_id, each.trouble
    for each in facts.unknown_legs(plan):
        if _older(each, now, limits.unknown_max):
            told = "release" if each.order is Order.ABORT else "execution"
            yield "UNKNOWN_TOO_OLD", each.leg_id, f"the {told} was ordered and its participant cannot say what became of it"
    if plan.state is State.VALIDATING and plan.since is not None and now - plan.since > limits.validate_max:
        yield "VALIDATION_OVERDUE", "", "no validator has signed"
    if plan.state in (State.COMMITTED, State.ABORTED):
        yield from _evidence_findings(plan, now, limits)


def _evidence_findings(plan: Plan, now: datetime, limits: Limits) -> Iterator[tuple[str, str, str]]:
    """An evidence leg that refuses or is silent calls a person, and never changes state or outcome."""
    for each in plan.legs:
        if each.kind.settling or each.order not in (Order.COMMIT, Order.ABORT):
            continue
        if each.order is Order.COMMIT and each.phase is Phase.REFUSED:
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
    for each in facts.unknown_legs(plan):
        if each.ordered_at is not None and ("UNKNOWN_TOO_OLD", each.leg_id) not in raised:
            moments.append(each.ordered_at + limits.unknown_max)
    if plan.state is State.VALIDATING and plan.since is not None and ("VALIDATION_OVERDUE", "") not in raised:
        moments.append(plan.since + limits.validate_max)
    if plan.state in (State.COMMITTED, State.ABORTED):
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


def awaited_gate(plan: Plan) -> Gate | None:
    """The gate that a person must sign now for the plan to go on."""
    match plan.state:
        case State.READY_FOR_PREPARE if facts.gate(plan, Gate.APPROVE) is None:
            return Gate.APPROVE
        case State.PREPARED:
            return Gate.RELEASE
        case State.VALIDATING:
            return Gate.VALIDATE
        case _:
            return None
