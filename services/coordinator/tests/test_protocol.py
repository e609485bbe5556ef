"""The protocol by itself: whole histories, every arc of the table, and random histories."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from protocol_chance import Anything
from protocol_drive import BRIEF, DEADLINE, EVIDENCE, LEGS, LIMITS, NOW, SETTLING, SOFT, Drive

from coordinator import facts
from coordinator.calls import awaited_gate, next_due
from coordinator.model import (
    Abort,
    Cause,
    CheckFailed,
    ChecksBegun,
    Commit,
    CommitsWithheld,
    Escalate,
    EventType,
    ExecuteAsked,
    GateRecord,
    GateSigned,
    LegNews,
    Moved,
    OperatorsForgot,
    OperatorsRedrove,
    OperatorsSettled,
    Order,
    PersonNeeded,
    Prepare,
    Record,
    Restored,
    State,
    Tick,
)
from coordinator.protocol import TABLE
from lockstep_kit.certificate import DeadlinePassed, Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, LegId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import Journal, Notarisation, Policy
from lockstep_kit.statements import Gate, OutcomeKind, Verdict
from lockstep_testkit.factories import CHAIN, address_of, credit_terms, delivery_versus_payment, leg_of, plan_of, token_terms


def test_happy_path() -> None:
    """A plan with firm promises goes from DRAFT to CLOSED, with one journal event a transition and every command given once."""
    drive = Drive().committed()
    assert drive.ordered(Commit) == ["tokens", "cash", "notarisation"]
    drive.done("notarisation")
    closing = [each.closing for each in drive.effects if isinstance(each, Commit) and each.leg_id == "journal"]
    assert closing[0] is not None
    assert closing[0].journal_sequence == len(drive.records()) + 1
    drive.done("journal")
    assert (drive.plan.state, drive.plan.decision, drive.plan.outcome) == (State.CLOSED, Decision.COMMIT, PlanOutcome.COMMITTED)
    assert drive.ordered(Prepare) == list(LEGS)
    assert drive.ordered(Abort) == []
    moves = [each for each in drive.effects if isinstance(each, Moved)]
    assert [each.transition_no for each in moves] == list(range(1, len(moves) + 1))


def test_dependencies_order_execution() -> None:
    """A leg is commanded only when every leg that it depends on is done."""
    case = plan_of(
        [
            leg_of("tokens", token_terms(), "cash"),
            leg_of("cash", credit_terms()),
            leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))),
            leg_of("journal", Journal()),
        ],
        deadline=DEADLINE,
    )
    drive = Drive(case).executing()
    assert drive.ordered(Commit) == ["cash"]
    drive.done("cash")
    assert drive.ordered(Commit) == ["cash", "tokens"]


def test_the_soft_leg_decides() -> None:
    """With one soft leg the decision is its own: it goes alone, and its Done makes COMMIT."""
    drive = Drive().executing(soft="cash")
    assert (drive.plan.decision, drive.plan.delegate) == (Decision.DELEGATED, "cash")
    commits = [each for each in drive.effects if isinstance(each, Commit)]
    assert [(each.leg_id, each.not_after) for each in commits] == [("cash", DEADLINE)]
    drive.done("cash")
    assert drive.plan.decision is Decision.COMMIT
    assert drive.ordered(Commit) == ["cash", "tokens"]


def test_the_soft_leg_refuses() -> None:
    """After a refusal the delegated leg is told to abort, and only its release makes ABORT; the refusal is the reason."""
    drive = Drive().executing(soft="cash")
    drive.refused("cash")
    assert (drive.plan.state, drive.plan.decision) == (State.EXECUTING, Decision.DELEGATED)
    assert drive.ordered(Abort) == ["cash"]
    told = facts.leg(drive.plan, "cash").outcome
    assert told is not None
    assert told.outcome.refusal is not None
    drive.released("cash")
    assert (drive.plan.state, drive.plan.decision) == (State.ABORTED, Decision.ABORT)
    assert (drive.plan.reason, drive.plan.reason_leg) == (told.outcome.refusal.reason, "cash")
    assert drive.ordered(Abort) == ["cash", "tokens"]
    assert drive.ordered(Commit) == ["cash"]


def test_the_soft_leg_is_silent() -> None:
    """A delegated leg that has not answered by the deadline is told to abort; it may still turn out done, which makes COMMIT."""
    drive = Drive().executing(soft="cash")
    drive.now = DEADLINE
    drive.give(Tick())
    assert drive.ordered(Abort) == []
    drive.now = DEADLINE + timedelta(microseconds=1)
    assert next_due(drive.plan, LIMITS) is not None
    drive.give(Tick())
    aborts = [each for each in drive.effects if isinstance(each, Abort)]
    assert [(each.leg_id, each.authority) for each in aborts] == [("cash", DeadlinePassed())]
    due = next_due(drive.plan, LIMITS)
    assert due is None or due > drive.now, "the same moment must not come due again and again"
    drive.done("cash")
    assert drive.plan.decision is Decision.COMMIT


@pytest.mark.parametrize("leg_id", LEGS)
def test_any_no_aborts(leg_id: str) -> None:
    """One NO, whoever gives it, aborts the plan, releases what others hold, and shows them the signed NO."""
    drive = Drive().ready()
    drive.yes(*(leg for leg in LEGS if leg != leg_id))
    drive.no(leg_id)
    assert (drive.plan.state, drive.plan.decision, drive.plan.cause) == (State.ABORTED, Decision.ABORT, Cause.VOTED_NO)
    assert (drive.plan.reason, drive.plan.reason_leg) == ("BANK_PREPARE_FAILED", leg_id)
    assert set(SETTLING) - {leg_id} == set(drive.ordered(Abort)) & set(SETTLING)
    drive.released(*(leg for leg in SETTLING if leg != leg_id))
    drive.released("notarisation")
    drive.released("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.ABORTED)


@pytest.mark.parametrize("gate", [Gate.APPROVE, Gate.RELEASE])
def test_a_refused_gate_aborts(gate: Gate) -> None:
    """A REJECT before the decision aborts the plan."""
    drive = Drive().ready()
    drive.yes()
    drive.sign(gate, Verdict.REJECT)
    assert (drive.plan.state, drive.plan.cause) == (State.ABORTED, Cause.GATE_REJECTED)


def test_cancel_and_deadline_stop_only_before_the_decision() -> None:
    """A cancellation or the deadline aborts before the decision; after it neither does anything."""
    reaches: tuple[Callable[[], Drive], ...] = (Drive, lambda: Drive().ready(), lambda: Drive().prepared())
    for reach in reaches:
        drive = reach()
        drive.sign(Gate.CANCEL)
        assert drive.plan.cause is Cause.CANCELLED
        drive = reach()
        drive.now = DEADLINE + timedelta(seconds=1)
        drive.give(Tick())
        assert drive.plan.cause is Cause.DEADLINE_PASSED
    for drive in (Drive().executing(), Drive().validating(), Drive().committed()):
        state = drive.plan.state
        drive.sign(Gate.CANCEL)
        drive.now = DEADLINE + timedelta(days=1)
        drive.give(Tick())
        assert (drive.plan.state, drive.plan.decision) == (state, Decision.COMMIT)


def test_late_release_decides_nothing() -> None:
    """A release that arrives after the deadline aborts the plan."""
    drive = Drive().prepared()
    drive.now = DEADLINE + timedelta(microseconds=1)
    drive.sign(Gate.RELEASE)
    assert (drive.plan.state, drive.plan.decision) == (State.ABORTED, Decision.ABORT)


def test_promises_must_outlast_the_deadline() -> None:
    """A promise that ends within the delivery margin, a second soft leg, or a soft leg after a firm one aborts the plan."""
    drive = Drive().ready()
    drive.yes("cash", promise=BRIEF)
    assert drive.plan.reason == "PROMISE_TOO_SHORT"
    drive = Drive().ready()
    drive.yes(*SETTLING, promise=SOFT)
    assert drive.plan.reason == "TWO_SOFT_LEGS"
    pair = leg_of("tokens", token_terms()), leg_of("cash", credit_terms(), "tokens")
    drive = Drive(plan_of([*pair, *(leg for leg in drive.case.legs if not leg.settling)], deadline=DEADLINE)).ready()
    drive.yes("cash", promise=SOFT)
    assert drive.plan.state is State.READY_FOR_PREPARE
    drive.yes("tokens")
    assert (drive.plan.decision, drive.plan.reason) == (Decision.ABORT, "STEP_DEPENDENCY_FAILED")
    risky = Drive(delivery_versus_payment(deadline=DEADLINE, policy=Policy(accept_expiry_risk=True))).ready()
    risky.yes(*SETTLING, promise=SOFT)
    risky.yes(*EVIDENCE)
    risky.sign(Gate.APPROVE)
    risky.sign(Gate.RELEASE)
    assert risky.plan.decision is Decision.COMMIT
    assert risky.ordered(Commit) == list(SETTLING)


def test_a_withdrawn_promise_aborts() -> None:
    """A promise that lapses before the decision aborts the plan."""
    drive = Drive().prepared()
    drive.refused("cash")
    assert drive.plan.cause is Cause.PROMISE_WITHDRAWN
    assert drive.ordered(Abort) == ["tokens"]


def test_a_broken_promise_calls_people() -> None:
    """A refusal after COMMIT leaves the plan PARTIALLY_EXECUTED and calls a person; nothing is aborted by itself."""
    drive = Drive().partial()
    assert "BANK_EXECUTE_FAILED" in drive.tickets()
    assert drive.ordered(Abort) == []
    drive.give(OperatorsRedrove(LegId("cash")))
    assert drive.plan.state is State.PARTIALLY_EXECUTED, "what its participant refused for good is not tried again"
    assert drive.ordered(Commit) == ["tokens", "cash"]
    assert facts.leg(drive.plan, "cash").order is Order.COMMIT


def test_operators_take_their_word_back() -> None:
    """A leg that took no effect by nothing but the operators' word is executed after all when they order it."""
    drive = Drive().executing()
    drive.done("tokens")
    drive.give(drive.answered("cash", executed=False))
    assert (drive.plan.state, drive.tickets()) == (State.PARTIALLY_EXECUTED, ["LEG_REFUSED"])
    drive.give(OperatorsRedrove(LegId("cash")))
    redriven = drive.plan.state
    assert drive.ordered(Commit) == ["tokens", "cash", "cash"]
    assert (redriven, drive.plan.reason) == (State.EXECUTING, "")
    drive.done("cash")
    assert drive.plan.state is State.VALIDATING
    assert drive.tickets() == ["LEG_REFUSED"], "a ticket stays open until operators close it"


