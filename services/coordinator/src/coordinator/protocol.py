"""The protocol: what a plan's state and decision become, and what is to be done. Pure: no I/O, no clock, no randomness.

`step(plan, event, now, limits)` is the only way in which a plan changes. It does four things, in this order:

1. absorb: the event becomes facts of the plan (a vote, a signature, an outcome);
2. move: as long as the facts give a cause, the one literal table `TABLE`, keyed on (state, decision, cause), says where the plan goes;
3. order: commands follow from state, decision and facts; each leg is given each command once, and the relay repeats it until it is answered;
4. call: what takes too long, or contradicts, opens an escalation once.

Before the decision: presumed abort. After COMMIT: forward only; no listener, outage, signature or deadline undoes it. A time-out, a lost connection, a
Rejected command is no event at all: only a participant's signed report is. Each move is one transition and one journal event; the move to CLOSED
is recorded by the journal's own closing entry, whose number is reserved when the journal is told to seal.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from coordinator import facts
from coordinator.calls import call, overdue
from coordinator.model import (
    Abort,
    AuditWritten,
    Cause,
    CheckFailed,
    ChecksBegun,
    ChecksPassed,
    Commit,
    CommitsWithheld,
    Created,
    Effect,
    Escalate,
    Event,
    EventType,
    ExecuteAsked,
    GateRecord,
    GateSigned,
    LegNews,
    LegState,
    Limits,
    Mandate,
    Moved,
    OperatorsAnswered,
    OperatorsForgot,
    OperatorsRedrove,
    OperatorsSettled,
    OperatorsUnwound,
    Order,
    PersonNeeded,
    Plan,
    Record,
    Resolved,
    Restored,
    Reverse,
    State,
    Step,
    Ticket,
)
from coordinator.orders import orders
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.reversals import order_digest
from lockstep_kit.statements import Gate, OutcomeKind, Refusal, SignedOutcome
from lockstep_kit.values import dataclass, replace

#: A plan's facts can drive it through this many moves at one event at the most; more would be a cycle in the table.
MOVES_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Arc:
    """Where a cause leads."""

    #: State entered.
    state: State
    #: Decision after it.
    decision: Decision | None
    #: Journal event that records it.
    event: EventType
    #: Whether a person is called.
    escalates: bool = False


def _stops(*states: State) -> dict[tuple[State, Decision | None, Cause], Arc]:
    causes = (
        Cause.CHECK_FAILED,
        Cause.VOTED_NO,
        Cause.GATE_REJECTED,
        Cause.PROMISE_WITHDRAWN,
        Cause.CANCELLED,
        Cause.DEADLINE_PASSED,
        Cause.RESTORED,
    )
    arc = Arc(State.ABORTED, Decision.ABORT, EventType.PLAN_ABORTED)
    return {(state, None, cause): arc for state in states for cause in causes}


_C: Final = Decision.COMMIT
_A: Final = Decision.ABORT
_D: Final = Decision.DELEGATED

#: The protocol. What is not here cannot happen.
TABLE: Final[Mapping[tuple[State, Decision | None, Cause], Arc]] = {
    (State.DRAFT, None, Cause.EXECUTE_ASKED): Arc(State.INITIATED, None, EventType.PLAN_INITIATED),
    (State.INITIATED, None, Cause.CHECKS_BEGUN): Arc(State.PRECONDITIONS_PENDING, None, EventType.PLAN_INITIATED),
    (State.PRECONDITIONS_PENDING, None, Cause.CHECKS_PASSED): Arc(State.READY_FOR_PREPARE, None, EventType.PLAN_READY),
    (State.READY_FOR_PREPARE, None, Cause.PREPARED_AND_APPROVED): Arc(State.PREPARED, None, EventType.PLAN_APPROVED),
    (State.PREPARED, None, Cause.RELEASED): Arc(State.EXECUTING, _C, EventType.PLAN_RELEASED),
    (State.PREPARED, None, Cause.RELEASED_DELEGATED): Arc(State.EXECUTING, _D, EventType.PLAN_RELEASED),
    **_stops(State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING, State.READY_FOR_PREPARE, State.PREPARED),
    (State.EXECUTING, _D, Cause.DELEGATE_DONE): Arc(State.EXECUTING, _C, EventType.LEG_EXECUTED),
    (State.EXECUTING, _D, Cause.DELEGATE_RELEASED): Arc(State.ABORTED, _A, EventType.PLAN_ABORTED),
    (State.EXECUTING, _C, Cause.ALL_DONE): Arc(State.VALIDATING, _C, EventType.LEG_EXECUTED),
    (State.EXECUTING, _C, Cause.LEG_REFUSED): Arc(State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True),
    (State.EXECUTING, _C, Cause.CONTRADICTION): Arc(State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True),
    (State.VALIDATING, _C, Cause.EVIDENCE_VALIDATED): Arc(State.COMMITTED, _C, EventType.PLAN_COMMITTED),
    (State.VALIDATING, _C, Cause.EVIDENCE_REJECTED): Arc(State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True),
    (State.VALIDATING, _C, Cause.CONTRADICTION): Arc(State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True),
    (State.COMMITTED, _C, Cause.SEALED): Arc(State.CLOSED, _C, EventType.PLAN_CLOSED),
    (State.COMMITTED, _C, Cause.CONTRADICTION): Arc(State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True),
    (State.ABORTED, _A, Cause.SEALED): Arc(State.CLOSED, _A, EventType.PLAN_CLOSED),
    (State.ABORTED, _A, Cause.SETTLED_OUTSIDE): Arc(State.CLOSED, _A, EventType.PLAN_CLOSED),
    (State.ABORTED, _A, Cause.FOUND_EXECUTED): Arc(State.PARTIALLY_EXECUTED, _A, EventType.EXCEPTION_RAISED, escalates=True),
    (State.ABORTED, _C, Cause.SEALED): Arc(State.CLOSED, _C, EventType.PLAN_CLOSED),
    (State.ABORTED, _C, Cause.SETTLED_OUTSIDE): Arc(State.CLOSED, _C, EventType.PLAN_CLOSED),
    (State.ABORTED, _C, Cause.FOUND_EXECUTED): Arc(State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True),
    (State.PARTIALLY_EXECUTED, _C, Cause.REDRIVEN): Arc(State.EXECUTING, _C, EventType.EXCEPTION_RESOLVED),
    (State.PARTIALLY_EXECUTED, _C, Cause.UNWIND_ORDERED): Arc(State.UNWIND_PENDING, _C, EventType.EXCEPTION_RESOLVED),
    (State.PARTIALLY_EXECUTED, _C, Cause.SETTLED_OUTSIDE): Arc(State.CLOSED, _C, EventType.PLAN_CLOSED),
    (State.PARTIALLY_EXECUTED, _A, Cause.UNWIND_ORDERED): Arc(State.UNWIND_PENDING, _A, EventType.EXCEPTION_RESOLVED),
    (State.PARTIALLY_EXECUTED, _A, Cause.SETTLED_OUTSIDE): Arc(State.CLOSED, _A, EventType.PLAN_CLOSED),
    (State.UNWIND_PENDING, _C, Cause.UNWOUND): Arc(State.ABORTED, _C, EventType.PLAN_ABORTED),
    (State.UNWIND_PENDING, _A, Cause.UNWOUND): Arc(State.ABORTED, _A, EventType.PLAN_ABORTED),
    (State.UNWIND_PENDING, _C, Cause.REVERSAL_REFUSED): Arc(
        State.PARTIALLY_EXECUTED, _C, EventType.EXCEPTION_RAISED, escalates=True
    ),
    (State.UNWIND_PENDING, _A, Cause.REVERSAL_REFUSED): Arc(
        State.PARTIALLY_EXECUTED, _A, EventType.EXCEPTION_RAISED, escalates=True
    ),
}

#: Events that carry what two operators signed.
_RESOLVED: Final = frozenset({EventType.EXCEPTION_RESOLVED})
#: Gates whose signature a journal event carries.
_EVENT_GATES: Final[Mapping[EventType, Gate]] = {
    EventType.PLAN_APPROVED: Gate.APPROVE,
    EventType.PLAN_RELEASED: Gate.RELEASE,
}


def step(plan: Plan, event: Event, now: datetime, limits: Limits) -> Step:
    """The plan after an event, and what is to be done, in order.

    An event that has no place (a stale report, a second request) changes nothing and gives no effects.
    """
    after, effects = _absorb(plan, event, now)
    asked = _asked(plan, after, event)
    # An execution is one journal event: of the transition that it brings about, or of its own where it brings about none.
    done = _executed_now(plan, after, event)
    for _ in range(MOVES_MAX):
        cause = asked or facts.cause(after, now, limits)
        asked = None
        arc = None if cause is None else TABLE.get((after.state, after.decision, cause))
        if done and (arc is None or arc.event is not EventType.LEG_EXECUTED):
            after, recorded = _recorded(after, EventType.LEG_EXECUTED, done)
            effects = (*effects, *recorded)
        done = ""
        if cause is None or arc is None:
            break
        after, moved = _move(after, cause, event, now, limits)
        effects = (*effects, *moved)
    else:
        raise AssertionError(f"plan {plan.plan_id} does not come to rest in {after.state}")
    after, ordered = orders(after, now)
    after, called = overdue(after, now, limits)
    effects = (*effects, *ordered, *called)
    check_step(plan, after, effects)
    return Step(after, effects)


def _absorb(plan: Plan, event: Event, now: datetime) -> tuple[Plan, tuple[Effect, ...]]:
    """The event as facts, with the journal events that record no transition."""
    match event:
        case Created():
            return _created(plan, event.make, now)
        case LegNews():
            return _heard(plan, event)
        case GateSigned():
            return _signed(plan, event.record)
        case OperatorsAnswered() | OperatorsRedrove() | OperatorsUnwound() | OperatorsSettled() | OperatorsForgot():
            return _resolved(plan, event)
        case CommitsWithheld() if plan.state is State.PARTIALLY_EXECUTED:
            for leg_id in event.leg_ids:
                plan = facts.with_leg(plan, replace(facts.leg(plan, leg_id), order=Order.PREPARE, ordered_at=None))
            return plan, ()
        case AuditWritten() if plan.auditing_since is not None:
            return replace(plan, auditing_since=None, audit=event.digest), ()
        case PersonNeeded():
            return call(plan, event.reason, event.leg_id, event.detail, now)
        case _:
            return plan, ()


def _created(plan: Plan, make: GateRecord, now: datetime) -> tuple[Plan, tuple[Effect, ...]]:
    plan = replace(plan, gates=(make,), transition_no=1, journal_sequence=1, since=now)
    moved = Moved(1, None, State.DRAFT, None, Cause.CREATED, 1)
    return plan, (moved, Record(1, EventType.PLAN_CREATED, moved=moved, gate=make))


def _heard(plan: Plan, news: LegNews) -> tuple[Plan, tuple[Effect, ...]]:
    """A participant's report. What is not newer than what is known is no news."""
    leg = facts.leg(plan, news.leg_id)
    if news.revision <= leg.revision:
        return plan, ()
    heard = replace(
        leg,
        phase=news.phase,
        revision=news.revision,
        vote=news.vote,
        outcome=news.outcome,
        trouble=news.trouble,
        reversed=leg.reversed or news.phase is Phase.REVERSED,
        reversal=news.reversal if _answers(plan, news.reversal) else None,
    )
    plan = facts.with_leg(plan, heard)
    effects: tuple[Effect, ...] = ()
    if leg.vote is None and news.vote is not None:
        voted = EventType.LEG_REFUSED if isinstance(news.vote.vote.answer, Refusal) else EventType.LEG_PREPARED
        plan, effects = _recorded(plan, voted, news.leg_id)
    if leg.kind.settling and _refused(news) and not _refused(leg):
        plan, more = _recorded(plan, EventType.LEG_REFUSED, news.leg_id)
        effects = (*effects, *more)
        if plan.decision is Decision.DELEGATED and plan.delegate == news.leg_id:
            # Its release will be what aborts the plan; why it had to be released is known now.
            reason, about, detail = facts.refusal_of(heard)
            plan = replace(plan, reason=reason, reason_leg=about, reason_detail=detail)
    if heard.reversed and not leg.reversed:
        plan, more = _recorded(plan, EventType.LEG_REVERSED, news.leg_id)
        effects = (*effects, *more)
    return plan, effects


