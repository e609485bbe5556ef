"""The client over a real mTLS connection to a coordinator that answers what a test puts down."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.making import create
from lockstep_client.watching import Change, Snapshot
from lockstep_kit.errors import LockstepError, field_invalid, precondition, unavailable
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import leg_id, sha256
from lockstep_kit.signing import SigningKey

FAST = CallSettings(
    deadline_seconds=60.0, attempts_max=4, pause_seconds_max=0.05, silence_seconds_max=60.0, unreachable_seconds_max=120.0
)
TOO_OLD = LockstepError(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "the token is too old")


async def test_one_request_one_id(coordinator: Any, tls: Any, world: Any) -> None:
    """A request that is tried again because nothing answered carries the id that it was first sent with, byte for byte the same."""
    plan = world.message()
    coordinator.script.will(
        "ExecutePlan", unavailable("LEG_BUSY", "busy"), unavailable("LEG_BUSY", "busy"), messages.ExecutePlanResponse(plan=plan)
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert (await client.execute_plan(plan.header.plan_id, {leg_id("delivery"): b"s" * 65})).plan_digest == plan.plan_digest
        sent = coordinator.script.asked("ExecutePlan")
        assert len(sent) == 3
        assert len({request.SerializeToString(deterministic=True) for request in sent}) == 1
        await client.execute_plan(plan.header.plan_id, {})
    later = coordinator.script.asked("ExecutePlan")[-1].request_id
    assert later != sent[0].request_id
    # As with a plan's id, what is drawn later lies behind it in the database's index.
    assert uuid.UUID(later).version == 7
    assert uuid.UUID(later).int >> 80 >= uuid.UUID(sent[0].request_id).int >> 80


async def test_tries_are_bounded(coordinator: Any, tls: Any) -> None:
    """UNAVAILABLE is tried a bounded number of times and then said."""
    coordinator.script.will("GetPlan", unavailable("STARTING", "starting"))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(LockstepError) as refused:
            await client.get_plan("p")
    assert (refused.value.reason, len(coordinator.script.asked("GetPlan"))) == ("STARTING", FAST.attempts_max)


async def test_what_a_stopping_server_drops_is_tried_again(coordinator: Any, tls: Any, world: Any) -> None:
    """CANCELLED, which no caller asked for, is no answer: the same request goes to whoever serves next."""
    dropped = LockstepError(grpc.StatusCode.CANCELLED, "CANCELLED", "")
    coordinator.script.will("GetPlan", dropped, messages.GetPlanResponse(plan=world.message()))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        await client.get_plan("p")
    assert len(coordinator.script.asked("GetPlan")) == 2


async def test_a_limit_that_is_soon_over_is_waited_for(coordinator: Any, tls: Any, world: Any) -> None:
    """A refusal by a limit is tried again where it is over within a pause, and is the answer where it asks for more patience."""

    def limit(seconds: float) -> LockstepError:
        after = timedelta(seconds=seconds)
        return LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLS_TOO_FAST", "too fast", retry_after=after)

    coordinator.script.will("GetPlan", limit(0.02), messages.GetPlanResponse(plan=world.message()), limit(30))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        await client.get_plan("p")
        assert len(coordinator.script.asked("GetPlan")) == 2
        with pytest.raises(LockstepError) as refused:
            await client.get_plan("p")
    assert refused.value.reason == "CALLS_TOO_FAST"
    assert len(coordinator.script.asked("GetPlan")) == 3


@pytest.mark.parametrize(
    "error",
    [precondition("PLAN_STATE", "the plan is executing"), field_invalid(FieldInvalid("legs[0].leg_id", "must be unique")), TOO_OLD],
)
async def test_a_refusal_is_not_tried_again(coordinator: Any, tls: Any, error: LockstepError) -> None:
    """Anything but UNAVAILABLE is the answer, with the service's reason and fields."""
    coordinator.script.will("GetPlan", error)
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(LockstepError) as refused:
            await client.get_plan("p")
    assert (refused.value.reason, [each.field for each in refused.value.fields]) == (
        error.reason,
        [each.field for each in error.fields],
    )
    assert len(coordinator.script.asked("GetPlan")) == 1


async def test_pages(coordinator: Any, tls: Any) -> None:
    """Lists are read to their end, page by page."""
    pages = [
        messages.ListPlansResponse(plans=[settlement.Plan(etag="1"), settlement.Plan(etag="2")], next_page_token="more"),
        messages.ListPlansResponse(plans=[settlement.Plan(etag="3")]),
    ]
    coordinator.script.will("ListPlans", *pages)
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        found = [plan.etag async for plan in client.list_plans(states=[settlement.PLAN_STATE_VALIDATING])]
    assert found == ["1", "2", "3"]
    assert [request.page_token for request in coordinator.script.asked("ListPlans")] == ["", "more"]


async def watch(client: LockstepClient, token: str = "") -> list[str]:
    seen = []
    async for news in client.watch_plan("p", resume_token=token):
        match news:
            case Snapshot():
                seen.append(f"snapshot {news.plan.etag}")
            case Change():
                seen.append(f"{news.event.sequence}")
    return seen