def test_evidence_that_was_sent_back_is_validated_anew() -> None:
    """After a retry neither a validator's refusal nor a consent of before counts."""
    drive = Drive().validating()
    drive.sign(Gate.VALIDATE, Verdict.REJECT)
    drive.give(OperatorsRedrove())
    assert (drive.plan.state, awaited_gate(drive.plan, drive.now)) == (State.VALIDATING, Gate.VALIDATE)
    drive.sign(Gate.VALIDATE)
    states = [drive.plan.state]
    drive.news("tokens", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="gone")
    moves = drive.plan.transition_no
    drive.give(OperatorsRedrove())
    assert drive.plan.transition_no == moves
    states.append(drive.plan.state)
    drive.news("tokens", Phase.COMMITTED, kind=OutcomeKind.DONE)
    drive.give(OperatorsRedrove())
    states.append(drive.plan.state)
    # What is contradicted does not go on; the consent of before was about other evidence.
    assert states == [State.COMMITTED, State.PARTIALLY_EXECUTED, State.VALIDATING]


def test_a_participant_denies_what_operators_showed() -> None:
    """A later report against the operators' evidence calls people, whichever way it goes and wherever the plan stands."""
    for executed, news in ((True, "refused"), (False, "done")):
        drive = Drive().executing()
        drive.done("tokens")
        drive.give(drive.answered("cash", executed=executed))
        getattr(drive, news)("cash")
        assert drive.plan.state is State.PARTIALLY_EXECUTED
        assert "RESOLUTION_CONTRADICTED" in drive.tickets()
    drive = Drive().aborted_holding()
    drive.give(drive.answered("tokens", executed=False))
    drive.released("cash", *EVIDENCE)
    assert drive.plan.state is State.CLOSED
    drive.done("tokens")
    assert {"RESOLUTION_CONTRADICTED", "ABORTED_LEG_EXECUTED"} <= set(drive.tickets())