def _answers(plan: Plan, reversal: SignedOutcome | None) -> bool:
    """Whether a reversal is the answer to the order in force. What is reversed is, by whichever order; the refusal of an older one says nothing."""
    if reversal is None or reversal.outcome.kind is OutcomeKind.REVERSED:
        return reversal is not None
    authority = plan.unwind_authority
    return authority is not None and reversal.outcome.order == order_digest(authority)


def _refused(known: LegState | LegNews) -> bool:
    return known.outcome is not None and known.outcome.outcome.kind is OutcomeKind.REFUSED


Decided: TypeAlias = OperatorsAnswered | OperatorsRedrove | OperatorsUnwound | OperatorsSettled | OperatorsForgot


def _resolved(plan: Plan, event: Decided) -> tuple[Plan, tuple[Effect, ...]]:
    """What two operators decided, as facts. A ticket stays open whatever they decide, until they close it: only then is its matter over."""
    told = Resolved(event.mandate)
    match event:
        case OperatorsAnswered() if facts.reversing(facts.leg(plan, event.leg_id)):
            # Whether it is undone. That it is not changes nothing of the leg: its participant may still carry out the order.
            undone = not event.answer.executed
            plan = facts.with_leg(plan, replace(facts.leg(plan, event.leg_id), reversed=undone))
        case OperatorsAnswered() if any(each.leg_id == event.leg_id for each in facts.unknown_legs(plan)):
            plan = facts.with_leg(plan, replace(facts.leg(plan, event.leg_id), operators_evidence=event.answer))
        case OperatorsRedrove():
            return _retried(plan, event)
        case OperatorsUnwound() if facts.unwindable(plan):
            again = plan.state is State.UNWIND_PENDING
            plan = facts.reordered(replace(plan, unwind=event.mandate))
            if not again:
                # The transition's own event records it.
                return plan, (told,)
        case OperatorsSettled() if facts.settleable(plan):
            # Another end than that of which a log was written, if one was.
            plan = replace(plan, outcome=PlanOutcome.MIXED, auditing_since=None, audit=None)
        case OperatorsForgot() if event.ticket in plan.tickets:
            place = plan.tickets.index(event.ticket)
            still = (*plan.tickets[:place], *plan.tickets[place + 1 :])
            plan = replace(plan, tickets=still, forgotten=(*plan.forgotten, event.ticket))
            told = replace(told, forgotten=event.ticket)
        case _:
            return plan, ()
    about = event.ticket.leg_id if isinstance(event, OperatorsForgot) else getattr(event, "leg_id", "")
    detail = event.detail if isinstance(event, OperatorsSettled) else ""
    plan, recorded = _recorded(plan, EventType.EXCEPTION_RESOLVED, about, detail=detail, mandate=event.mandate)
    return plan, (*recorded, told)


