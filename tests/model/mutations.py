"""Seeded bugs: small changes of production's functions and tables, each of which the search must catch, by the rule that it breaks.

A bug is put in where production looks a name up, so that everything else stays the very code that the services run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias
from unittest.mock import patch

from coordinator import certificates, facts, operators, orders, protocol, reports, restoring
from coordinator.dossier import Dossier
from coordinator.model import Abort, Cause, Commit, Effect, EventType, LegNews, LegState, Limits, Moved, Order, Plan, Record, State
from lockstep_kit import fence
from lockstep_kit.certificate import DeadlinePassed, Decision
from lockstep_kit.fence import Action, Asked, Command, FenceRow, Phase, Rejected, Ruling
from lockstep_kit.participant import rules

Patch: TypeAlias = AbstractContextManager[Any]
Due: TypeAlias = Iterator[tuple[LegState, Effect]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A seeded bug."""

    #: Name.
    name: str
    #: Configuration whose search must catch it.
    config: str
    #: The rule that it breaks.
    rule: str
    #: Puts it in.
    seed: Callable[[], list[Patch]]

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Production with the bug in it."""
        with ExitStack() as stack:
            for each in self.seed():
                stack.enter_context(each)
            yield


def _table(changes: dict[tuple[Phase | None, Command], Phase | Action | Rejected]) -> list[Patch]:
    return [patch.dict(fence.TABLE, changes)]


def _arcs(changes: dict[tuple[State, Decision | None, Cause], protocol.Arc]) -> list[Patch]:
    return [patch.dict(protocol.TABLE, changes)]


def _unchecked() -> Patch:
    """Without the protocol's own check of each step, which would stop the bug where it is made."""
    return patch.object(protocol, "check_step", lambda *_: None)


def _also_due(more: Callable[[Plan, datetime], Due]) -> list[Patch]:
    due = orders._due

    def both(plan: Plan, now: datetime) -> Due:
        given = tuple(due(plan, now))
        yield from given
        yield from (each for each in more(plan, now) if each[0].leg_id not in {leg.leg_id for leg, _ in given})

    return [patch.object(orders, "_due", both)]


def _ruled(change: Callable[[FenceRow | None, Asked, Ruling], Ruling], *, fresh: bool = False) -> list[Patch]:
    rule = fence.rule

    def changed(row: FenceRow | None, asked: Asked, now: datetime) -> Ruling:
        if fresh and row is not None:
            return change(row, asked, rule(row, replace(asked, epoch=max(asked.epoch, row.epoch)), now))
        return change(row, asked, rule(row, asked, now))

    return [patch.object(rules, "rule", changed)]


def _allowed(command: Command) -> list[Patch]:
    """The fence without what it asks beyond its table of one command."""
    refused = fence._refused

    def lenient(row: FenceRow, asked: Asked, now: datetime) -> Rejected | None:
        return None if asked.command is command else refused(row, asked, now)

    return [patch.object(fence, "_refused", lenient)]


# -- What the bugs are -------------------------------------------------------------------------------------------------


def _commit_before_decision() -> list[Patch]:
    def early(plan: Plan, now: datetime) -> Due:
        if plan.state is State.PREPARED:
            yield from ((each, Commit(each.leg_id)) for each in facts.settling(plan)[:1] if each.order is Order.PREPARE)

    return _also_due(early)


def _keys_to_all() -> list[Patch]:
    def early(plan: Plan, now: datetime) -> Due:
        if plan.state is State.EXECUTING and plan.decision is Decision.DELEGATED:
            yield from ((each, Commit(each.leg_id)) for each in facts.settling(plan) if each.order is Order.PREPARE)

    return _also_due(early)


def _abort_after_commit() -> list[Patch]:
    def back(plan: Plan, now: datetime) -> Due:
        if plan.state is State.PARTIALLY_EXECUTED:
            held = [each for each in orders._held(plan) if each.order is not Order.ABORT]
            yield from ((each, Abort(each.leg_id, DeadlinePassed())) for each in held)

    return _also_due(back)


def _commit_while_stuck() -> list[Patch]:
    def on(plan: Plan, now: datetime) -> Due:
        if plan.state is State.PARTIALLY_EXECUTED:
            yield from ((each, Commit(each.leg_id)) for each in orders._executable(plan))

    return _also_due(on)


