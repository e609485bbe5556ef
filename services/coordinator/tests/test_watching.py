"""WatchPlan: a snapshot, then every change once and in order, across reconnections and replicas."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_testkit.factories import delivery_versus_payment
from lockstep_testkit.serving import refusal

SECONDS = 240.0


class Watch:
    """A watcher that keeps what it saw."""

    def __init__(self, world: Any, plan_id: str, token: str = "") -> None:
        self.call = world.api.WatchPlan(messages.WatchPlanRequest(plan_id=plan_id, resume_token=token), timeout=SECONDS)
        self.seen: list[messages.WatchPlanResponse] = []

    async def take(self, count: int | None = None) -> list[messages.WatchPlanResponse]:
        """So many messages, heartbeats left out; or all until the stream ends."""
        taken: list[messages.WatchPlanResponse] = []
        while count is None or len(taken) < count:
            message = await self.call.read()
            if message is grpc.aio.EOF:
                return taken
            if message.HasField("heartbeat"):
                continue
            taken.append(message)
            self.seen.append(message)
        return taken

    @property
    def sequences(self) -> list[int]:
        return [each.event.sequence for each in self.seen if each.HasField("event")]


def states(messages_: list[messages.WatchPlanResponse]) -> list[int]:
    return [each.event.transition.to_state for each in messages_ if each.event.HasField("transition")]


async def test_everything_in_order(world: Any) -> None:
    """The watcher sees the snapshot, every transition, vote, outcome and gate in order, and OK after CLOSED."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)
        watch = Watch(world, plan.plan_id)
        (first,) = await watch.take(1)
        assert first.snapshot.state == 1
        rest, _ = await asyncio.gather(watch.take(), _settle(world, plan))
        assert states(rest) == [2, 3, 4, 5, 6, 7, 8, 9]
        rows = await world.rows("select sequence from plan_event where plan_id = $1 order by sequence", plan.plan_id)
        # Its creation, the maker's gate and the first transition, lies before the snapshot.
        assert watch.sequences == [row["sequence"] for row in rows][2:]
        assert {each.event.leg.leg.leg_id for each in rest if each.event.HasField("leg")} == {leg.leg_id for leg in plan.legs}
        again = await Watch(world, plan.plan_id).take()
        assert [each.snapshot.state for each in again] == [9]
        assert await Watch(world, plan.plan_id, rest[-1].resume_token).take() == []


async def _settle(world: Any, plan: Any) -> None:
    from lockstep_kit.statements import Gate

    await world.execute(plan)
    await world.sign(plan, plan.gate(Gate.APPROVE))
    await world.reaches(plan, "PREPARED")
    await world.release(plan)
    await world.reaches(plan, "VALIDATING")
    await world.validate(plan)


async def test_resuming_leaves_no_gap(world: Any) -> None:
    """Whoever reconnects with a token, at any point and at another replica, sees each change exactly once."""
    plan = delivery_versus_payment()
    async with world.coordinator():
        await world.create(plan)
        settling = asyncio.create_task(_settle(world, plan))
        watch = Watch(world, plan.plan_id)
        await watch.take(4)
        watch.call.cancel()
        token = watch.seen[-1].resume_token
        sequences = watch.sequences
        await settling
        await world.reaches(plan, "CLOSED")
    async with world.coordinator():
        while True:
            again = Watch(world, plan.plan_id, token)
            taken = await again.take(2)
            again.call.cancel()
            sequences += again.sequences
            if len(taken) < 2:
                break
            token = taken[-1].resume_token
    rows = [
        row["sequence"] for row in await world.rows("select sequence from plan_event where plan_id = $1 order by 1", plan.plan_id)
    ]
    assert sequences == rows[rows.index(sequences[0]) :]


async def test_heartbeats_and_tokens(world: Any) -> None:
    """A silent watch shows that it lives; its tokens are of use for its plan alone."""
    async with world.coordinator():
        plan, other = delivery_versus_payment(), delivery_versus_payment()
        await world.create(plan)
        await world.create(other)
        watch = Watch(world, plan.plan_id)
        await watch.take(1)
        beat = await watch.call.read()
        assert beat.heartbeat.clock_time.seconds > 0
        resumed = Watch(world, plan.plan_id, beat.resume_token)
        await world.cancel(plan)
        assert states(await resumed.take()) == [10, 9]

        def asked(plan_id: str, token: str) -> Any:
            return world.api.WatchPlan(messages.WatchPlanRequest(plan_id=plan_id, resume_token=token), timeout=SECONDS)

        found = await refusal(asked(other.plan_id, beat.resume_token))
        assert (found.code, found.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
        assert (await refusal(asked(plan.plan_id, "garbage"))).reason == "FIELD_INVALID"
        assert (await refusal(asked(str(uuid.uuid4()), ""))).reason == "PLAN_NOT_FOUND"


async def test_drain(world: Any) -> None:
    """A replica that stops ends its watches with UNAVAILABLE."""
    async with world.coordinator() as coordinator:
        plan = delivery_versus_payment()
        await world.create(plan)
        watch = Watch(world, plan.plan_id)
        await watch.take(1)
        await coordinator.watchers.drain()
        found = await refusal(watch.call)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