def _retried(plan: Plan, event: OperatorsRedrove) -> tuple[Plan, tuple[Effect, ...]]:
    """All that waits is sent again now; with a leg, operators take back that it took no effect, where its participant never said so."""
    if plan.state is State.CLOSED:
        return plan, ()
    told = Resolved(event.mandate, hastens=True)
    if event.leg_id and plan.state is State.PARTIALLY_EXECUTED and facts.denied(facts.leg(plan, event.leg_id)):
        again = replace(facts.leg(plan, event.leg_id), order=Order.PREPARE, ordered_at=None, operators_evidence=None)
        plan = facts.with_leg(plan, again)
    if facts.drivable(plan):
        return plan, (told,)
    plan, recorded = _recorded(plan, EventType.EXCEPTION_RESOLVED, event.leg_id, mandate=event.mandate)
    return plan, (*recorded, told)


def _executed_now(before: Plan, after: Plan, event: Event) -> str:
    """The settling leg that this event shows to be executed, or ""."""
    if not isinstance(event, LegNews) or not facts.leg(after, event.leg_id).kind.settling:
        return ""
    known = facts.executed(facts.leg(before, event.leg_id))
    return event.leg_id if facts.executed(facts.leg(after, event.leg_id)) and not known else ""


def _signed(plan: Plan, record: GateRecord) -> tuple[Plan, tuple[Effect, ...]]:
    plan = replace(plan, gates=(*plan.gates, record))
    if record.signed.statement.gate is Gate.VALIDATE:
        return _recorded(plan, EventType.EVIDENCE_VALIDATED, gate=record)
    return plan, ()