async def test_a_watch_goes_on_where_it_was(coordinator: Any, tls: Any, watched: Any) -> None:
    """After a lost connection a watch goes on with its last token, heartbeats' tokens included, and shows each change once."""
    coordinator.script.will(
        "WatchPlan",
        lambda _: [
            watched(snapshot=settlement.Plan(etag="1"), token="a"),
            watched(sequence=5, token="b"),
            watched(token="c"),
            unavailable("DRAINING", "draining"),
        ],
        lambda _: [
            watched(sequence=4, token="d"),
            watched(sequence=5, token="e"),
            watched(sequence=6, token="f"),
            unavailable("X", "x"),
        ],
        lambda _: [watched(sequence=7, token="g")],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert await watch(client) == ["snapshot 1", "5", "6", "7"]
    assert [request.resume_token for request in coordinator.script.asked("WatchPlan")] == ["", "c", "f"]


async def test_who_watches_is_told_of_silence(coordinator: Any, tls: Any, watched: Any) -> None:
    """Between the loss of a watch's connection and the next message its caller knows that nothing is heard, and why."""
    told: list[str] = []
    coordinator.script.will(
        "WatchPlan",
        lambda _: [watched(sequence=1, token="a"), unavailable("DRAINING", "draining")],
        lambda _: [watched(sequence=2, token="b")],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        async for news in client.watch_plan("p", lost=lambda error: told.append("" if error is None else error.reason)):
            assert isinstance(news, Change)
            told.append(str(news.event.sequence))
    assert told == ["", "1", "DRAINING", "", "2"]


async def test_a_token_that_is_too_old(coordinator: Any, tls: Any, watched: Any) -> None:
    """A resume token that has expired is given up for a snapshot; what was seen before it is not shown again."""
    coordinator.script.will(
        "WatchPlan",
        TOO_OLD,
        lambda _: [watched(snapshot=settlement.Plan(etag="9"), token="a"), watched(sequence=3, token="b")],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert await watch(client, token="ancient") == ["snapshot 9", "3"]
    assert [request.resume_token for request in coordinator.script.asked("WatchPlan")] == ["ancient", ""]


async def test_a_watch_that_is_refused(coordinator: Any, tls: Any) -> None:
    """A refusal ends a watch: there is no such plan, or a token that no new start can help."""
    coordinator.script.will("WatchPlan", LockstepError(grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND", "there is no plan p"))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(LockstepError, match="PLAN_NOT_FOUND"):
            await watch(client)


async def test_a_watch_survives_a_restart(coordinator: Any, tls: Any, watched: Any) -> None:
    """When the coordinator's process ends and comes back on its port, the watch goes on."""
    first = asyncio.Event()

    async def restart() -> None:
        await first.wait()
        await coordinator.stop()
        await asyncio.sleep(0.3)
        await coordinator.start()

    async def watching(client: LockstepClient) -> list[int]:
        seen = []
        async for news in client.watch_plan("p"):
            first.set()
            if isinstance(news, Change):
                seen.append(news.event.sequence)
        return seen

    coordinator.script.will(
        "WatchPlan",
        lambda _: [
            watched(snapshot=settlement.Plan(), token="a"),
            watched(sequence=1, token="b"),
            unavailable("DRAINING", "draining"),
        ],
        unavailable("STARTING", "starting"),
        lambda _: [watched(sequence=2, token="c")],
    )
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        seen, _ = await asyncio.gather(watching(client), restart())
    assert seen == [1, 2]


async def test_a_watch_gives_up_in_the_end(tls: Any) -> None:
    """Where nobody answers for longer than the limit, a watch says so."""
    settings = CallSettings(pause_seconds_max=0.05, unreachable_seconds_max=0.5)
    begun = time.monotonic()
    async with LockstepClient("127.0.0.1:1", tls, settings) as client:
        with pytest.raises(LockstepError) as refused:
            await watch(client)
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - begun < 60


async def test_the_coordinator_cannot_exchange_the_plan(coordinator: Any, tls: Any, world: Any) -> None:
    """A coordinator that answers with another plan than the maker signed, or with legs that are not the plan's, is found out."""
    maker = SigningKey(sha256(b"maker"))
    right = world.message()
    wrong_legs = world.message()
    wrong_legs.legs[0].leg.token_transfer.amount.minor_units = "1"
    other = world.message()
    other.header.reference = "another"
    coordinator.script.will("CreatePlan", *(messages.CreatePlanResponse(plan=each) for each in (right, other, wrong_legs)))
    async with LockstepClient(coordinator.target, tls, FAST) as client:
        assert (await create(client, world.draft, maker)).plan_digest == right.plan_digest
        with pytest.raises(FieldInvalid, match="must be the plan that was signed"):
            await create(client, world.draft, maker)
        with pytest.raises(FieldInvalid, match="must be those under the plan's legs_root"):
            await create(client, world.draft, maker)
