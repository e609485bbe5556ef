"""What must hold: of every answer of production's functions (edges), and of every state. Each rule has the name that a counterexample is reported under.

The rules are written from the design, not from the code: none of them asks the coordinator's own `facts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from coordinator.model import (
    Abort,
    Cause,
    Commit,
    CommitsWithheld,
    Escalate,
    LegNews,
    LegState,
    Moved,
    Order,
    Plan,
    Record,
    State,
)
from lockstep_kit.certificate import DeadlinePassed, Decision
from lockstep_kit.fence import Action, Command, Phase, Rejected
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.participant.records import AbortOrder, CommitOrder, LegRecord, PrepareOrder, ReverseOrder
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import OutcomeKind, Refusal, SignedOutcome, SignedVote
from model.world import CLOCKS, Outside, Site

if TYPE_CHECKING:
    from model.production import Edge, Message, Stack, Taken

#: States in which what took effect is being, or was, undone.
_UNDOING: Final = (State.UNWIND_PENDING, State.ABORTED, State.CLOSED)
_UNDECIDED: Final = (State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING, State.READY_FOR_PREPARE, State.PREPARED)


class Violation(NamedTuple):
    """A rule that does not hold."""

    #: Name of the rule.
    rule: str
    #: Where, in words.
    detail: str


class Broken(Exception):
    """A rule does not hold."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.violation = Violation(rule, detail)


def need(holds: bool, rule: str, detail: str = "") -> None:
    """A rule.

    Raises:
        Broken: it does not hold.
    """
    if not holds:
        raise Broken(rule, detail)


class Judge:
    """Judges production's answers as they come, and remembers which rows of its tables were used."""

    def __init__(self, stack: Stack, *, hostile: bool) -> None:
        """`hostile`: somebody else gives orders in the coordinator's name, so that only what participants do can be judged."""
        self._stack = stack
        self._hostile = hostile
        #: (state, decision, cause) of every transition taken.
        self.arcs: set[tuple[State, Decision | None, Cause]] = set()
        #: (phase, command) of every message taken, and (phase, phase) of every finding.
        self.commands: set[tuple[Phase | None, Command]] = set()
        self.findings: set[tuple[Phase, Phase]] = set()

    # -- The coordinator's steps -------------------------------------------------------------------------------------

    def edge(self) -> None:
        """The last step of the protocol."""
        edge = self._stack.edges.pop()
        decision = edge.before.decision
        for move in edge.effects:
            if isinstance(move, Moved) and move.left is not None:
                self.arcs.add((move.left, decision, move.cause))
                decision = move.decision
        if self._hostile:
            return
        _decided_once(edge)
        _orders(edge)
        _numbers(edge)
        _causes(edge)
        _evidence_legs(edge)
        _news(edge)
        _closed(edge)

    # -- A participant's answers -------------------------------------------------------------------------------------

    def taken(self, place: int, before: Site, message: Message, taken: Taken, after: Site, clock: int) -> None:
        """A participant took a message."""
        item, old, new = message.item, before.record, after.record
        phase = None if old is None else old.fence.phase
        self.commands.add((phase, item.command))
        if old is not None and item.epoch < old.fence.epoch:
            need(taken.action is Action.REJECT and old == new, "I7 a stale epoch is refused", f"{item.command} in {phase}")
        known = new is not None and new.fence.phase is not None
        if known and taken.reason != Rejected.EPOCH_STALE and taken.action is not None:
            need(new is not None and new.fence.epoch >= item.epoch, "I7 a newer epoch is kept", f"{item.command} in {phase}")
        if taken.action is not Action.BEGIN:
            need(_fixed(old) == _fixed(new), "a replay or rejection changes nothing", f"{item.command} in {phase}")
            _allowed_refusal(item.command, phase, taken, clock)
            return
        began = _begun(self._stack, before, after)
        need(began.working, "a command begins work, never an answer", f"{item.command} in {phase} enters {began}")
        given_up = any(self._phase(each) in (Phase.ABORTING, Phase.RELEASED) for each in before.reports)
        late = began in (Phase.PREPARING, Phase.COMMITTING) and given_up
        need(not late, "a tombstone bars what comes late", f"{item.command} in {phase} enters {began}")
        if isinstance(item.order, AbortOrder) and isinstance(item.order.authority, DeadlinePassed):
            need(clock == 1, "an abort has an authority", f"{phase} is released before the deadline")
        if isinstance(item.order, PrepareOrder):
            need(CLOCKS[clock] <= item.order.prepare_by, "Prepare never begins after prepare_by", str(began))
        if isinstance(item.order, CommitOrder) and item.order.not_after is not None:
            need(CLOCKS[clock] <= item.order.not_after, "a delegated leg never begins after not_after", str(began))
        if old is not None and old.vote is not None:
            need(new is not None and new.vote == old.vote, "a vote is given once", f"{item.command} in {phase}")
        decided = old is not None and phase is Phase.COMMITTING and old.fence.decision is Decision.COMMIT
        need(not (decided and began is Phase.ABORTING), "after COMMIT a participant never aborts", f"{phase}")
        if isinstance(item.order, ReverseOrder) and old is not None:
            need(item.order.digest not in old.fence.reversals, "an order to reverse is obeyed once", f"{phase}")
        if began is Phase.REVERSING:
            need(phase is Phase.COMMITTED, "only what is executed is reversed", f"{phase}")
        if began is Phase.COMMITTING:
            asked = old is None or phase in (None, Phase.PREPARED)
            need(asked, "only what is promised is executed", f"{item.command} in {phase}")

    def _phase(self, report: int) -> Phase:
        return self._stack.reports[report][1].phase

    def finding(self, place: int, before: Site, after: Site) -> None:
        """A participant found something out, or the outside world moved."""
        old, new = before.record, after.record
        if old is None or new is None or old.fence.phase is None or new.fence.phase is None or old == new:
            return
        self.findings.add((old.fence.phase, new.fence.phase))
        if old.vote is not None:
            need(new.vote == old.vote, "a vote is given once", f"in {old.fence.phase}")
        if new.fence.phase in _TRUE_OF and old.fence.phase is not new.fence.phase and not new.trouble:
            need(
                after.outside in _TRUE_OF[new.fence.phase],
                "I8 what is signed is true outside",
                f"{new.fence.phase} while {after.outside}",
            )