def _recorded(
    plan: Plan,
    event: EventType,
    leg_id: str = "",
    *,
    gate: GateRecord | None = None,
    detail: str = "",
    mandate: Mandate | None = None,
) -> tuple[Plan, tuple[Effect, ...]]:
    """A journal event that records no transition; none once the journal was told to seal."""
    if plan.sealing or plan.state is State.CLOSED:
        return plan, ()
    plan = replace(plan, journal_sequence=plan.journal_sequence + 1)
    return plan, (Record(plan.journal_sequence, event, leg_id, gate=gate, detail=detail, mandate=mandate),)


def _asked(before: Plan, plan: Plan, event: Event) -> Cause | None:
    """The cause that an event is by itself, given the plan with and without it. What was settled outside is not resolved a second time."""
    if plan.outcome is PlanOutcome.MIXED:
        return None
    match event:
        case ExecuteAsked():
            return Cause.EXECUTE_ASKED
        case ChecksBegun():
            return Cause.CHECKS_BEGUN
        case ChecksPassed():
            return Cause.CHECKS_PASSED
        case CheckFailed():
            return Cause.CHECK_FAILED
        case Restored() if plan.state in facts.UNDECIDED:
            return Cause.RESTORED
        case OperatorsRedrove() if facts.drivable(plan):
            return Cause.REDRIVEN
        case OperatorsAnswered() if plan is not before and facts.drivable(plan):
            return Cause.REDRIVEN
        case OperatorsUnwound() if facts.unwindable(before):
            return Cause.UNWIND_ORDERED
        case OperatorsAnswered() if plan is not before and plan.state is State.UNWIND_PENDING and event.answer.executed:
            return Cause.REVERSAL_REFUSED if facts.reversing(facts.leg(plan, event.leg_id)) else None
        case _:
            return None