def _epoch_lost() -> list[Patch]:
    def forget(row: FenceRow | None, asked: Asked, ruling: Ruling) -> Ruling:
        if row is None or ruling.row is None:
            return ruling
        return replace(ruling, row=replace(ruling.row, epoch=row.epoch))

    return _ruled(forget)


def _rejected_as_refused() -> list[Patch]:
    def refuse(row: FenceRow | None, asked: Asked, ruling: Ruling) -> Ruling:
        if ruling.reason is not Rejected.COMMIT_LATE or row is None:
            return ruling
        return Ruling(Action.BEGIN, replace(row, phase=Phase.REFUSED, revision=row.revision + 1))

    return _ruled(refuse)


def _unknown_as_failed() -> list[Patch]:
    barred = facts.barred
    return [patch.object(facts, "barred", lambda each: barred(each) or each.phase is Phase.COMMITTING)]


def _decision_overwritten() -> list[Patch]:
    arc = protocol.Arc(State.ABORTED, Decision.ABORT, EventType.PLAN_ABORTED)
    return [*_arcs({(State.EXECUTING, Decision.COMMIT, Cause.LEG_REFUSED): arc}), _unchecked()]


def _two_soft_legs() -> list[Patch]:
    return [
        patch.object(facts, "promise_finding", lambda *_: None),
        patch.object(certificates, "check_release", lambda *_: None),
    ]


def _no_limit_of_time() -> list[Patch]:
    def endless(plan: Plan, now: datetime) -> Due:
        delegate = facts.leg(plan, plan.delegate)
        if delegate.order is Order.PREPARE:
            yield delegate, Commit(delegate.leg_id)

    return [patch.object(orders, "_delegated", endless)]


def _unwind_while_unknown() -> list[Patch]:
    return [patch.object(facts, "unknown_legs", lambda _: ())]


def _evidence_settles() -> list[Patch]:
    return [patch.object(facts, "settling", lambda plan: plan.legs)]


def _refusal_releases() -> list[Patch]:
    executing = facts._executing

    def hasty(plan: Plan) -> Cause | None:
        delegated = plan.decision is Decision.DELEGATED and facts.leg(plan, plan.delegate).phase is Phase.REFUSED
        return Cause.DELEGATE_RELEASED if delegated else executing(plan)

    return [patch.object(facts, "_executing", hasty)]


def _seal_first() -> list[Patch]:
    return [patch.object(facts, "notarisations", lambda _: ())]


def _holds_forgotten() -> list[Patch]:
    return [patch.object(orders, "_held", lambda _: ())]


def _settled_beside_a_hold() -> list[Patch]:
    stuck = (State.PARTIALLY_EXECUTED, State.ABORTED)
    return [patch.object(facts, "settleable", lambda plan: plan.state in stuck and not plan.sealing and plan.outcome is None)]


def _stale_news() -> list[Patch]:
    def believe(report: reports.LegReport, *_: object) -> tuple[LegNews]:
        return (LegNews(report.leg_id, report.phase, report.revision, report.vote, report.outcome, report.trouble),)

    heard = protocol._heard

    def hear(plan: Plan, news: LegNews) -> tuple[Plan, tuple[Effect, ...]]:
        older = replace(facts.leg(plan, news.leg_id), revision=min(news.revision - 1, facts.leg(plan, news.leg_id).revision))
        return heard(facts.with_leg(plan, older), news)

    return [patch.object(reports, "admit", believe), patch.object(protocol, "_heard", hear), _unchecked()]


def _dependencies_ignored() -> list[Patch]:
    executable = orders._executable

    def all_at_once(plan: Plan) -> Iterator[LegState]:
        free = replace(plan, legs=tuple(replace(each, depends_on=()) for each in plan.legs))
        ready = {each.leg_id for each in executable(free)}
        yield from (each for each in plan.legs if each.leg_id in ready)

    return [patch.object(orders, "_executable", all_at_once)]


def _irrevocable_in_a_row() -> list[Patch]:
    return [
        patch.object(orders, "_executable", lambda plan: [each for each in facts.settling(plan) if each.order is Order.PREPARE])
    ]