#: (phase) -> what is true outside when a participant signs that it entered it.
_TRUE_OF: Final = {
    Phase.COMMITTED: (Outside.EXECUTED,),
    Phase.RELEASED: (Outside.RELEASED, Outside.GONE),
    Phase.REVERSED: (Outside.REVERSED,),
}


def _fixed(record: LegRecord | None) -> object:
    """A row but for its epoch."""
    if record is None or record.fence.phase is None:
        return None
    row = record.fence
    return row.phase, row.digest, row.decision, row.revision, record.vote, record.outcome, record.trouble, record.key


def _begun(stack: Stack, before: Site, after: Site) -> Phase:
    """The first phase entered."""
    fresh = after.reports[len(before.reports) :]
    if fresh:
        return stack.reports[fresh[0]][1].phase
    if after.record is None or after.record.fence.phase is None:
        raise AssertionError("something was begun that left no row")
    return after.record.fence.phase


def _allowed_refusal(command: Command, phase: Phase | None, taken: Taken, clock: int) -> None:
    """What a correct coordinator sends is never refused for what it shows; only time and order of arrival may be against it."""
    if taken.action is not None:
        return
    early = taken.reason == "ABORT_DEADLINE" and clock == 0
    need(early, "what the coordinator sends is authorised", f"{command} in {phase}: {taken.reason}")


# -- The coordinator's steps -----------------------------------------------------------------------------------------


def _moves(edge: Edge) -> list[Moved]:
    return [each for each in edge.effects if isinstance(each, Moved)]


def _decided_once(edge: Edge) -> None:
    decision = edge.before.decision
    for move in _moves(edge):
        if move.decision is decision:
            continue
        allowed = decision is None or (decision is Decision.DELEGATED and move.decision is not None)
        need(allowed, "a decision is written once", f"{decision} becomes {move.decision} by {move.cause}")
        decision = move.decision
    need(edge.after.decision is decision, "a decision is written once", f"{decision} became {edge.after.decision} by no transition")


def _leg(plan: Plan, leg_id: str) -> LegState:
    return next(each for each in plan.legs if each.leg_id == leg_id)


def _signed(leg: LegState, *kinds: OutcomeKind) -> bool:
    return leg.outcome is not None and leg.outcome.outcome.kind in kinds


def _done(leg: LegState) -> bool:
    """Whether the participant signed, or operators did, that the leg took effect."""
    if leg.operators_evidence is not None and leg.operators_evidence.executed:
        return True
    return leg.phase in (Phase.COMMITTED, Phase.REVERSING) and _signed(leg, OutcomeKind.DONE)


def _orders(edge: Edge) -> None:
    plan = edge.after
    for effect in edge.effects:
        if isinstance(effect, Commit):
            _commit(plan, effect)
        elif isinstance(effect, Abort):
            _abort(plan, effect)


