"""Streams that outlive the service that serves them: without gap, without duplicate."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from lockstep.coordinator.v1.settlement_service_pb2 import WatchPlanRequest
from lockstep_client.following import Changes, OpenPlans
from lockstep_client.watching import Change, Snapshot
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew

STREAM_SECONDS_MAX = 300.0
HEARTBEAT_SECONDS_MAX = 120.0


async def test_a_watch_resumes_over_a_restart(sandbox: Sandbox, crew: Crew) -> None:
    """A watcher sees every event of the plan once and in order, though the coordinator restarts in between."""
    plan_id = (await crew.started(crew.payments())).header.plan_id
    seen: list[int] = []
    snapshots: list[str] = []
    tokens: list[str] = []
    shown = asyncio.Event()

    async def watch() -> None:
        async for news in crew.client.watch_plan(plan_id):
            tokens.append(news.resume_token)
            match news:
                case Snapshot():
                    snapshots.append(news.resume_token)
                    shown.set()
                case Change():
                    seen.append(news.event.sequence)

    async with asyncio.timeout(STREAM_SECONDS_MAX):
        watching = asyncio.create_task(watch())
        await crew.awaiting(plan_id, "release")
        await shown.wait()
        await sandbox.supervisor.kill9("coordinator")
        await sandbox.supervisor.restart("coordinator")
        await crew.driven(plan_id)
        await watching
    assert len(snapshots) == 1
    async with crew.database("coordinator") as database:
        # Events are numbered within their plan.
        stored = list(range(1, await database.fetchval("select count(*) from plan_event where plan_id = $1", plan_id) + 1))
    assert seen == stored[-len(seen) :]
    # A watch that begins in the middle brings exactly the rest.
    rest = [
        news.event.sequence async for news in crew.client.watch_plan(plan_id, resume_token=tokens[2]) if isinstance(news, Change)
    ]
    assert rest == seen[2:]


async def test_all_plans_are_watched_over_a_restart(sandbox: Sandbox, crew: Crew) -> None:
    """Who follows all plans sees every event of an open one and of one that is created later, once and in order, though the coordinator is killed."""
    first = (await crew.started(crew.payments())).header.plan_id
    numbers: dict[str, list[int]] = defaultdict(list)
    snapshots: list[frozenset[str]] = []
    shown, news = asyncio.Event(), asyncio.Condition()

    async def watch() -> None:
        async for each in crew.client.watch_plans():
            match each:
                case OpenPlans():
                    snapshots.append(frozenset(each.plans))
                    shown.set()
                case Changes():
                    for told in each.news:
                        numbers[told.plan_id] += [event.sequence for event in told.events]
                    async with news:
                        news.notify_all()

    async with asyncio.timeout(STREAM_SECONDS_MAX):
        watching = asyncio.create_task(watch())
        await shown.wait()
        later = (await crew.started(crew.payments())).header.plan_id
        await crew.awaiting(first, "release")
        await sandbox.supervisor.kill9("coordinator")
        await sandbox.supervisor.restart("coordinator")
        await asyncio.gather(crew.driven(first), crew.driven(later))
        async with crew.database("coordinator") as database:
            count = "select count(*) from plan_event where plan_id = $1"
            ends = {plan_id: await database.fetchval(count, plan_id) for plan_id in (first, later)}
        async with news:
            await news.wait_for(lambda: all(numbers[plan_id][-1:] == [end] for plan_id, end in ends.items()))
        watching.cancel()
    assert len(snapshots) == 1
    assert first in snapshots[0]
    assert numbers[later] == list(range(1, ends[later] + 1))
    assert numbers[first] == list(range(numbers[first][0], ends[first] + 1))


async def test_a_quiet_watch_has_heartbeats(crew: Crew) -> None:
    """While nothing happens to a plan, its watcher hears that the service is there."""
    plan = await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")
    bare, stub = crew.stub()
    call = stub.WatchPlan(WatchPlanRequest(plan_id=plan.header.plan_id), timeout=HEARTBEAT_SECONDS_MAX)
    async for message in call:
        if message.WhichOneof("message") == "heartbeat":
            assert message.heartbeat.HasField("clock_time")
            break
    else:
        raise AssertionError("the stream ended without a heartbeat")
    call.cancel()
    await bare.close()
    await crew.driven(plan.header.plan_id)


async def test_the_journal_replays_and_goes_on_live(crew: Crew) -> None:
    """A watch of the journal brings what is stored and what follows, each entry once and in order, up to the seal."""
    plan_id = (await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")).header.plan_id
    driving = crew.driving(plan_id)
    sequences: list[int] = []

    async def watch() -> None:
        async for entry in crew.journal.watch_entries(plan_id=plan_id):
            sequences.append(entry.sequence)
            if entry.type == "plan.closed":
                return

    async with asyncio.timeout(STREAM_SECONDS_MAX):
        await asyncio.gather(watch(), driving)
    stored = [entry.sequence for entry in await crew.entries(plan_id)]
    assert sequences == stored == list(range(1, len(stored) + 1))
