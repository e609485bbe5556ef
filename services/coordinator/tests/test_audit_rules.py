"""When an abort audit log is ordered and what waits for it, and what is told of a plan: the rules by themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coordinator import facts
from coordinator.calls import next_due
from coordinator.dossier import FiledTicket, new_plan
from coordinator.model import (
    Abort,
    AuditWritten,
    Cause,
    ChecksBegun,
    ChecksPassed,
    Commit,
    Created,
    Effect,
    Escalate,
    Event,
    ExecuteAsked,
    GateRecord,
    GateSigned,
    LegNews,
    Limits,
    Moved,
    OperatorsSettled,
    Plan,
    State,
    Tick,
    Ticket,
    WriteAudit,
)
from coordinator.notices import NoticeKind, cloud_event, notices, taken_over
from coordinator.protocol import check_step, step
from lockstep_kit.canonical import canonical
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, LegId, sha256
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.statements import Gate, OutcomeKind, Promise, PromiseKind
from lockstep_testkit.factories import SIGNERS, delivery_versus_payment

NOW = datetime.now(UTC)
LIMITS = Limits()
SETTLING, LEGS = ("tokens", "cash"), ("tokens", "cash", "notarisation", "journal")
FIRST, SECOND = sha256(b"first log"), sha256(b"second log")


class History:
    """One plan's."""

    def __init__(self) -> None:
        self.case = delivery_versus_payment(deadline=NOW + timedelta(hours=1))
        self.plan = new_plan(self.case.header, self.case.legs)
        self.now = NOW
        for event in (Created(self._gate(Gate.MAKE)), ExecuteAsked(), ChecksBegun(), ChecksPassed()):
            self.give(event)
        for leg_id in LEGS:
            self.news(leg_id, Phase.PREPARED, Promise(PromiseKind.GUARANTEED, None))

    def _gate(self, gate: Gate) -> GateRecord:
        who = SIGNERS.get(gate, "alice")
        return GateRecord(self.case.gate(gate, who), ActorId(who), self.now)

    def give(self, event: Event) -> tuple[Effect, ...]:
        stepped = step(self.plan, event, self.now, LIMITS)
        self.plan = stepped.plan
        return stepped.effects

    def news(self, leg_id: str, phase: Phase, promise: Promise | None = None) -> tuple[Effect, ...]:
        leg = facts.leg(self.plan, leg_id)
        vote = self.case.vote(leg_id, promise) if promise is not None else leg.vote
        kinds = {Phase.COMMITTED: OutcomeKind.DONE, Phase.RELEASED: OutcomeKind.RELEASED}
        outcome = self.case.outcome(leg_id, kinds[phase]) if phase in kinds else leg.outcome
        return self.give(LegNews(LegId(leg_id), phase, leg.revision + 1, vote, outcome))

    def cancelled(self) -> History:
        self.give(GateSigned(self._gate(Gate.CANCEL)))
        assert self.plan.state is State.ABORTED
        return self


def closings(effects: tuple[Effect, ...]) -> list[tuple[str, bytes]]:
    told = [each for each in effects if isinstance(each, Abort | Commit) and each.closing is not None]
    return [(each.leg_id, each.closing.evidence_digest) for each in told if each.closing is not None]


def test_the_log_comes_between_the_last_release_and_the_notary() -> None:
    """While anything is held no log is ordered; until it is durable the evidence legs are told nothing; then they are told its hash, in order."""
    history = History().cancelled()
    assert history.plan.auditing_since is None
    assert not any(isinstance(each, WriteAudit) for each in history.news("tokens", Phase.RELEASED))
    last = history.news("cash", Phase.RELEASED)
    assert [each for each in last if isinstance(each, WriteAudit)] == [WriteAudit()]
    assert closings(last) == []
    assert closings(history.give(Tick())) == []
    assert not any(isinstance(each, WriteAudit) for each in history.give(Tick()))
    assert closings(history.give(AuditWritten(FIRST))) == [("notarisation", FIRST)]
    assert closings(history.news("notarisation", Phase.RELEASED)) == [("journal", FIRST)]
    history.news("journal", Phase.RELEASED)
    assert (history.plan.state, history.plan.outcome, history.plan.audit) == (State.CLOSED, PlanOutcome.ABORTED, FIRST)


def test_a_log_that_nobody_ordered_is_none() -> None:
    """A log that is said to be stored where none was ordered, or a second time, changes nothing."""
    history = History()
    before = history.plan
    assert history.give(AuditWritten(FIRST)) == ()
    assert history.plan == before
    history.cancelled()
    for leg_id in SETTLING:
        history.news(leg_id, Phase.RELEASED)
    history.give(AuditWritten(FIRST))
    assert history.give(AuditWritten(SECOND)) == ()
    assert history.plan.audit == FIRST


def test_an_abort_that_does_not_hold_has_another_log() -> None:
    """A leg found executed after the notary was told ends that log's time; the next abort is told by a log of its own, to whom is not told yet."""
    history = History().cancelled()
    for leg_id in SETTLING:
        history.news(leg_id, Phase.RELEASED)
    history.give(AuditWritten(FIRST))
    history.news("cash", Phase.COMMITTED)
    assert history.plan.state is State.PARTIALLY_EXECUTED
    assert (history.plan.audit, history.plan.auditing_since) == (None, None)
    assert history.give(AuditWritten(FIRST)) == ()
    effects = history.give(OperatorsSettled("by hand"))
    assert any(isinstance(each, WriteAudit) for each in effects)
    assert history.give(AuditWritten(SECOND)) == ()
    effects = history.news("notarisation", Phase.RELEASED)
    assert closings(effects) == [("journal", SECOND)]