def _commit(plan: Plan, effect: Commit) -> None:
    leg = _leg(plan, effect.leg_id)
    if not leg.kind.settling:
        over = plan.state in (State.COMMITTED, State.PARTIALLY_EXECUTED) and plan.decision is Decision.COMMIT
        need(over, "evidence legs are told when the plan is over", f"{leg.leg_id} in {plan.state}")
        _nothing_held(plan)
        _last(plan, leg, Phase.COMMITTED)
        return
    decided = plan.decision is Decision.COMMIT or (plan.decision is Decision.DELEGATED and plan.delegate == leg.leg_id)
    need(decided, "I1 nothing is committed before the decision", f"{leg.leg_id} under {plan.decision}")
    need(plan.state is State.EXECUTING, "nothing new is committed once a plan is stuck", f"{leg.leg_id} in {plan.state}")
    ready = all(_done(_leg(plan, each)) for each in leg.depends_on)
    need(ready, "a leg waits for its predecessors", leg.leg_id)
    promised = all(each.vote is not None and each.vote.vote.promise is not None for each in plan.legs)
    need(promised, "I1 nothing is committed without every YES", leg.leg_id)
    soft = [each for each in plan.legs if each.kind.settling and each.promise is not None and each.promise.soft]
    if len(soft) == 1 and leg is not soft[0]:
        need(_done(soft[0]), "a soft leg goes alone and first", leg.leg_id)
    if leg.kind is LegKind.ISSUE_INSTRUMENT:
        others = [each for each in plan.legs if each.kind.settling and each is not leg]
        need(all(_done(each) for each in others), "an irrevocable leg goes last", leg.leg_id)
    if len(soft) > 1:
        need(plan.policy.accept_expiry_risk, "at most one soft leg unless the plan accepts the risk", leg.leg_id)
    if plan.decision is Decision.DELEGATED:
        need(effect.not_after == plan.deadline, "a delegated Commit says until when it may begin", leg.leg_id)


def _abort(plan: Plan, effect: Abort) -> None:
    leg = _leg(plan, effect.leg_id)
    if not leg.kind.settling:
        need(plan.state is not State.COMMITTED, "evidence legs are told as the plan ended", f"{leg.leg_id} in {plan.state}")
        _nothing_held(plan)
        _last(plan, leg, Phase.RELEASED)
        return
    delegate = plan.decision is Decision.DELEGATED and plan.delegate == leg.leg_id
    allowed = plan.decision is Decision.ABORT or delegate or plan.state in _UNDOING
    need(allowed, "I1 nothing is released after COMMIT", f"{leg.leg_id} in {plan.state} under {plan.decision}")
    if delegate and isinstance(effect.authority, DeadlinePassed):
        need(leg.phase is not Phase.REFUSED, "the delegated leg's refusal is the authority", leg.leg_id)
    if isinstance(effect.authority, SignedVote):
        need(isinstance(effect.authority.vote.answer, Refusal), "an abort has an authority", leg.leg_id)
    if isinstance(effect.authority, SignedOutcome):
        kinds = (OutcomeKind.REFUSED, OutcomeKind.RELEASED, OutcomeKind.REVERSED)
        need(effect.authority.outcome.kind in kinds, "an abort has an authority", leg.leg_id)


def _nothing_held(plan: Plan) -> None:
    for each in plan.legs:
        over = each.reversed or _barred(each) or _done(each) or each.phase is Phase.REVERSED
        if not each.kind.settling or over:
            continue
        if plan.outcome is PlanOutcome.MIXED:
            need(each.order is not Order.PREPARE, "nothing is settled outside beside a hold", each.leg_id)
        else:
            need(each.order is Order.NONE, "an aborted plan closes only without holds", each.leg_id)


def _barred(leg: LegState) -> bool:
    if leg.operators_evidence is not None:
        return not leg.operators_evidence.executed
    if leg.phase in (Phase.COMMITTED, Phase.REVERSING):
        return False
    voted_no = leg.vote is not None and leg.vote.vote.promise is None
    # A refusal holds, whatever is asked outside once more.
    return voted_no or _signed(leg, OutcomeKind.REFUSED, OutcomeKind.RELEASED)


def _last(plan: Plan, leg: LegState, ended: Phase) -> None:
    """The journal seals last."""
    if leg.kind is not LegKind.JOURNAL:
        return
    for each in plan.legs:
        if each.kind is LegKind.NOTARISATION:
            final = each.phase in (Phase.COMMITTED, Phase.RELEASED)
            need(final, "the journal seals after the notarisation", f"{each.leg_id} is {each.phase}")