def _soft_leg_in_a_row() -> list[Patch]:
    return [
        patch.object(facts, "_release", lambda _: Cause.RELEASED),
        patch.object(certificates, "check_release", lambda *_: None),
        patch.object(orders, "_executable", lambda plan: [each for each in facts.settling(plan) if each.order is Order.PREPARE]),
    ]


def _silent_trouble() -> list[Patch]:
    arc = protocol.TABLE[State.EXECUTING, Decision.COMMIT, Cause.LEG_REFUSED]
    return _arcs({(State.EXECUTING, Decision.COMMIT, Cause.LEG_REFUSED): replace(arc, escalates=False)})


def _found_executed_ignored() -> list[Patch]:
    cause = facts.cause

    def blind(plan: Plan, now: datetime, limits: Limits) -> Cause | None:
        found = cause(plan, now, limits)
        return None if found is Cause.FOUND_EXECUTED else found

    return [patch.object(facts, "cause", blind)]


def _event_forgotten() -> list[Patch]:
    move = protocol._move

    def quiet(plan: Plan, *rest: Any) -> tuple[Plan, tuple[Effect, ...]]:
        after, effects = move(plan, *rest)
        kept = tuple(each for each in effects if not isinstance(each, Record))
        return (
            (replace(after, journal_sequence=plan.journal_sequence), kept)
            if any(isinstance(each, Moved) for each in kept)
            else (after, effects)
        )

    return [patch.object(protocol, "_move", quiet), _unchecked()]


def _withdrawal_ignored() -> list[Patch]:
    stop = facts._stop

    def deaf(plan: Plan, now: datetime, limits: Limits) -> Cause | None:
        found = stop(plan, now, limits)
        return None if found is Cause.PROMISE_WITHDRAWN else found

    return [patch.object(facts, "_stop", deaf)]


def _deadline_ignored() -> list[Patch]:
    stop = facts._stop

    def slow(plan: Plan, now: datetime, limits: Limits) -> Cause | None:
        found = stop(plan, now, limits)
        return None if found is Cause.DEADLINE_PASSED else found

    return [patch.object(facts, "_stop", slow), patch.object(certificates, "check_release", lambda *_: None)]


def _forget_anything() -> list[Patch]:
    return [patch.object(operators, "over", lambda *_: True)]


def _evidence_refusal_stops() -> list[Patch]:
    cause = facts.cause

    def nervous(plan: Plan, now: datetime, limits: Limits) -> Cause | None:
        refused = any(each.phase is Phase.REFUSED for each in plan.legs if not each.kind.settling)
        return Cause.CONTRADICTION if plan.state is State.COMMITTED and refused else cause(plan, now, limits)

    explain = facts.explain

    def excuse(plan: Plan, why: Cause, *rest: Any) -> tuple[str, str, str]:
        return ("EVIDENCE_CONTRADICTED", "", "") if why is Cause.CONTRADICTION else explain(plan, why, *rest)

    return [patch.object(facts, "cause", nervous), patch.object(facts, "explain", excuse)]


def _done_unsigned() -> list[Patch]:
    executed = facts.executed
    return [patch.object(facts, "executed", lambda each: executed(each) or each.phase is Phase.COMMITTING)]


def _anything_authorised() -> list[Patch]:
    return [patch.object(rules, "authorise", lambda *_: None)]


def _reversed_twice() -> list[Patch]:
    rule = fence.rule

    def forgetful(row: FenceRow | None, asked: Asked, now: datetime) -> Ruling:
        return rule(None if row is None else replace(row, reversals=()), asked, now)

    return [patch.object(rules, "rule", forgetful)]


def _nobody_asked() -> list[Patch]:
    def forget(dossier: Dossier, *_: object) -> restoring.Adopted:
        return restoring.Adopted(dossier.plan, (), (), (), (), (), ())

    return [patch.object(restoring, "adopt", forget)]


