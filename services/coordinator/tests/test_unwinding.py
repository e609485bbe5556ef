"""The unwind in the protocol alone: by whose order, what answers it, and what a plan can do after a reversal was refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from protocol_drive import DEADLINE, Drive

from coordinator import facts
from coordinator.commands import answered
from coordinator.model import Abort, LegNews, Moved, OperatorsRedrove, Order, Reverse, State
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import Policy
from lockstep_kit.reversals import OperatorsResolution, PolicyUnwind, order_digest
from lockstep_kit.statements import Gate, OutcomeKind, Verdict
from lockstep_testkit.factories import credit_terms, delivery_versus_payment, leg_of, plan_of, token_terms

UNWINDS = Policy(unwind_automatically=True)


def reverses(drive: Drive) -> list[Reverse]:
    """Orders to reverse, so far."""
    return [each for each in drive.effects if isinstance(each, Reverse)]


def three(policy: Policy | None = None) -> Drive:
    """A plan of three settling legs: two are executed, the third is refused."""
    evidence = delivery_versus_payment().legs[2:]
    legs = [leg_of("tokens", token_terms()), leg_of("cash", credit_terms()), leg_of("more", token_terms()), *evidence]
    drive = Drive(plan_of(legs, deadline=DEADLINE, policy=policy))
    drive.ready()
    drive.yes(*(leg.leg_id for leg in legs))
    drive.sign(Gate.APPROVE)
    drive.sign(Gate.RELEASE)
    drive.done("tokens", "more")
    drive.refused("cash")
    return drive


def test_an_order_shows_what_operators_signed() -> None:
    """Reverse goes to executed legs alone, with the two operators' signatures, and is not answered before its participant answers."""
    drive = three()
    order = drive.unwound()
    drive.give(order)
    assert [(each.leg_id, each.authority) for each in reverses(drive)] == [
        (leg_id, OperatorsResolution(order.mandate.signatures)) for leg_id in ("tokens", "more")
    ]
    tokens = facts.leg(drive.plan, "tokens")
    assert not answered(tokens)
    drive.news("tokens", Phase.REVERSING)
    assert not answered(facts.leg(drive.plan, "tokens"))
    assert facts.executed(facts.leg(drive.plan, "tokens"))
    drive.undone("tokens")
    assert answered(facts.leg(drive.plan, "tokens"))
    assert drive.plan.state is State.UNWIND_PENDING
    drive.undone("more")
    assert (drive.plan.state, drive.plan.outcome) == (State.ABORTED, PlanOutcome.REVERSED)
    assert drive.records().count("leg.reversed") == 2


def test_the_policy_unwinds_once_and_shows_the_refusal() -> None:
    """Where the signed policy says so, the plan unwinds by itself, by the refused leg's own signed word, and only once."""
    drive = three(UNWINDS)
    assert drive.plan.state is State.UNWIND_PENDING
    refused = facts.leg(drive.plan, "cash").outcome
    assert refused is not None
    assert {each.authority for each in reverses(drive)} == {PolicyUnwind(refused)}
    drive.stays("more")
    assert (drive.plan.state, drive.plan.reason, drive.plan.reason_leg) == (State.PARTIALLY_EXECUTED, "REVERSAL_REFUSED", "more")
    assert len(reverses(drive)) == 2


def test_the_policy_needs_a_refusal_to_show() -> None:
    """Evidence that a validator refused unwinds nothing by itself: no participant would take it for authority."""
    drive = Drive(delivery_versus_payment(deadline=DEADLINE, policy=UNWINDS)).validating()
    drive.sign(Gate.VALIDATE, Verdict.REJECT)
    assert drive.plan.state is State.PARTIALLY_EXECUTED
    assert not reverses(drive)


def test_the_policy_does_not_speak_after_operators() -> None:
    """Once operators ordered an unwind, the policy orders none on top."""
    drive = three()
    drive.give(drive.unwound())
    drive.plan = replace(drive.plan, policy=UNWINDS)
    drive.stays("more")
    drive.stays("tokens")
    assert drive.plan.state is State.PARTIALLY_EXECUTED
    assert not drive.plan.unwound_by_policy


def test_an_older_refusal_answers_no_newer_order() -> None:
    """After a refusal operators order again: every executed leg is told anew, and the old refusal, told late, answers nothing."""
    drive = three()
    drive.give(drive.unwound())
    old = drive.order()
    drive.stays("more")
    assert (drive.plan.state, drive.plan.reason_leg) == (State.PARTIALLY_EXECUTED, "more")
    drive.give(drive.unwound())
    assert drive.plan.state is State.UNWIND_PENDING
    assert [each.leg_id for each in reverses(drive)] == ["tokens", "more", "tokens", "more"]
    assert drive.order() != old
    drive.stays("more", order=old)
    assert drive.plan.state is State.UNWIND_PENDING
    assert facts.reversing(facts.leg(drive.plan, "more"))
    drive.undone("more")
    drive.undone("tokens")
    assert (drive.plan.state, drive.plan.outcome) == (State.ABORTED, PlanOutcome.REVERSED)