def _move(plan: Plan, cause: Cause, event: Event, now: datetime, limits: Limits) -> tuple[Plan, tuple[Effect, ...]]:
    """One transition, as the table says."""
    arc = TABLE[plan.state, plan.decision, cause]
    sequence = plan.journal_sequence if arc.state is State.CLOSED else plan.journal_sequence + 1
    moved = Moved(plan.transition_no + 1, plan.state, arc.state, arc.decision, cause, sequence)
    reason, about, detail = facts.explain(plan, cause, event, limits)
    changed: dict[str, Any] = {}
    if cause in (Cause.RELEASED, Cause.RELEASED_DELEGATED):
        changed |= {"decided_at": now, "delegate": facts.soft_legs(plan)[0] if cause is Cause.RELEASED_DELEGATED else ""}
    if plan.state is State.ABORTED and arc.state is not State.CLOSED:
        # What the log says of that abort holds no more; the next abort has a log of its own.
        changed |= {"auditing_since": None, "audit": None}
    if cause is Cause.UNWIND_ORDERED and not isinstance(event, OperatorsUnwound):
        changed |= {"unwound_by_policy": True, "unwind_refusal": facts.refusal(plan), "legs": facts.reordered(plan).legs}
    if cause is Cause.REDRIVEN:
        changed |= {"validated_from": len(plan.gates), "cause": None, "reason": "", "reason_leg": "", "reason_detail": ""}
    if arc.state in (State.ABORTED, State.PARTIALLY_EXECUTED) and cause is not Cause.UNWOUND:
        changed |= {"cause": cause, "reason": reason, "reason_leg": about, "reason_detail": detail}
    after = replace(
        plan,
        state=arc.state,
        decision=arc.decision,
        since=now,
        transition_no=moved.transition_no,
        journal_sequence=sequence,
        outcome=facts.outcome(plan, arc.state),
        **changed,
    )
    effects: list[Effect] = [moved]
    if arc.state is not State.CLOSED:
        gate = facts.gate(plan, _EVENT_GATES[arc.event]) if arc.event in _EVENT_GATES else facts.stopping_gate(plan, cause)
        mandate = event.mandate if isinstance(event, OperatorsRedrove | OperatorsUnwound) and arc.event in _RESOLVED else None
        effects.append(Record(sequence, arc.event, about, moved, gate, mandate, reason, detail))
    if arc.escalates:
        ticket = Ticket(reason, about, detail, now)
        after = replace(after, tickets=(*after.tickets, ticket))
        effects.append(Escalate(ticket))
    return after, tuple(effects)


