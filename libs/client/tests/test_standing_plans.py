"""Plans kept up to date by one stream: what `lockstep top`, the console's board and agents read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.commands.top import followed_plans, read_overview
from lockstep_client.operators import OperatorClient
from lockstep_client.standing_plans import StandingPlans
from lockstep_kit.errors import LockstepError, permission_denied, unavailable

FAST = CallSettings(deadline_seconds=60.0, attempts_max=1, pause_seconds_max=0.05, unreachable_seconds_max=0.2)
SECONDS_MAX = 60.0
CLOSED = settlement.PLAN_STATE_CLOSED
PREPARED = settlement.PLAN_STATE_PREPARED


def plan(plan_id: str, changed: int, state: Any = PREPARED, made: int = 0) -> settlement.Plan:
    found = settlement.Plan(state=state)
    found.header.plan_id = plan_id
    found.create_time.FromSeconds(made)
    found.update_time.FromSeconds(changed)
    return found


def told(*plans: settlement.Plan, left: Sequence[str] = (), token: str = "", complete: bool = False) -> Any:
    news = [messages.PlanNews(plan_id=each.header.plan_id, sequence=each.update_time.seconds, plan=each) for each in plans] + [
        messages.PlanNews(plan_id=each, left=True) for each in left
    ]
    return messages.WatchPlansResponse(news=news, resume_token=token, snapshot_complete=complete)


@asynccontextmanager
async def standing(coordinator: Any, tls: Any, **more: Any) -> AsyncIterator[tuple[StandingPlans, asyncio.Task[None]]]:
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        made = StandingPlans(client, **more)
        running = asyncio.create_task(made.run())
        try:
            yield made, running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(plans: StandingPlans, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():
            ticket = plans.bell.ticket()
            if not holds():
                await ticket.wait()


async def again(read: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    """What is read, once it holds."""
    give_up = time.monotonic() + SECONDS_MAX
    while not holds(found := await read()):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)
    return found


def shown(plans: StandingPlans) -> dict[str, int]:
    return {plan_id: each.update_time.seconds for plan_id, each in plans.plans.items()}


async def test_they_stand_as_they_were_told_last(coordinator: Any, tls: Any) -> None:
    """They are those of the snapshot as changed since, without what closed or left, over a coordinator that is away longer than a stream waits."""
    coordinator.script.will(
        "WatchPlans",
        lambda _: [
            told(plan("a", 1), plan("b", 1), plan("d", 1), complete=True, token="a"),
            told(plan("a", 2), plan("d", 2, CLOSED), left=["b"], token="b"),
            unavailable("X", "x"),
        ],
        *[unavailable("STARTING", "starting")] * 12,
        lambda _: [told(plan("c", 3), token="c")],
    )
    async with standing(coordinator, tls) as (plans, running):
        await until(plans, lambda: plans.known and plans.trouble is not None)
        assert plans.trouble is not None
        assert shown(plans) == {"a": 2}
        await until(plans, lambda: "c" in plans.plans)
        assert shown(plans) == {"a": 2, "c": 3}
        assert not running.done()
    tokens = [request.resume_token for request in coordinator.script.asked("WatchPlans")]
    assert tokens == ["", *["b"] * 13]


async def test_the_newest_of_what_closed_is_kept(coordinator: Any, tls: Any) -> None:
    """What a snapshot has not is asked for beside it, and superseded only by what is newer; of what closed the newest stay."""

    async def seed() -> list[settlement.Plan]:
        return [plan("old", 5, CLOSED, made=1), plan("new", 5, CLOSED, made=9), plan("a", 5, made=8)]

    coordinator.script.will(
        "WatchPlans",
        lambda _: [
            told(plan("a", 1, made=8), complete=True, token="a"),
            told(plan("a", 4, made=8), token="b"),
            told(plan("newest", 6, CLOSED, made=10), token="c"),
        ],
    )
    async with standing(coordinator, tls, seed=seed, closed_max=2) as (plans, _):
        await until(plans, lambda: "newest" in plans.plans)
        assert shown(plans) == {"a": 5, "new": 5, "newest": 6}


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED])
async def test_trouble_inside_is_waited_for(coordinator: Any, tls: Any, code: grpc.StatusCode) -> None:
    """A coordinator that cannot say what is wrong refuses nobody: it is asked again, and meanwhile it is told."""
    coordinator.script.will(
        "WatchPlans",
        *[LockstepError(code, "TROUBLE", "it went wrong inside")] * 3,
        lambda _: [told(plan("a", 1), complete=True, token="a")],
    )
    async with standing(coordinator, tls) as (plans, running):
        await until(plans, lambda: plans.trouble is not None)
        await until(plans, lambda: plans.known)
        assert shown(plans) == {"a": 1}
        assert plans.trouble is None
        assert not running.done()


async def test_a_refusal_ends_it(coordinator: Any, tls: Any) -> None:
    """Who may not follow plans is told so."""
    coordinator.script.will("WatchPlans", permission_denied("CALLER_DENIED", "no"))
    async with standing(coordinator, tls) as (plans, running):
        with pytest.raises(LockstepError, match="CALLER_DENIED"):
            await running
        assert plans.trouble is not None
        assert not plans.known


async def test_top_follows(coordinator: Any, tls: Any) -> None:
    """`lockstep top` asks for plans once; after that it reads what the stream brought, and says so when the coordinator is away."""
    coordinator.script.will("ListPlans", messages.ListPlansResponse(plans=[plan("a", 1)]))
    coordinator.script.will("ListEscalations", operators.ListEscalationsResponse())
    coordinator.script.will("ListInDoubt", operators.ListInDoubtResponse())
    coordinator.script.will(
        "WatchPlans",
        lambda _: [told(plan("a", 1), complete=True, token="a"), told(plan("b", 2), plan("a", 2, CLOSED), token="b")],
    )
    async with (
        LockstepClient(coordinator.target, tls, FAST) as client,
        OperatorClient(coordinator.target, tls, FAST) as desk,
        followed_plans(client, 3.0) as read,
    ):
        overview = await again(
            lambda: read_overview(read, desk), lambda seen: [each.header.plan_id for each in seen.plans] == ["b"]
        )
        assert not overview.more
        assert len(coordinator.script.asked("ListPlans")) == 1
        coordinator.script.answers["WatchPlans"] = [unavailable("STARTING", "starting")]
        await coordinator.stop()
        with pytest.raises(LockstepError):
            await again(read, lambda _: False)
        await coordinator.start()
    asked = coordinator.script.asked("WatchPlans")[0]
    assert (asked.whole_plans, asked.gather_time.seconds) == (True, 3)