def test_what_comes_after_the_end_calls_people_once() -> None:
    """A contradiction after CLOSED opens a ticket, changes nothing else, and is not raised again once operators closed it."""
    drive = Drive().committed()
    drive.done(*EVIDENCE)
    drive.news("cash", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="returned")
    (ticket,) = drive.plan.tickets
    assert (drive.plan.state, ticket.reason, ticket.detail) == (State.CLOSED, "LEG_TROUBLE", "returned")
    drive.give(OperatorsForgot(ticket))
    assert drive.plan.tickets == ()
    drive.give(Tick())
    assert drive.plan.tickets == ()
    drive.news("cash", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="returned once more")
    assert drive.tickets() == ["LEG_TROUBLE", "LEG_TROUBLE"]


def test_operators_evidence_is_the_answer() -> None:
    """Where a participant cannot tell, two operators' evidence counts as its answer."""
    drive = Drive().executing()
    drive.done("tokens")
    drive.give(drive.answered("cash", executed=True))
    assert drive.plan.state is State.VALIDATING


def test_operators_evidence_replaces_no_answer() -> None:
    """What a participant has answered is not answered by operators."""
    drive = Drive().partial()
    assert drive.give(drive.answered("cash", executed=True)) == ()
    assert facts.leg(drive.plan, "cash").operators_evidence is None


