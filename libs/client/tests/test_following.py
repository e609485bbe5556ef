"""Following all plans: snapshot, then changes, each once, over lost streams and tokens that grew too old."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.type.v1 import signature_pb2
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.following import Changes, OpenPlans, PlansWish
from lockstep_kit.errors import LockstepError, permission_denied, unavailable

FAST = CallSettings(
    deadline_seconds=60.0, attempts_max=4, pause_seconds_max=0.05, silence_seconds_max=60.0, unreachable_seconds_max=120.0
)
TOO_OLD = LockstepError(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "the token is too old")


def standing(plan_id: str, sequence: int) -> messages.PlanNews:
    """A plan of a snapshot."""
    return messages.PlanNews(plan_id=plan_id, sequence=sequence, plan=settlement.Plan(etag=f"{sequence}"))


def happened(plan_id: str, *numbers: int, **more: Any) -> messages.PlanNews:
    """What happened to a plan."""
    events = [settlement.PlanEvent(plan_id=plan_id, sequence=each) for each in numbers]
    return messages.PlanNews(plan_id=plan_id, sequence=numbers[-1], events=events, **more)


def told(*news: messages.PlanNews, token: str = "", complete: bool = False) -> messages.WatchPlansResponse:
    return messages.WatchPlansResponse(news=news, resume_token=token, snapshot_complete=complete)


async def follow(client: LockstepClient, most: int, token: str = "", wish: PlansWish | None = None) -> list[str]:
    """What is shown until so much was."""
    seen: list[str] = []
    async for news in client.watch_plans(wish, resume_token=token):
        match news:
            case OpenPlans():
                seen.append("open " + " ".join(f"{plan_id}@{plan.etag}" for plan_id, plan in sorted(news.plans.items())))
            case Changes():
                seen += [f"{each.plan_id} {_numbers(each.events)}{' left' if each.left else ''}" for each in news.news]
        if len(seen) >= most:
            break
    return seen


def _numbers(events: Sequence[settlement.PlanEvent]) -> str:
    return ",".join(str(each.sequence) for each in events)


async def test_it_goes_on_where_it_was(coordinator: Any, tls: Any) -> None:
    """After a lost stream it goes on with the last token that it was given; what it saw of a plan, in the snapshot or after it, is not shown again."""
    coordinator.script.will(
        "WatchPlans",
        lambda _: [
            told(standing("p", 3)),
            told(standing("q", 7)),
            told(token="a", complete=True),
            told(happened("p", 3, 4), happened("q", 6, 7), token="b"),
            told(happened("r", 1)),
            unavailable("DRAINING", "draining"),
        ],
        lambda _: [told(happened("r", 1, 2), happened("q", 8, left=True), token="c"), unavailable("X", "x")],
        lambda _: [told(happened("p", 5), token="d")],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert await follow(client, 6) == ["open p@3 q@7", "p 4", "r 1", "r 2", "q 8 left", "p 5"]
    assert [request.resume_token for request in coordinator.script.asked("WatchPlans")] == ["", "b", "c"]


async def test_a_snapshot_that_is_lost_begins_anew(coordinator: Any, tls: Any) -> None:
    """Half a snapshot is never shown: the next one counts alone."""
    coordinator.script.will(
        "WatchPlans",
        lambda _: [told(standing("gone", 1)), unavailable("X", "x")],
        lambda _: [told(standing("p", 2)), told(token="a", complete=True)],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert await follow(client, 1) == ["open p@2"]


async def test_a_token_that_is_too_old(coordinator: Any, tls: Any) -> None:
    """It is given up for a snapshot, after which numbers count anew."""
    coordinator.script.will(
        "WatchPlans",
        lambda _: [told(happened("p", 9), token="a"), unavailable("X", "x")],
        TOO_OLD,
        lambda _: [told(standing("p", 4)), told(token="b", complete=True), told(happened("p", 5), token="c")],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert await follow(client, 3, token="ancient") == ["p 9", "open p@4", "p 5"]
    assert [request.resume_token for request in coordinator.script.asked("WatchPlans")] == ["ancient", "a", ""]


async def test_what_is_asked(coordinator: Any, tls: Any) -> None:
    """What is wished for is asked for, each time; a refusal is said."""
    coordinator.script.will("WatchPlans", unavailable("X", "x"), permission_denied("CALLER_DENIED", "no"))
    wish = PlansWish([settlement.PLAN_STATE_PREPARED], signature_pb2.GATE_RELEASE, "buyer", True, timedelta(seconds=1.5))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(LockstepError, match="CALLER_DENIED"):
            await follow(client, 1, wish=wish)
    first, second = coordinator.script.asked("WatchPlans")
    assert first == second
    assert (list(first.filter.states), first.filter.waiting_for, first.filter.party_id) == ([5], 3, "buyer")
    assert first.whole_plans
    assert first.gather_time.ToTimedelta() == timedelta(seconds=1.5)


async def test_it_survives_a_restart(coordinator: Any, tls: Any) -> None:
    """When the coordinator's process ends and comes back on its port, it goes on."""
    coordinator.script.will(
        "WatchPlans",
        lambda _: [told(token="a", complete=True), told(happened("p", 1), token="b"), unavailable("X", "x")],
        lambda _: [told(happened("p", 2), token="c")],
    )

    async def restart() -> None:
        await coordinator.stop()
        await asyncio.sleep(0.3)
        await coordinator.start()

    async with LockstepClient(coordinator.target, tls, FAST) as client:
        seen = []
        async for news in client.watch_plans():
            seen.append(news)
            if len(seen) == 2:
                await restart()
            if len(seen) == 3:
                break
    assert [type(each) for each in seen] == [OpenPlans, Changes, Changes]
