"""Reversals through the engine: who may order one, and what becomes of a leg whose reversal is refused, repeated, ordered anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lockstep.type.v1 import outcome_pb2
from lockstep_kit.convert import outcome_from_pb
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.participant import store
from lockstep_kit.participant.records import Answer, Verdict
from lockstep_kit.participant.verifying import VerifyingRegistry
from lockstep_kit.plan import Policy
from lockstep_kit.registry import Role
from lockstep_kit.reversals import OperatorsResolution, PolicyUnwind, ReverseAuthority, order_digest
from lockstep_kit.statements import Outcome, OutcomeKind
from lockstep_testkit.factories import PEOPLE, PlanCase, credit_terms, leg_of, plan_of, registry_of, token_terms

if TYPE_CHECKING:
    Bench = Any


def reversal(answer: Answer) -> Outcome:
    """What became of the last order."""
    assert answer.record is not None
    assert answer.record.reversal is not None
    return outcome_from_pb(outcome_pb2.SignedOutcome.FromString(answer.record.reversal)).outcome


def reason(answer: Answer) -> str:
    """Why it was rejected."""
    return "" if answer.rejection is None else answer.rejection.reason


async def executed(bench: Bench, policy: Policy | None = None) -> PlanCase:
    """A plan of two settling legs whose leg "cash" is executed."""
    plan = plan_of([leg_of("tokens", token_terms()), leg_of("cash", credit_terms())], policy=policy)
    await bench.prepare(plan)
    await bench.find(plan, Finding.VOTED_YES)
    await bench.commit(plan)
    await bench.find(plan, Finding.EXECUTED)
    return plan


async def test_reversed_beside_done(bench: Bench) -> None:
    """A reversed leg keeps its signed Done; the signed reversal names the order that it answers."""
    plan = await executed(bench)
    done = (await bench.row(plan))["outcome"]
    order = plan.reversal()
    assert (await bench.reverse(plan, order)).verdict is Verdict.PENDING
    await bench.find(plan, Finding.REVERSED)
    answer = await bench.reverse(plan, order)
    assert answer.verdict is Verdict.DONE
    assert (reversal(answer).kind, reversal(answer).order) == (OutcomeKind.REVERSED, order_digest(order))
    row = await bench.row(plan)
    assert (row["phase"], row["outcome"]) == ("REVERSED", done)


async def test_refused_order_is_not_begun_again(bench: Bench, operations: Any) -> None:
    """A copy of a refused order that comes late, even after a newer one, begins nothing: the plan may be complete by then."""
    plan = await executed(bench)
    first, second = plan.reversal(), plan.reversal()
    for order in (first, second):
        assert (await bench.reverse(plan, order)).verdict is Verdict.PENDING
        await bench.find(plan, Finding.REVERSAL_REFUSED)
    begun, row = len(operations.begun), await bench.row(plan)
    for order in (first, second, first):
        answer = await bench.reverse(plan, order)
        assert (answer.verdict, reversal(answer).order) == (Verdict.REFUSED, order_digest(second))
    assert await bench.row(plan) == row
    assert (row["phase"], len(operations.begun)) == ("COMMITTED", begun)


async def test_new_order_clears_the_old_refusal(bench: Bench) -> None:
    """While a new order is carried out, the refusal of the one before is not shown as its answer."""
    plan = await executed(bench)
    await bench.reverse(plan)
    await bench.find(plan, Finding.REVERSAL_REFUSED)
    answer = await bench.reverse(plan)
    assert answer.verdict is Verdict.PENDING
    assert answer.record is not None
    assert answer.record.reversal is None


@pytest.mark.parametrize("phase", [Phase.REVERSING, Phase.REVERSED])
async def test_other_order_of_a_reversed_leg(bench: Bench, phase: Phase) -> None:
    """A second order for a leg that is being reversed, or is reversed, is a replay."""
    plan = await bench.reach(phase)
    before = await bench.row(plan)
    answer = await bench.reverse(plan)
    assert answer.verdict is (Verdict.PENDING if phase is Phase.REVERSING else Verdict.DONE)
    assert await bench.row(plan) == before


async def test_gates_of_the_plan_are_barred(bench: Bench) -> None:
    """Whoever opened a gate of the plan, by the certificate that this participant kept, orders no reversal, whatever other roles they have."""
    plan = await executed(bench)
    people = {name: (role,) for name, role in PEOPLE.items()} | {"carol": (Role.RELEASER, Role.OPERATOR)}
    bench.engine._registry = VerifyingRegistry(registry_of(people))
    answer = await bench.reverse(plan, plan.reversal("erin", "carol"))
    assert (answer.verdict, reason(answer)) == (Verdict.REJECTED, "RESOLUTION_SAME_PERSON")
    assert (await bench.row(plan))["phase"] == "COMMITTED"


UNWINDS = Policy(unwind_automatically=True)


async def test_policy_unwinds(bench: Bench) -> None:
    """Where the signed plan says so, the signed refusal of another leg is authority enough, and only once."""
    plan = await executed(bench, UNWINDS)
    authority = PolicyUnwind(plan.outcome("tokens", OutcomeKind.REFUSED))
    assert (await bench.reverse(plan, authority)).verdict is Verdict.PENDING
    await bench.find(plan, Finding.REVERSAL_REFUSED)
    again = PolicyUnwind(plan.outcome("tokens", OutcomeKind.REFUSED, revision=9))
    assert (await bench.reverse(plan, again)).verdict is Verdict.REFUSED
    assert (await bench.row(plan))["phase"] == "COMMITTED"


def _forged(plan: PlanCase) -> dict[str, ReverseAuthority]:
    return {
        "done": PolicyUnwind(plan.outcome("tokens")),
        "released": PolicyUnwind(plan.outcome("tokens", OutcomeKind.RELEASED)),
        "reversal": PolicyUnwind(plan.outcome("tokens", OutcomeKind.REVERSAL_REFUSED)),
        "own": PolicyUnwind(plan.outcome("cash", OutcomeKind.REFUSED)),
        "stranger": PolicyUnwind(plan.outcome("tokens", OutcomeKind.REFUSED, participant="notary")),
        "nobody": OperatorsResolution(()),
    }


@pytest.mark.parametrize("name", ["done", "released", "reversal", "own", "stranger", "nobody"])
async def test_forged_policy(bench: Bench, name: str) -> None:
    """No other outcome than the refusal of another leg, by the participant that voted for it, unwinds a plan."""
    plan = await executed(bench, UNWINDS)
    answer = await bench.reverse(plan, _forged(plan)[name])
    expected = "RESOLUTION_SIGNERS" if name == "nobody" else "REVERSE_OUTCOME"
    assert (answer.verdict, reason(answer)) == (Verdict.REJECTED, expected)
    assert (await bench.row(plan))["phase"] == "COMMITTED"


async def test_plan_without_the_policy(bench: Bench) -> None:
    """A refusal reverses nothing where the plan's signers did not say so."""
    plan = await executed(bench)
    answer = await bench.reverse(plan, PolicyUnwind(plan.outcome("tokens", OutcomeKind.REFUSED)))
    assert (answer.verdict, reason(answer)) == (Verdict.REJECTED, "REVERSE_POLICY")