def _numbers(edge: Edge) -> None:
    """I4: transitions and events are dense, one event for each transition, nothing after the seal."""
    before, after, moves = edge.before, edge.after, _moves(edge)
    records = [each for each in edge.effects if isinstance(each, Record)]
    first = before.transition_no + 1
    need([each.transition_no for each in moves] == list(range(first, first + len(moves))), "I4 transitions are dense")
    sequence = before.journal_sequence
    for record in records:
        sequence += 1
        need(record.sequence == sequence, "I4 journal events are dense", f"{record.type} is {record.sequence}")
    told = [each.moved for each in records if each.moved is not None]
    closing = [each for each in moves if each.entered is State.CLOSED]
    need(sorted([*told, *closing], key=lambda each: each.transition_no) == moves, "I4 one event for each transition")
    if before.sealing:
        need(not records, "I4 nothing is appended after the seal", str([each.type for each in records]))
        need(moves == closing, "I4 nothing moves between the seal and CLOSED", str([each.cause for each in moves]))
    sealed = [
        each.closing
        for each in edge.effects
        if isinstance(each, Commit | Abort) and each.closing is not None and _leg(after, each.leg_id).kind is LegKind.JOURNAL
    ]
    for closed in sealed:
        need(closed.journal_sequence == sequence + 1 == after.journal_sequence, "I4 the seal has the next number")
        need(closed.transition_no == after.transition_no + 1, "I4 the seal records the closing transition")
        need(closed.outcome is after.outcome, "I8 the seal says how the plan ended", str(closed.outcome))
    state = before.state
    for move in moves:
        need(move.left is None or move.left is state, "I4 transitions follow one another", f"{move.left} after {state}")
        state = move.entered
    need(state is after.state, "I4 no state without a transition", f"{state} became {after.state}")


def _causes(edge: Edge) -> None:
    before, after = edge.before, edge.after
    for move in _moves(edge):
        if move.entered is State.EXECUTING and move.left is State.PREPARED:
            need(edge.moment <= after.deadline, "the decision is written before the deadline")
            # What took effect too early is no broken promise: going on makes the plan whole.
            standing = all(each.phase in (Phase.PREPARED, Phase.COMMITTED) for each in after.legs)
            need(standing, "the decision needs every promise", str([(each.leg_id, each.phase) for each in after.legs]))
        if move.cause is Cause.UNWIND_ORDERED:
            # What the unwind itself orders has no answer yet; what was ordered before it must have.
            unsent = edge.event.leg_ids if isinstance(edge.event, CommitsWithheld) else ()
            asked = {each.leg_id for each in before.legs if each.order in (Order.COMMIT, Order.ABORT)} - set(unsent)
            unknown = [each.leg_id for each in after.legs if each.kind.settling and each.leg_id in asked and _unknown(each)]
            need(not unknown, "nothing is unwound while a leg is Unknown", str(unknown))
        if move.cause is Cause.LEG_REFUSED:
            refused = [each for each in after.legs if each.kind.settling and _barred(each)]
            need(bool(refused), "Unknown is never taken for failed", str(move.cause))
        if move.cause is Cause.DELEGATE_RELEASED:
            leg = _leg(after, after.delegate)
            never = (_barred(leg) and leg.phase is not Phase.REFUSED) or leg.operators_evidence is not None
            need(never, "only what is released outside decides ABORT", f"{leg.leg_id} is {leg.phase}")
        if move.cause in (Cause.VOTED_NO, Cause.PROMISE_WITHDRAWN):
            refused = [each for each in after.legs if _barred(each)]
            need(bool(refused), "Unknown is never taken for failed", str(move.cause))
        if move.cause in (Cause.ALL_DONE, Cause.DELEGATE_DONE):
            legs = [each for each in after.legs if each.kind.settling]
            wanted = legs if move.cause is Cause.ALL_DONE else [_leg(after, after.delegate)]
            need(all(_done(each) for each in wanted), "I8 done is what is signed as done", str(move.cause))
        if move.cause is Cause.UNWOUND:
            legs = [each for each in after.legs if each.kind.settling]
            over = all(_barred(each) or each.reversed or each.phase is Phase.REVERSED or each.order is Order.NONE for each in legs)
            need(over, "I8 unwound is what is signed as undone", str([(each.leg_id, each.phase) for each in legs]))
        if move.entered is State.PARTIALLY_EXECUTED:
            need(any(isinstance(each, Escalate) for each in edge.effects) or bool(after.tickets), "what is stuck calls a person")
    if before.tickets and after.state is State.PARTIALLY_EXECUTED and after.outcome is not PlanOutcome.MIXED:
        need(bool(after.tickets), "what is stuck is never without an open ticket")