def check_step(before: Plan, after: Plan, effects: tuple[Effect, ...]) -> None:
    """What must hold between a plan before and after any event, whatever the table says.

    Raises:
        AssertionError: it does not; the transaction is rolled back and nothing was done.
    """
    decided = (before.decision, after.decision)
    changes = decided[0] is not decided[1]
    allowed = {(None, _C), (None, _A), (None, _D), (_D, _C), (_D, _A)}
    _assert(not changes or decided in allowed, "a decision is written once", before)
    _assert(before.state is not State.CLOSED or after.state is State.CLOSED, "CLOSED is the end", before)
    if effects:
        _check_effects(before, after, effects)
    for old, new in zip(before.legs, after.legs, strict=True):
        same = old is new or (old.leg_id == new.leg_id and new.revision >= old.revision)
        _assert(same, "legs stay, revisions grow", before)


def _check_effects(before: Plan, after: Plan, effects: tuple[Effect, ...]) -> None:
    moves = [effect for effect in effects if isinstance(effect, Moved)]
    records = [effect for effect in effects if isinstance(effect, Record)]
    numbers = [move.transition_no for move in moves]
    first = before.transition_no + 1
    _assert(numbers == list(range(first, first + len(moves))), "transitions are dense", before)
    recorded = [record.moved.transition_no for record in records if record.moved is not None]
    closing = [move.transition_no for move in moves if move.entered is State.CLOSED]
    _assert(sorted(recorded + closing) == numbers, "one event per transition", before)
    sequences = list(range(before.journal_sequence + 1, before.journal_sequence + 1 + len(records)))
    _assert([record.sequence for record in records] == sequences, "journal events are dense", before)
    _assert(not (before.sealing and records), "nothing is appended once the journal seals", before)
    for each in effects:
        if isinstance(each, Reverse):
            _assert(each.authority == after.unwind_authority, "nothing is reversed but by the order in force", before)
        elif isinstance(each, Abort | Commit) and each.closing is not None:
            late = facts.unsettled(after) and each.closing.evidence_digest != after.audit
            _assert(not late, "what did not settle is closed with its abort audit log", before)


def _assert(holds: bool, rule: str, plan: Plan) -> None:
    if not holds:
        raise AssertionError(f"plan {plan.plan_id} in {plan.state}/{plan.decision}: {rule}")
