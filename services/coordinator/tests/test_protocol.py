"""The protocol by itself: whole histories, every arc of the table, and random histories."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from coordinator import facts
from coordinator.calls import awaited_gate, next_due
from coordinator.dossier import new_plan
from coordinator.model import (
    Abort,
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
    LegReversed,
    Limits,
    Moved,
    OperatorsAnswered,
    OperatorsEvidence,
    OperatorsRedrove,
    OperatorsSettled,
    OperatorsUnwound,
    Order,
    PersonNeeded,
    Prepare,
    Record,
    State,
    Tick,
)
from coordinator.protocol import TABLE, step
from lockstep_kit.certificate import DeadlinePassed, Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, LegId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import Policy
from lockstep_kit.statements import Gate, OutcomeKind, Promise, PromiseKind, Refusal, Verdict
from lockstep_testkit.factories import SIGNERS, PlanCase, delivery_versus_payment, evidence_of

NOW = datetime.now(UTC)
DEADLINE = NOW + timedelta(hours=1)
LIMITS = Limits()
SETTLING, EVIDENCE = ("tokens", "cash"), ("notarisation", "journal")
LEGS = (*SETTLING, *EVIDENCE)
SOFT = Promise(PromiseKind.GUARANTEED, DEADLINE + timedelta(hours=1))
BRIEF = Promise(PromiseKind.GUARANTEED, DEADLINE + timedelta(minutes=1))
NO = Refusal("BANK_PREPARE_FAILED", "AM04", "not enough money")


class Drive:
    """One plan's history."""

    def __init__(self, case: PlanCase | None = None) -> None:
        self.case = case or delivery_versus_payment(deadline=DEADLINE)
        self.plan = new_plan(self.case.header, self.case.legs)
        self.now = NOW
        self.effects: list[Effect] = []
        self.arcs: list[tuple[State, Decision | None, Cause]] = []
        self.give(Created(self.record(Gate.MAKE)))

    def record(self, gate: Gate, verdict: Verdict = Verdict.APPROVE, who: str = "") -> GateRecord:
        return GateRecord(self.case.gate(gate, who or None, verdict=verdict), ActorId(who or SIGNERS[gate]), self.now)

    def give(self, event: Event) -> tuple[Effect, ...]:
        decision = self.plan.decision
        stepped = step(self.plan, event, self.now, LIMITS)
        self.plan = stepped.plan
        self.effects.extend(stepped.effects)
        for each in stepped.effects:
            if isinstance(each, Moved) and each.left is not None:
                self.arcs.append((each.left, decision, each.cause))
                decision = each.decision
        return stepped.effects

    def news(
        self, leg_id: str, phase: Phase, answer: Promise | Refusal | None = None, kind: OutcomeKind | None = None, trouble: str = ""
    ) -> tuple[Effect, ...]:
        leg = facts.leg(self.plan, leg_id)
        vote = self.case.vote(leg_id, answer) if answer is not None else leg.vote
        outcome = self.case.outcome(leg_id, kind) if kind is not None else leg.outcome
        return self.give(LegNews(LegId(leg_id), phase, leg.revision + 1, vote, outcome, trouble))

    def yes(self, *legs: str, promise: Promise | None = None) -> None:
        for leg_id in legs or LEGS:
            self.news(leg_id, Phase.PREPARED, promise or Promise(PromiseKind.GUARANTEED, None))

    def no(self, leg_id: str) -> None:
        self.news(leg_id, Phase.REFUSED, NO)

    def done(self, *legs: str) -> None:
        for leg_id in legs:
            self.news(leg_id, Phase.COMMITTED, kind=OutcomeKind.DONE)

    def refused(self, leg_id: str) -> None:
        self.news(leg_id, Phase.REFUSED, kind=OutcomeKind.REFUSED)

    def released(self, *legs: str) -> None:
        for leg_id in legs:
            self.news(leg_id, Phase.RELEASED, kind=OutcomeKind.RELEASED)

    def sign(self, gate: Gate, verdict: Verdict = Verdict.APPROVE) -> None:
        self.give(GateSigned(self.record(gate, verdict)))

    # -- Histories ---------------------------------------------------------------------------------------------------

    def ready(self) -> Drive:
        for event in (ExecuteAsked(), ChecksBegun(), ChecksPassed()):
            self.give(event)
        assert self.plan.state is State.READY_FOR_PREPARE
        return self

    def prepared(self, *, soft: str = "") -> Drive:
        self.ready()
        self.yes(*(leg for leg in LEGS if leg != soft))
        if soft:
            self.yes(soft, promise=SOFT)
        self.sign(Gate.APPROVE)
        assert self.plan.state is State.PREPARED
        return self

    def executing(self, *, soft: str = "") -> Drive:
        self.prepared(soft=soft)
        self.sign(Gate.RELEASE)
        assert self.plan.state is State.EXECUTING
        return self

    def validating(self) -> Drive:
        self.executing()
        self.done(*SETTLING)
        assert self.plan.state is State.VALIDATING
        return self

    def committed(self) -> Drive:
        self.validating()
        self.sign(Gate.VALIDATE)
        assert self.plan.state is State.COMMITTED
        return self

    def partial(self) -> Drive:
        self.executing()
        self.done("tokens")
        self.refused("cash")
        assert self.plan.state is State.PARTIALLY_EXECUTED
        return self

    def aborted_holding(self) -> Drive:
        self.prepared()
        self.sign(Gate.CANCEL)
        assert self.plan.state is State.ABORTED
        return self

    def ordered(self, kind: type[Prepare | Commit | Abort]) -> list[str]:
        return [each.leg_id for each in self.effects if isinstance(each, kind)]

    def records(self) -> list[str]:
        return [each.type.value for each in self.effects if isinstance(each, Record)]

    def tickets(self) -> list[str]:
        return [each.ticket.reason for each in self.effects if isinstance(each, Escalate)]


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
    from lockstep_kit.plan import Journal, Notarisation
    from lockstep_testkit.factories import CHAIN, address_of, credit_terms, leg_of, plan_of, token_terms

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
    """After a refusal the delegated leg is told to abort, and only its release makes ABORT."""
    drive = Drive().executing(soft="cash")
    drive.refused("cash")
    assert (drive.plan.state, drive.plan.decision) == (State.EXECUTING, Decision.DELEGATED)
    assert drive.ordered(Abort) == ["cash"]
    drive.released("cash")
    assert (drive.plan.state, drive.plan.decision) == (State.ABORTED, Decision.ABORT)
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
    """A promise that ends within the delivery margin, or a second soft leg, aborts the plan."""
    drive = Drive().ready()
    drive.yes("cash", promise=BRIEF)
    assert drive.plan.reason == "PROMISE_TOO_SHORT"
    drive = Drive().ready()
    drive.yes(*SETTLING, promise=SOFT)
    assert drive.plan.reason == "TWO_SOFT_LEGS"
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
    redriven = drive.plan.state
    assert drive.ordered(Commit) == ["tokens", "cash", "cash"]
    drive.done("cash")
    assert (redriven, drive.plan.state) == (State.EXECUTING, State.VALIDATING)