def test_operators_unwind() -> None:
    """Two operators can have the executed legs reversed; then the plan is ABORTED, and closes as REVERSED."""
    drive = Drive().partial()
    drive.give(drive.unwound())
    assert drive.plan.state is State.UNWIND_PENDING
    drive.undone("tokens")
    assert (drive.plan.state, drive.plan.decision) == (State.ABORTED, Decision.COMMIT)
    drive.released("notarisation")
    drive.released("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.REVERSED)


def test_what_is_settled_outside_waits_for_no_release() -> None:
    """A plan whose release nobody answers ends as MIXED once operators settled it outside; the release is still asked for."""
    drive = Drive().aborted_holding()
    drive.give(OperatorsSettled("given back by hand"))
    drive.released("notarisation")
    drive.released("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.MIXED)
    assert [each.leg_id for each in facts.unknown_legs(drive.plan)] == ["tokens", "cash"]
    drive.now += timedelta(hours=1)
    drive.give(Tick())
    assert drive.tickets() == [], "what was settled outside needs no answer"


def test_operators_settle_outside() -> None:
    """What was settled outside closes as MIXED, for ever."""
    drive = Drive().partial()
    drive.give(OperatorsSettled("paid by hand"))
    drive.done("notarisation")
    drive.done("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.MIXED)


def test_nothing_is_settled_outside_beside_a_hold() -> None:
    """Operators have what is held let go before they say that a plan was settled outside: afterwards nobody would let it go."""
    drive = Drive().executing()
    drive.refused("cash")
    drive.give(CommitsWithheld((LegId("tokens"),)))
    held = drive.plan
    drive.give(OperatorsSettled("delivered by hand"))
    assert drive.plan == held
    drive.give(drive.unwound())
    drive.released("tokens")
    assert (drive.plan.state, drive.plan.decision) == (State.ABORTED, Decision.COMMIT)


def test_commits_never_sent_are_withheld() -> None:
    """A Commit that was stopped before it was sent leaves its leg as it was, and is ordered again when the plan goes on."""
    drive = Drive().executing()
    drive.refused("cash")
    drive.give(CommitsWithheld((LegId("tokens"),)))
    assert facts.leg(drive.plan, "tokens").order is Order.PREPARE
    assert not facts.unknown_legs(drive.plan)
    drive.give(drive.unwound())
    assert drive.ordered(Abort) == ["tokens"]


def test_contradictions_call_people() -> None:
    """Evidence that contradicts moves a plan to PARTIALLY_EXECUTED, wherever it stands before the seal."""
    for drive in (Drive().executing(), Drive().validating(), Drive().committed()):
        if drive.plan.state is State.EXECUTING:
            drive.done("tokens")
        drive.news("tokens", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="the block is no more")
        assert drive.plan.state is State.PARTIALLY_EXECUTED
        assert "EVIDENCE_CONTRADICTED" in drive.tickets()


def test_a_leg_of_an_aborted_plan_is_found_executed() -> None:
    """It is PARTIALLY_EXECUTED with the decision ABORT, and never COMMITTED."""
    drive = Drive().aborted_holding()
    drive.done("tokens")
    assert (drive.plan.state, drive.plan.decision) == (State.PARTIALLY_EXECUTED, Decision.ABORT)


def test_overdue_answers_call_once() -> None:
    """What takes too long opens one ticket, and changes neither state nor decision."""
    drive = Drive().executing()
    drive.now = NOW + LIMITS.unknown_max + timedelta(seconds=1)
    drive.give(Tick())
    drive.give(Tick())
    assert drive.tickets() == ["UNKNOWN_TOO_OLD", "UNKNOWN_TOO_OLD"]
    assert (drive.plan.state, drive.plan.decision) == (State.EXECUTING, Decision.COMMIT)
    drive = Drive().validating()
    drive.now = NOW + LIMITS.validate_max + timedelta(seconds=1)
    drive.give(Tick())
    assert drive.tickets() == ["VALIDATION_OVERDUE"]
    assert awaited_gate(drive.plan, drive.now) is Gate.VALIDATE
    drive = Drive().committed()
    drive.now = NOW + LIMITS.evidence_max + timedelta(seconds=1)
    drive.give(Tick())
    assert drive.tickets() == ["EVIDENCE_LEG_OVERDUE"]


def test_a_person_is_called_once_for_the_same() -> None:
    """A call repeats no ticket that is open, and is one event of the journal."""
    drive = Drive().ready()
    needed = PersonNeeded("PARTICIPANT_SIGNATURE", "cash", "not signed")
    assert [type(each) for each in drive.give(needed)] == [Record, Escalate]
    assert drive.give(needed) == ()


def test_old_news_is_no_news() -> None:
    """A report with a revision that is not higher changes nothing."""
    drive = Drive().prepared()
    leg = facts.leg(drive.plan, "cash")
    assert drive.give(LegNews(leg.leg_id, Phase.REFUSED, leg.revision, leg.vote, leg.outcome)) == ()


def test_an_expired_approval_can_be_given_again() -> None:
    """The last signature of a gate is the one that counts."""
    drive = Drive().prepared()
    again = GateRecord(drive.case.gate(Gate.APPROVE, "frank"), ActorId("frank"), drive.now)
    drive.give(GateSigned(again))
    assert facts.gate(drive.plan, Gate.APPROVE) == again


# -- Every arc, and random histories ------------------------------------------------------------------------------------


def stops() -> Iterator[Drive]:
    """Every cause that stops a plan, in every state before the decision."""

    def at(state: State) -> Drive:
        drive = Drive()
        if state is State.INITIATED:
            drive.give(ExecuteAsked())
        elif state is State.PRECONDITIONS_PENDING:
            drive.give(ExecuteAsked())
            drive.give(ChecksBegun())
        elif state is State.READY_FOR_PREPARE:
            drive.ready()
        elif state is State.PREPARED:
            drive.prepared()
        assert drive.plan.state is state
        return drive

    for state in facts.UNDECIDED:
        drive = at(state)
        drive.give(CheckFailed("COMPLIANCE_FAILED", "", ""))
        yield drive
        drive = at(state)
        drive.no("cash")
        yield drive
        drive = at(state)
        drive.sign(Gate.APPROVE, Verdict.REJECT)
        yield drive
        drive = at(state)
        drive.released("cash")
        yield drive
        drive = at(state)
        drive.sign(Gate.CANCEL)
        yield drive
        drive = at(state)
        drive.give(Restored())
        yield drive
        drive = at(state)
        drive.now = DEADLINE + timedelta(seconds=1)
        drive.give(Tick())
        yield drive


def unwinding(decision: Decision) -> Drive:
    """A plan whose executed leg is being reversed."""
    if decision is Decision.COMMIT:
        drive = Drive().partial()
    else:
        drive = Drive().aborted_holding()
        drive.done("tokens")
        drive.released("cash")
    drive.give(drive.unwound())
    assert (drive.plan.state, drive.plan.decision) == (State.UNWIND_PENDING, decision)
    return drive


def histories() -> Iterator[Drive]:
    """Histories that together take every arc."""
    yield from stops()
    drive = Drive().committed()
    drive.done(*EVIDENCE)
    yield drive
    drive = Drive().committed()
    drive.news("tokens", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="gone")
    yield drive
    for answer in (drive.done, drive.released):
        drive = Drive().executing(soft="cash")
        getattr(drive, answer.__name__)("cash")
        yield drive
    drive = Drive().executing()
    drive.done("tokens")
    drive.news("tokens", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="gone")
    yield drive
    drive = Drive().validating()
    drive.sign(Gate.VALIDATE, Verdict.REJECT)
    yield drive
    drive = Drive().validating()
    drive.news("tokens", Phase.COMMITTED, kind=OutcomeKind.DONE, trouble="gone")
    yield drive
    drive = Drive().executing()
    drive.give(drive.answered("cash", executed=False))
    drive.give(OperatorsRedrove(LegId("cash")))
    yield drive
    for decision in (Decision.COMMIT, Decision.ABORT):
        drive = unwinding(decision)
        drive.stays("tokens")
        yield drive
        drive.give(OperatorsSettled("by hand"))
        evidence = drive.done if decision is Decision.COMMIT else drive.released
        evidence(*EVIDENCE)
        yield drive
        drive = unwinding(decision)
        drive.undone("tokens")
        drive.released(*EVIDENCE)
        yield drive
        drive = unwinding(decision)
        drive.undone("tokens")
        drive.give(OperatorsSettled("by hand"))
        drive.released(*EVIDENCE)
        yield drive
        drive = unwinding(decision)
        drive.undone("tokens")
        drive.done("cash")
        yield drive


def test_every_arc_is_taken() -> None:
    """Every arc of the table can be reached, and nothing is reached that is not in it."""
    taken = {arc for drive in histories() for arc in drive.arcs}
    assert taken == set(TABLE)


def test_aborting_and_committing_never_meet() -> None:
    """In the table itself: from ABORT nothing leads to EXECUTING, VALIDATING or COMMITTED, and COMMIT never becomes ABORT."""
    forward: dict[tuple[State, Decision | None], set[tuple[State, Decision | None]]] = {}
    for (state, decision, _), arc in TABLE.items():
        forward.setdefault((state, decision), set()).add((arc.state, arc.decision))
    for start in list(forward):
        seen, waiting = {start}, [start]
        while waiting:
            for after in forward.get(waiting.pop(), set()) - seen:
                seen.add(after)
                waiting.append(after)
        states = {state for state, _ in seen}
        if start[1] is Decision.ABORT:
            assert not states & {State.EXECUTING, State.VALIDATING, State.COMMITTED, State.PREPARED}
            assert {decision for _, decision in seen} == {Decision.ABORT}
        if start[1] is Decision.COMMIT:
            assert {decision for _, decision in seen} == {Decision.COMMIT}
            assert not states & set(facts.UNDECIDED)


def test_random_histories() -> None:
    """Whatever comes in whatever order: the step's own checks hold, ABORT never executes, COMMIT never releases but to unwind."""
    anything = Anything()
    ended, states = 0, set()
    for seed in range(1_500):
        rng = random.Random(seed)
        drive = Drive(anything.case)
        for _ in range(rng.randrange(10, 60)):
            before = drive.plan
            effects = drive.give(anything.event(rng, drive))
            for effect in effects:
                if isinstance(effect, Commit) and effect.leg_id in SETTLING:
                    assert drive.plan.decision in (Decision.COMMIT, Decision.DELEGATED)
                    assert drive.plan.decision is Decision.COMMIT or effect.leg_id == drive.plan.delegate
                if isinstance(effect, Abort) and effect.leg_id in SETTLING:
                    unwinds = State.UNWIND_PENDING in (before.state, drive.plan.state)
                    reversed_ = drive.plan.state is State.ABORTED and drive.plan.decision is Decision.COMMIT
                    assert drive.plan.decision in (Decision.ABORT, Decision.DELEGATED) or unwinds or reversed_
            if drive.plan.decision is Decision.ABORT:
                assert drive.plan.state in (State.ABORTED, State.PARTIALLY_EXECUTED, State.UNWIND_PENDING, State.CLOSED)
        recorded = [each.sequence for each in drive.effects if isinstance(each, Record)]
        assert recorded == list(range(1, len(recorded) + 1))
        assert EventType.PLAN_CLOSED.value not in drive.records()
        ended += drive.plan.state is State.CLOSED
        states.add(drive.plan.state)
    assert ended > 0
    assert states >= {State.CLOSED, State.ABORTED, State.PARTIALLY_EXECUTED, State.READY_FOR_PREPARE}