def _unknown(leg: LegState) -> bool:
    return not (_done(leg) or _barred(leg) or leg.reversed or leg.phase is Phase.REVERSED)


def _evidence_legs(edge: Edge) -> None:
    """After the decision, what an evidence leg says ends the plan or calls a person; it changes nothing else."""
    if not isinstance(edge.event, LegNews) or edge.before.state in _UNDECIDED:
        return
    if _leg(edge.before, edge.event.leg_id).kind.settling:
        return
    moved = [move.cause for move in _moves(edge) if move.cause not in (Cause.SEALED, Cause.SETTLED_OUTSIDE)]
    need(not moved, "an evidence leg never changes the outcome", str(moved))


def _news(edge: Edge) -> None:
    for old, new in zip(edge.before.legs, edge.after.legs, strict=True):
        need(new.revision >= old.revision, "a lower revision is ignored", f"{new.leg_id} {old.revision} to {new.revision}")
        if old.vote is not None:
            need(new.vote == old.vote, "a vote is given once", new.leg_id)
        if isinstance(edge.event, LegNews) and edge.event.leg_id == new.leg_id and edge.event.revision <= old.revision:
            need(new == old, "a lower revision is ignored", new.leg_id)


def _closed(edge: Edge) -> None:
    before, after = edge.before, edge.after
    if after.state is not State.CLOSED or before.state is State.CLOSED:
        return
    legs = [each for each in after.legs if each.kind.settling]
    match after.outcome:
        case PlanOutcome.COMMITTED:
            need(all(_done(each) for each in legs), "I8 COMMITTED is what every leg says")
        case PlanOutcome.ABORTED | PlanOutcome.REVERSED:
            _nothing_held(after)
        case PlanOutcome.MIXED:
            pass
        case _:
            need(False, "I8 a closed plan has an outcome")
    evidence = [each for each in after.legs if not each.kind.settling]
    over = all(each.phase in (Phase.COMMITTED, Phase.RELEASED) for each in evidence)
    need(over, "a plan closes when its evidence legs have closed", str([(each.leg_id, each.phase) for each in evidence]))


# -- States ----------------------------------------------------------------------------------------------------------


class Aspect(NamedTuple):
    """What the rules about states look at in a plan."""

    state: State
    decision: Decision | None
    delegate: str
    outcome: PlanOutcome | None
    escalated: bool


class Trace(NamedTuple):
    """What they look at in a site."""

    leg_id: str
    settling: bool
    phase: Phase | None
    outside: Outside


def aspect(plan: Plan) -> Aspect:
    """A plan for the rules about states."""
    return Aspect(plan.state, plan.decision, plan.delegate, plan.outcome, bool(plan.tickets))


def broken(plan: Aspect, legs: tuple[Trace, ...], *, informed: bool, tampered: bool) -> Iterator[Violation]:
    """Rules that a state breaks.

    `informed`: the coordinator has heard the last of every leg. `tampered`: in this history a participant broke a promise, or the outside world did what
    nobody ordered.
    """
    settling = [each for each in legs if each.settling]
    executed = [each.leg_id for each in settling if each.outside is Outside.EXECUTED]
    never = [each.leg_id for each in settling if each.outside in (Outside.RELEASED, Outside.GONE)]
    named = f"{executed} executed, {never} released, plan {plan.state}/{plan.decision}"
    # Nobody can know of a broken promise before it was reported.
    answerable = informed or not tampered
    if executed and never and answerable and not plan.escalated and plan.outcome is not PlanOutcome.MIXED:
        yield Violation("I1 never half-settled without an escalation", named)
    undecided = plan.decision in (None, Decision.ABORT)
    for each in settling:
        committing = each.phase is Phase.COMMITTING or (each.phase is Phase.COMMITTED and not tampered)
        if committing and undecided and not plan.escalated:
            yield Violation(
                "I1 no participant commits without the durable decision", f"{each.leg_id} is {each.phase}, {plan.decision}"
            )
        # That leg's Done is the decision, also where a restore took the coordinator's note of it back.
        answered = any(leg.leg_id == plan.delegate and leg.phase is Phase.COMMITTED for leg in settling)
        if committing and plan.decision is Decision.DELEGATED and each.leg_id != plan.delegate and not answered:
            yield Violation(
                "I1 no participant commits without the durable decision", f"{each.leg_id} is {each.phase}, {plan.decision}"
            )
    held = [each.leg_id for each in settling if each.outside is Outside.HELD]
    if plan.state is State.CLOSED and held and not plan.escalated and plan.outcome is not PlanOutcome.MIXED:
        yield Violation("I5 no orphan hold", f"{held} held, plan {plan.outcome}")