def test_operators_evidence_is_the_answer() -> None:
    """Where a participant cannot tell, two operators' evidence counts as its answer."""
    drive = Drive().partial()
    shown = evidence_of(drive.case.leg("cash"))
    drive.give(OperatorsAnswered(LegId("cash"), OperatorsEvidence(executed=True, evidence=shown)))
    assert drive.plan.state is State.VALIDATING


def test_operators_unwind() -> None:
    """Two operators can have the executed legs reversed; then the plan is ABORTED, and closes as REVERSED."""
    drive = Drive().partial()
    drive.give(OperatorsUnwound())
    assert drive.plan.state is State.UNWIND_PENDING
    drive.give(LegReversed(LegId("tokens"), done=True))
    assert (drive.plan.state, drive.plan.decision) == (State.ABORTED, Decision.COMMIT)
    drive.released("notarisation")
    drive.released("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.REVERSED)


def test_operators_settle_outside() -> None:
    """What was settled outside closes as MIXED, for ever."""
    drive = Drive().partial()
    drive.give(OperatorsSettled("paid by hand"))
    drive.done("notarisation")
    drive.done("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.MIXED)


def test_commits_never_sent_are_withheld() -> None:
    """A Commit that was stopped before it was sent leaves its leg as it was, and is ordered again when the plan goes on."""
    drive = Drive().executing()
    drive.refused("cash")
    drive.give(CommitsWithheld((LegId("tokens"),)))
    assert facts.leg(drive.plan, "tokens").order is Order.PREPARE
    assert not facts.unknown_legs(drive.plan)
    drive.give(OperatorsRedrove(LegId("cash")))
    assert drive.ordered(Commit)[-2:] == ["tokens", "cash"]


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
    assert awaited_gate(drive.plan) is Gate.VALIDATE
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
    drive.give(OperatorsUnwound())
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
    drive = Drive().partial()
    drive.give(OperatorsRedrove(LegId("cash")))
    yield drive
    for decision in (Decision.COMMIT, Decision.ABORT):
        drive = unwinding(decision)
        drive.give(LegReversed(LegId("tokens"), done=False))
        yield drive
        drive.give(OperatorsSettled("by hand"))
        evidence = drive.done if decision is Decision.COMMIT else drive.released
        evidence(*EVIDENCE)
        yield drive
        drive = unwinding(decision)
        drive.give(LegReversed(LegId("tokens"), done=True))
        drive.released(*EVIDENCE)
        yield drive
        drive = unwinding(decision)
        drive.give(LegReversed(LegId("tokens"), done=True))
        drive.give(OperatorsSettled("by hand"))
        drive.released(*EVIDENCE)
        yield drive
        drive = unwinding(decision)
        drive.give(LegReversed(LegId("tokens"), done=True))
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


class Anything:
    """Random events about one plan; signed statements are made once."""

    def __init__(self) -> None:
        self.case = delivery_versus_payment(deadline=DEADLINE)
        self.votes = {leg: [self.case.vote(leg), self.case.vote(leg, SOFT), self.case.vote(leg, NO)] for leg in LEGS}
        self.outcomes = {leg: {kind: self.case.outcome(leg, kind) for kind in OutcomeKind} for leg in LEGS}
        self.gates = [
            GateRecord(self.case.gate(gate, verdict=verdict), ActorId(SIGNERS[gate]), NOW)
            for gate in Gate
            for verdict in Verdict
            if gate is not Gate.MAKE and not (gate is Gate.CANCEL and verdict is Verdict.REJECT)
        ]
        self.evidence = {leg: evidence_of(self.case.leg(leg)) for leg in LEGS}

    def event(self, rng: random.Random, drive: Drive) -> Event:
        leg_id = LegId(rng.choice(LEGS))
        kind = rng.randrange(20)
        if kind < 11:
            return self.news(rng, drive, leg_id)
        if kind < 14:
            return GateSigned(rng.choice(self.gates[: 1 if rng.random() < 0.3 else None]))
        if kind < 17:
            asked: list[Event] = [ExecuteAsked(), ChecksBegun(), ChecksPassed()]
            return rng.choice(asked)
        if kind == 17:
            drive.now += timedelta(seconds=rng.choice([1, 400, 2_000]))
            return Tick()
        settling = LegId(rng.choice(SETTLING))
        told: list[Event] = [
            OperatorsRedrove(settling),
            OperatorsUnwound(),
            OperatorsSettled("by hand"),
            OperatorsAnswered(settling, OperatorsEvidence(rng.random() < 0.5, self.evidence[settling])),
            LegReversed(settling, rng.random() < 0.7),
            PersonNeeded("PARTICIPANT_SIGNATURE", settling, ""),
        ]
        return rng.choice(told)

    def news(self, rng: random.Random, drive: Drive, leg_id: LegId) -> Event:
        """What a participant may say: its vote never changes, and a phase comes with what bears it out."""
        leg = facts.leg(drive.plan, leg_id)
        phase = rng.choice([Phase.PREPARED] * 4 + list(Phase))
        no = self.votes[leg_id][2]
        vote = leg.vote
        if vote is None and phase in (Phase.PREPARED, Phase.COMMITTING, Phase.COMMITTED):
            vote = self.votes[leg_id][rng.random() < 0.2]
        elif vote is None and phase is Phase.REFUSED:
            vote = no
        outcome = {
            Phase.COMMITTED: self.outcomes[leg_id][OutcomeKind.DONE],
            Phase.RELEASED: self.outcomes[leg_id][OutcomeKind.RELEASED],
            Phase.REFUSED: None if vote is no else self.outcomes[leg_id][OutcomeKind.REFUSED],
        }.get(phase)
        trouble = "it contradicts" if rng.random() < 0.05 else ""
        return LegNews(leg_id, phase, leg.revision + 1, vote, outcome, trouble)


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