@pytest.mark.parametrize("kind", list(OutcomeKind))
async def test_what_releases(bench: Bench, kind: OutcomeKind) -> None:
    """Another leg that will never execute, or was undone, is authority to release; one that is executed, or stays so, is none."""
    plan = await bench.reach(Phase.PREPARED)
    answer = await bench.abort(plan, plan.outcome("tokens", kind))
    if kind in (OutcomeKind.DONE, OutcomeKind.REVERSAL_REFUSED):
        assert (answer.verdict, reason(answer)) == (Verdict.REJECTED, "ABORT_OUTCOME")
    else:
        assert answer.verdict is Verdict.PENDING


async def test_who_is_barred_is_asked_of_the_row_that_is_locked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is judged by the certificate of the very row that it would begin: one that was not yet there a moment ago is looked at again."""
    plan = await executed(bench)
    people = {name: (role,) for name, role in PEOPLE.items()} | {"carol": (Role.RELEASER, Role.OPERATOR)}
    bench.engine._registry = VerifyingRegistry(registry_of(people))
    reads, read = [], store.read

    async def late(connection: Any, legs: Any) -> Any:
        reads.append(legs)
        return {} if len(reads) == 1 else await read(connection, legs)

    monkeypatch.setattr(store, "read", late)
    answer = await bench.reverse(plan, plan.reversal("erin", "carol"))
    assert (answer.verdict, reason(answer), len(reads)) == (Verdict.REJECTED, "RESOLUTION_SAME_PERSON", 2)