MUTATIONS: Final = (
    Mutation("commit-before-decision", "executing", "I1 nothing is committed before the decision", _commit_before_decision),
    Mutation("key-revealed-early", "delegated", "I1 nothing is committed before the decision", _keys_to_all),
    Mutation("abort-after-commit", "executing", "I1 nothing is released after COMMIT", _abort_after_commit),
    Mutation("commit-while-stuck", "three", "nothing new is committed once a plan is stuck", _commit_while_stuck),
    Mutation(
        "no-tombstone",
        "voting",
        "a tombstone bars what comes late",
        lambda: _table({(Phase.RELEASED, Command.PREPARE): Phase.PREPARING}),
    ),
    Mutation(
        "commit-overtakes-abort",
        "delegated",
        "a tombstone bars what comes late",
        lambda: _table({(Phase.ABORTING, Command.COMMIT): Phase.COMMITTING}),
    ),
    Mutation(
        "epoch-not-checked", "executing", "I7 a stale epoch is refused", lambda: _ruled(lambda _, __, ruling: ruling, fresh=True)
    ),
    Mutation("epoch-not-kept", "executing", "I7 a newer epoch is kept", _epoch_lost),
    Mutation("unknown-taken-as-failed", "executing", "Unknown is never taken for failed", _unknown_as_failed),
    Mutation("done-before-it-is-signed", "executing", "I8 done is what is signed as done", _done_unsigned),
    Mutation("rejected-taken-as-refused", "delegated", "a command begins work, never an answer", _rejected_as_refused),
    Mutation(
        "unknown-leg-answered-refused",
        "forgetful",
        "a command begins work, never an answer",
        lambda: _table({(None, Command.COMMIT): Phase.REFUSED}),
    ),
    Mutation("decision-overwritten", "executing", "a decision is written once", _decision_overwritten),
    Mutation("two-soft-legs", "promises", "at most one soft leg unless the plan accepts the risk", _two_soft_legs),
    Mutation("soft-leg-not-delegated", "delegated", "a soft leg goes alone and first", _soft_leg_in_a_row),
    Mutation("delegated-begun-late", "delegated", "a delegated leg never begins after not_after", lambda: _allowed(Command.COMMIT)),
    Mutation("delegated-without-limit", "delegated", "a delegated Commit says until when it may begin", _no_limit_of_time),
    Mutation("delegated-refusal-taken-as-release", "delegated", "only what is released outside decides ABORT", _refusal_releases),
    Mutation("unwind-while-unknown", "unwinding", "nothing is unwound while a leg is Unknown", _unwind_while_unknown),
    Mutation("evidence-leg-settles", "closing", "an aborted plan closes only without holds", _evidence_settles),
    Mutation("evidence-refusal-stops-the-plan", "closing", "an evidence leg never changes the outcome", _evidence_refusal_stops),
    Mutation("sealed-before-notarised", "closing", "the journal seals after the notarisation", _seal_first),
    Mutation("closed-with-a-hold", "executing", "an aborted plan closes only without holds", _holds_forgotten),
    Mutation("settled-beside-a-hold", "operators", "nothing is settled outside beside a hold", _settled_beside_a_hold),
    Mutation("late-prepare", "voting", "Prepare never begins after prepare_by", lambda: _allowed(Command.PREPARE)),
    Mutation("abort-of-committing", "hostile", "after COMMIT a participant never aborts", lambda: _allowed(Command.ABORT)),
    Mutation("abort-without-authority", "hostile", "an abort has an authority", _anything_authorised),
    Mutation("stale-revision", "executing", "a lower revision is ignored", _stale_news),
    Mutation(
        "replay-changes-the-vote",
        "voting",
        "a vote is given once",
        lambda: _table({(Phase.PREPARED, Command.PREPARE): Phase.PREPARING}),
    ),
    Mutation("dependencies-ignored", "three", "a leg waits for its predecessors", _dependencies_ignored),
    Mutation("irrevocable-leg-not-last", "irrevocable", "an irrevocable leg goes last", _irrevocable_in_a_row),
    Mutation("silent-trouble", "executing", "what is stuck calls a person", _silent_trouble),
    Mutation("found-executed-ignored", "contradicted", "I1 never half-settled without an escalation", _found_executed_ignored),
    Mutation("event-forgotten", "executing", "I4 one event for each transition", _event_forgotten),
    Mutation("withdrawal-ignored", "executing", "the decision needs every promise", _withdrawal_ignored),
    Mutation("deadline-ignored", "executing", "the decision is written before the deadline", _deadline_ignored),
    Mutation("reversed-twice", "unwinding", "an order to reverse is obeyed once", _reversed_twice),
    Mutation("decided-before-asking", "restored", "I1 no participant commits without the durable decision", _nobody_asked),
    Mutation("ticket-closed-too-soon", "operators", "what is stuck is never without an open ticket", _forget_anything),
)