def test_an_order_that_ran_out_is_given_anew() -> None:
    """While an order is unanswered, operators' next one takes its place, with a journal event and no transition."""
    drive = three()
    drive.give(drive.unwound())
    drive.undone("tokens")
    transitions, recorded = drive.plan.transition_no, drive.records().count("exception.resolved")
    drive.give(drive.unwound())
    assert [each.leg_id for each in reverses(drive)] == ["tokens", "more", "more"]
    assert reverses(drive)[-1].authority == drive.plan.unwind_authority
    assert (drive.plan.state, drive.plan.transition_no) == (State.UNWIND_PENDING, transitions)
    assert drive.records().count("exception.resolved") == recorded + 1


def test_no_plan_goes_on_beside_an_unanswered_reversal() -> None:
    """What may yet be reversed keeps a plan from being driven to its end: the copy of an order may still be on its way."""
    drive = three()
    drive.give(drive.unwound())
    drive.stays("more")
    drive.done("cash")
    assert [each.leg_id for each in facts.unknown_legs(drive.plan)] == ["tokens"]
    drive.give(OperatorsRedrove())
    assert drive.plan.state is State.PARTIALLY_EXECUTED
    drive.stays("tokens")
    drive.give(OperatorsRedrove())
    assert [each.entered for each in drive.effects if isinstance(each, Moved)][-1] is State.VALIDATING


def test_no_plan_goes_on_after_a_reversal() -> None:
    """A plan of which one leg was undone is never driven to its end."""
    drive = three()
    drive.give(drive.unwound())
    drive.undone("tokens")
    drive.stays("more")
    drive.done("cash")
    drive.give(OperatorsRedrove())
    assert drive.plan.state is State.PARTIALLY_EXECUTED


@pytest.mark.parametrize("executed", [False, True])
def test_operators_answer_for_a_silent_reversal(executed: bool) -> None:
    """Where a participant cannot say what became of its order to reverse, two operators' evidence is the answer."""
    drive = three()
    drive.give(drive.unwound())
    drive.undone("more")
    drive.give(drive.answered("tokens", executed=executed))
    assert drive.plan.state is (State.PARTIALLY_EXECUTED if executed else State.ABORTED)
    if executed:
        # The order may still be carried out: nothing goes on as if it could not.
        assert [each.leg_id for each in facts.unknown_legs(drive.plan)] == ["tokens"]
        drive.give(OperatorsRedrove())
        assert drive.plan.state is State.PARTIALLY_EXECUTED
    else:
        assert drive.plan.outcome is PlanOutcome.REVERSED
        drive.stays("tokens")
        assert "RESOLUTION_CONTRADICTED" in drive.tickets()


def test_what_is_found_executed_later_is_reversed_too() -> None:
    """A leg that took effect after all while the plan unwinds is reversed by the same order."""
    drive = three()
    drive.give(drive.unwound())
    drive.done("cash")
    assert [each.leg_id for each in reverses(drive)] == ["tokens", "more", "cash"]
    for leg_id in ("tokens", "more", "cash"):
        drive.undone(leg_id)
    assert drive.plan.state is State.ABORTED


def test_nothing_is_reversed_twice_by_one_order() -> None:
    """News that say nothing new give no second order."""
    drive = three()
    drive.give(drive.unwound())
    for phase in (Phase.COMMITTED, Phase.REVERSING, Phase.REVERSING):
        drive.news("tokens", phase)
    assert [each.leg_id for each in reverses(drive)] == ["tokens", "more"]
    assert facts.leg(drive.plan, "tokens").order is Order.REVERSE


def test_reversed_by_another_order_is_reversed() -> None:
    """What is undone is undone, whichever order its participant carried out."""
    drive = three()
    drive.give(drive.unwound())
    older = order_digest(drive.case.reversal())
    leg = facts.leg(drive.plan, "tokens")
    told = drive.case.outcome("tokens", OutcomeKind.REVERSED, order=older)
    news = LegNews(LegId("tokens"), Phase.REVERSED, leg.revision + 1, leg.vote, leg.outcome, "", told)
    drive.give(news)
    assert facts.leg(drive.plan, "tokens").reversed


def test_a_lost_order_calls_people() -> None:
    """A coordinator that lost the order to a restore orders nothing it cannot show, and asks for another."""
    drive = three()
    drive.give(drive.unwound())
    drive.plan = facts.reordered(replace(drive.plan, unwind=None))
    before = len(reverses(drive))
    drive.news("tokens", Phase.COMMITTED)
    assert len(reverses(drive)) == before
    assert "REVERSAL_UNORDERED" in drive.tickets()
    drive.give(drive.unwound())
    assert [each.leg_id for each in reverses(drive)[before:]] == ["tokens", "more"]


def test_a_plan_that_was_notarised_as_settled() -> None:
    """When the notary was told of a settlement that is unwound then, people are called about what stands on chain; the journal is sealed all the same."""
    drive = Drive().committed()
    drive.news("tokens", Phase.COMMITTED, trouble="its block is gone")
    drive.done("notarisation")
    assert drive.plan.state is State.PARTIALLY_EXECUTED
    drive.give(drive.unwound())
    drive.undone("tokens")
    drive.undone("cash")
    assert (drive.plan.state, drive.plan.outcome) == (State.ABORTED, PlanOutcome.REVERSED)
    assert drive.tickets()[-1] == "EVIDENCE_LEG_CONTRADICTED"
    assert drive.ordered(Abort) == ["journal"]
    drive.released("journal")
    assert (drive.plan.state, drive.plan.outcome) == (State.CLOSED, PlanOutcome.REVERSED)
