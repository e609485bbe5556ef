"""How many plans are worked on at a time: fewer where everything queues, more where nothing does; and whoever is turned away has lost nothing by it."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from coordinator.pressure import LINGERING_SECONDS, STEPS_MIN, Pressure, PressureSettings, Room, left
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.errors import LockstepError, from_rpc, from_status
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_testkit.factories import BUYER, SELLER, PlanCase, delivery_versus_payment

SECONDS = 60.0
SETTINGS = PressureSettings(step_seconds_max=0.5, plans_min=10, plans_max=1_000)
EVERYBODY = (BUYER.party_id, SELLER.party_id)


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ids(*numbers: int) -> list[PlanId]:
    return [PlanId(f"plan {number}") for number in numbers]


def grown(pressure: Pressure, clock: Clock, seconds: int, quickest: float) -> None:
    for _ in range(seconds):
        for factor in range(1, STEPS_MIN + 1):
            pressure.took("shared", quickest * factor)
        clock.now += 1.0
    pressure.took("shared", quickest)


def test_room_shrinks_only_where_even_the_quickest_step_was_slow() -> None:
    """A burst, in which some steps are slow, passes; a queue that stands does not."""
    assert Room(100).after(SETTINGS, 0.49, 100).plans > 100
    assert Room(100).after(SETTINGS, 0.51, 100).plans == 85
    # Room that was not used is no measure: from what was worked on, not from what might have been.
    assert Room(1_000).after(SETTINGS, 0.51, 100).plans == 85


def test_room_grows_only_where_it_was_used() -> None:
    """What nobody fills says nothing about how much would go through; nor does a second without a step."""
    assert Room(100).after(SETTINGS, 0.1, 79).plans == 100
    assert Room(100).after(SETTINGS, None, 90).plans == 100
    assert Room(100).after(SETTINGS, 0.1, 80).plans == 109
    assert Room(100).after(SETTINGS, 0.1, 151).plans == 100


def test_room_has_bounds() -> None:
    """It is never less than what is always let in, nor more than the most."""
    room, used = Room(10), 10
    for _ in range(80):
        room = room.after(SETTINGS, 0.1, used)
        used = room.plans
    assert room.plans == 1_000
    for _ in range(50):
        room = room.after(SETTINGS, 9.0, used)
        used = room.plans
    assert room.plans == 10
    with pytest.raises(FieldInvalid, match=r"pressure\.plans_min"):
        PressureSettings(plans_min=11, plans_max=10).check()


def test_a_client_with_less_than_its_share_is_let_in() -> None:
    """One client that fills the room keeps nobody else from half of it, and is itself let in only where there is room."""
    room = Room(100)
    assert left(room, 100, 100, 1) == 0
    assert left(room, 100, 0, 2) == 50
    assert left(room, 130, 30, 2) == 20
    assert left(room, 130, 100, 2) == 0
    assert left(room, 60, 60, 2) == 40


def test_plans_take_up_room_as_long_as_something_is_done_to_them() -> None:
    """Who ends makes room; who waits for people for long takes up none, until something is done again."""
    clock = Clock()
    pressure = Pressure(SETTINGS, clock)
    assert pressure.begin("one", ids(*range(12))) == frozenset(ids(*range(10)))
    with pytest.raises(LockstepError) as caught:
        pressure.check("one", "plan 99")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    assert caught.value.retry_after is not None
    assert 1.0 <= caught.value.retry_after.total_seconds() < 2.0
    # What is worked on already takes up no more.
    assert pressure.begin("one", ids(3)) == frozenset()
    assert pressure.knows(PlanId("plan 3"))
    pressure.ended(ids(3, 77))
    assert pressure.begin("one", ids(10, 11)) == frozenset(ids(10))
    clock.now += LINGERING_SECONDS - 1
    pressure.worked(ids(0, 1))
    clock.now += 2
    assert len(pressure.begin("one", ids(*range(20, 40)))) == 8


def test_the_room_follows_what_steps_take() -> None:
    """Second by second; the slowest kind of step counts, each by its quickest."""
    clock = Clock()
    pressure = Pressure(SETTINGS, clock)
    for start in range(0, 400, 40):
        pressure.begin("one", ids(*range(start, start + 40)))
        grown(pressure, clock, 1, 0.01)
    much = len([each for each in range(400) if pressure.knows(PlanId(f"plan {each}"))])
    assert much > 30
    for _ in range(30):
        for _ in range(STEPS_MIN):
            pressure.took("dlt-gateway", 2.0)
        grown(pressure, clock, 1, 0.01)
    pressure.ended(ids(*range(400)))
    assert len(pressure.begin("one", ids(*range(500, 600)))) == SETTINGS.plans_min


def test_a_few_slow_steps_say_nothing() -> None:
    """Even the quickest of two may have been slow; of enough it says that everything is."""

    def let(steps: int) -> int:
        clock = Clock()
        pressure = Pressure(SETTINGS, clock)
        for start in range(0, 200, 20):
            pressure.begin("one", ids(*range(start, start + 20)))
            grown(pressure, clock, 1, 0.01)
        for _ in range(steps):
            pressure.took("notary", 2.0)
        clock.now += 1.0
        pressure.took("notary", 2.0)
        pressure.ended(ids(*range(200)))
        return len(pressure.begin("one", ids(*range(500, 900))))

    assert let(STEPS_MIN) < let(STEPS_MIN - 1)


def test_a_failed_step_says_nothing() -> None:
    """A participant that is down answers nothing in its time: that is no queue."""
    clock = Clock()
    pressure = Pressure(SETTINGS, clock)

    def fails() -> None:
        with pressure.timed("bank-gateway"):
            clock.now += 20.0
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fails()
    pressure.begin("one", ids(*range(10)))
    grown(pressure, clock, 2, 0.01)
    assert len(pressure.begin("one", ids(*range(20, 40)))) > 0


def execution(plan: PlanCase) -> messages.ExecutePlanRequest:
    signed = messages.PayerSignature(leg_id="tokens", signature=bytes(65))
    return messages.ExecutePlanRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id, payer_signatures=[signed])


async def test_who_is_turned_away_comes_again(world: Any) -> None:
    """Of three drafts two are started; the third is told when to come again, stays what it was, and goes once there is room. Another client has its share."""
    clients = dict.fromkeys(("test", "other"), CallerSettings(methods=("*",), parties=EVERYBODY))
    async with world.coordinator(pressure=PressureSettings(plans_min=2, plans_max=2), clients=clients, operators={}):
        plans = [delivery_versus_payment() for _ in range(3)]
        for each in plans:
            await world.create(each)
        asked = [execution(each) for each in plans]
        answers = (await world.api.ExecutePlans(messages.ExecutePlansRequest(requests=asked), timeout=SECONDS)).answers
        assert [each.WhichOneof("answer") for each in answers] == ["plan", "plan", "refusal"]
        refused = from_status(answers[2].refusal.code, answers[2].refusal.message, answers[2].refusal.details)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
        assert refused.retry_after is not None
        for call in (
            world.api.ExecutePlan(asked[2], timeout=SECONDS),
            world.api.CreatePlan(world.creation(delivery_versus_payment()), timeout=SECONDS),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert from_rpc(caught.value).reason == "OVERLOADED"
        assert (await world.get(plans[2])).state == settlement_pb2.PlanState.PLAN_STATE_DRAFT
        assert len(await world.rows("select from plan")) == 3
        other = world.stub(world.port, "spiffe://lockstep.local/client/other")
        await other.CreatePlan(world.creation(delivery_versus_payment()), timeout=SECONDS)
        for each in plans[:2]:
            await world.cancel(each)
            await world.reaches(each, "CLOSED")
        await world.api.ExecutePlan(asked[2], timeout=SECONDS)
        await world.reaches(plans[2], "READY_FOR_PREPARE")


async def test_what_was_not_started_takes_up_no_room(world: Any) -> None:
    """Executions that break a rule leave the room as it was."""
    async with world.coordinator(pressure=PressureSettings(plans_min=1, plans_max=1)):
        plan = delivery_versus_payment()
        await world.create(plan)
        wrong = messages.ExecutePlanRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id)
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await world.api.ExecutePlan(wrong, timeout=SECONDS)
            assert from_rpc(caught.value).reason == "FIELD_INVALID"
        await world.api.ExecutePlan(execution(plan), timeout=SECONDS)
