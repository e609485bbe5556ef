"""Batches of the client: in calls as large as may be, each request answered by itself, and only what was not done sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client import batching
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient, execution
from lockstep_kit.errors import LockstepError, field_invalid, to_status, unavailable
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import leg_id

FAST = CallSettings(deadline_seconds=60.0, attempts_max=4, pause_seconds_max=0.05)
TOO_LARGE = LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWERS_TOO_LARGE", "it was done")


def refused(error: LockstepError) -> messages.PlanAnswer:
    status = to_status(error)
    return messages.PlanAnswer(refusal=messages.Refusal(code=status.code, message=status.message, details=status.details))


def response(*answers: messages.PlanAnswer) -> messages.ExecutePlansResponse:
    return messages.ExecutePlansResponse(answers=answers)


async def test_each_has_its_own_answer(coordinator: Any, tls: Any, world: Any) -> None:
    """A refusal arrives with reason, field and patience at the place of its request; the others' plans at theirs."""
    plan = world.message()
    busy = LockstepError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_OPEN_PLANS", "full", {"quota": "3"}, retry_after=timedelta(seconds=5)
    )
    invalid = field_invalid(FieldInvalid("payer_signatures", "must be given"))
    coordinator.script.will(
        "ExecutePlans", response(messages.PlanAnswer(plan=plan), refused(invalid), messages.PlanAnswer(plan=plan), refused(busy))
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        requests = [execution(plan.header.plan_id, {leg_id("delivery"): b"s" * 65}) for _ in range(4)]
        one, two, three, four = await client.execute_plans(requests)
        assert await client.execute_plans([]) == []
    assert one == three == plan
    assert isinstance(two, LockstepError)
    assert (two.code, two.reason, two.fields[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "payer_signatures")
    assert isinstance(four, LockstepError)
    assert (four.reason, four.metadata, four.retry_after) == ("QUOTA_OPEN_PLANS", {"quota": "3"}, timedelta(seconds=5))
    (sent,) = coordinator.script.asked("ExecutePlans")
    assert list(sent.requests) == requests


async def test_only_what_was_not_done_is_sent_again(coordinator: Any, tls: Any, world: Any) -> None:
    """What may be done soon, and what was done and did not fit, goes out again as it is, a bounded number of times; then its error is its answer."""
    plan = messages.PlanAnswer(plan=world.message())
    held = refused(unavailable("PLAN_HELD_ELSEWHERE", "held"))
    coordinator.script.will("ExecutePlans", response(held, plan, refused(TOO_LARGE)), response(held, plan), response(held))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        requests = [execution("p", {}) for _ in range(3)]
        found = await client.execute_plans(requests)
    assert isinstance(found[0], LockstepError)
    assert found[0].reason == "PLAN_HELD_ELSEWHERE"
    assert found[1] == found[2] == plan.plan
    sent = [list(each.requests) for each in coordinator.script.asked("ExecutePlans")]
    assert sent == [requests, [requests[0], requests[2]], [requests[0]], [requests[0]]]


async def test_a_batch_that_nothing_answers(coordinator: Any, tls: Any) -> None:
    """A whole call that fails is tried again as it is; then nothing is known of what was in it, and it is said."""
    coordinator.script.will("SignGates", unavailable("STARTING", "starting"))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(LockstepError) as failed:
            await client.sign_gates([messages.SignGateRequest(request_id="a"), messages.SignGateRequest(request_id="b")])
    sent = coordinator.script.asked("SignGates")
    assert (failed.value.reason, len(sent)) == ("STARTING", FAST.attempts_max)
    assert all(each == sent[0] for each in sent)


async def test_a_service_that_forgets_one(coordinator: Any, tls: Any, world: Any) -> None:
    """Fewer answers than requests are no answers: nobody guesses which is whose."""
    coordinator.script.will("ExecutePlans", response(messages.PlanAnswer(plan=world.message())))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(FieldInvalid, match="answers must be as many as there were requests"):
            await client.execute_plans([execution("p", {}) for _ in range(2)])


async def test_calls_are_as_large_as_may_be(coordinator: Any, tls: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many requests a call, and so many octets; one that is larger goes alone."""
    plan = messages.PlanAnswer(plan=world.message())
    monkeypatch.setattr(batching, "BATCH_MAX", 3)
    coordinator.script.will("CreatePlans", *(messages.CreatePlansResponse(answers=[plan] * count) for count in (3, 3, 1)))
    small = [messages.CreatePlanRequest(request_id=str(number)) for number in range(7)]
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert len(await client.create_plans(small)) == 7
        assert [len(each.requests) for each in coordinator.script.asked("CreatePlans")] == [3, 3, 1]
        monkeypatch.setattr(batching, "BATCH_BYTES_MAX", 100)
        # The last answer is given until there is another.
        coordinator.script.will("CreatePlans", messages.CreatePlansResponse(answers=[plan] * 2))
        large = messages.CreatePlanRequest(request_id="x" * 200)
        assert len(await client.create_plans([large, *small[:2]])) == 3
    assert [len(each.requests) for each in coordinator.script.asked("CreatePlans")[3:]] == [1, 2]