def test_settling_outside_voids_the_log_of_the_abort() -> None:
    """A log that tells of an abort does not stand for a plan that operators then settled outside."""
    history = History().cancelled()
    for leg_id in SETTLING:
        history.news(leg_id, Phase.RELEASED)
    history.give(AuditWritten(FIRST))
    effects = history.give(OperatorsSettled("by hand"))
    assert any(isinstance(each, WriteAudit) for each in effects)
    assert (history.plan.audit, history.plan.outcome) == (None, PlanOutcome.MIXED)


def test_a_log_that_takes_too_long_calls_a_person_once() -> None:
    """What cannot be stored wakes the plan in time, and calls a person once."""
    history = History().cancelled()
    for leg_id in SETTLING:
        history.news(leg_id, Phase.RELEASED)
    due = next_due(history.plan, LIMITS)
    assert history.plan.auditing_since is not None
    assert due == history.plan.auditing_since + LIMITS.evidence_max
    history.now += LIMITS.evidence_max + timedelta(seconds=1)
    tickets = [each.ticket.reason for each in history.give(Tick()) if isinstance(each, Escalate)]
    assert tickets == ["AUDIT_LOG_OVERDUE"]
    assert history.give(Tick()) == ()
    assert next_due(history.plan, LIMITS) is None
    assert closings(history.give(AuditWritten(FIRST))) == [("notarisation", FIRST)]


def test_every_step_is_checked() -> None:
    """Whatever the rules give, no step may close what did not settle with anything but its log."""
    history = History().cancelled()
    for leg_id in SETTLING:
        history.news(leg_id, Phase.RELEASED)
    before = history.plan
    effects = history.give(AuditWritten(FIRST))
    forged = replace(history.plan, audit=SECOND)
    with pytest.raises(AssertionError, match="closed with its abort audit log"):
        check_step(before, forged, effects)


# -- Notices -------------------------------------------------------------------------------------------------------------


def moved(plan: Plan, entered: State, cause: Cause) -> Moved:
    return Moved(plan.transition_no, State.EXECUTING, entered, Decision.COMMIT, cause, 9)


@pytest.mark.parametrize(
    ("entered", "cause", "kind", "action"),
    [
        (State.PARTIALLY_EXECUTED, Cause.LEG_REFUSED, NoticeKind.EXECUTION_FAILED, True),
        (State.PARTIALLY_EXECUTED, Cause.CONTRADICTION, NoticeKind.EXECUTION_FAILED, True),
        (State.ABORTED, Cause.CANCELLED, NoticeKind.ABORTED, False),
        (State.ABORTED, Cause.UNWOUND, NoticeKind.ABORTED, False),
        (State.EXECUTING, Cause.REDRIVEN, NoticeKind.RECOVERY_IN_PROGRESS, False),
        (State.UNWIND_PENDING, Cause.UNWIND_ORDERED, NoticeKind.RECOVERY_IN_PROGRESS, False),
    ],
)
def test_what_is_told(entered: State, cause: Cause, kind: NoticeKind, action: bool) -> None:
    """Each failure and each recovery is one notice that says what happened and what to do; going on as planned is none."""
    plan = replace(History().plan, state=entered)
    (notice,) = notices(plan, (moved(plan, entered, cause),), (), (), NOW)
    assert (notice.kind, notice.action_required, notice.state) == (kind, action, entered)
    assert notice.happened.endswith(".")
    assert notice.to_do.endswith(".")
    assert notices(plan, (moved(plan, State.VALIDATING, Cause.ALL_DONE),), (), (), NOW) == ()


def test_a_plan_that_unwinds_by_itself_needs_nobody_yet() -> None:
    """Where the signers allowed the unwind, the failure asks for no action."""
    plan = replace(History().plan, state=State.UNWIND_PENDING)
    effects = (moved(plan, State.PARTIALLY_EXECUTED, Cause.LEG_REFUSED), moved(plan, State.UNWIND_PENDING, Cause.UNWIND_ORDERED))
    failed, recovering = notices(plan, effects, (), (), NOW)
    assert (failed.action_required, recovering.kind) == (False, NoticeKind.RECOVERY_IN_PROGRESS)


def test_the_same_news_is_the_same_notice() -> None:
    """An id is drawn from what the notice is about: other tickets, transitions and plans have others; another moment has not."""
    plan = History().plan
    filed = FiledTicket("ticket-1", Ticket("LEG_TROUBLE", "cash", "IBAN DE00 of Mallory", NOW), None)
    (raised,) = notices(plan, (), (filed,), (), NOW)
    (again,) = notices(plan, (), (filed,), (), NOW + timedelta(hours=1))
    (closed,) = notices(plan, (), (), (filed,), NOW)
    other = replace(filed, escalation_id="ticket-2")
    ids = {raised.notice_id, again.notice_id, closed.notice_id, notices(plan, (), (other,), (), NOW)[0].notice_id}
    ids |= {taken_over(plan, NOW).notice_id, taken_over(plan, NOW).notice_id, taken_over(History().plan, NOW).notice_id}
    assert len(ids) == 5
    assert raised.notice_id == again.notice_id
    assert (raised.kind, raised.action_required) == (NoticeKind.INTERVENTION_REQUIRED, True)
    assert (closed.kind, closed.action_required) == (NoticeKind.INTERVENTION_RESOLVED, False)
    body = cloud_event(raised, "urn:test", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert b"Mallory" not in body
    event = json.loads(body)
    assert canonical(event) == body
    assert (event["source"], event["traceparent"][:2], event["datacontenttype"]) == ("urn:test", "00", "application/json")
    assert set(event["data"]) >= {"what_happened", "what_to_do", "action_required", "reason", "plan_id"}
