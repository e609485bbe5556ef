"""The outcome log as a stream: nothing missed, nothing skipped, whatever commits beside it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lockstep_kit.db import Database
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.migrate import renew_logs
from lockstep_kit.participant import convert, store
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.participant.watching import Changes, Cursor
from lockstep_testkit import commands
from lockstep_testkit.factories import delivery_versus_payment

if TYPE_CHECKING:
    Bench = Any


async def read_until(engine: ParticipantEngine, after: Cursor | None, sequence: int) -> list[Changes]:
    """Everything that a watcher is told until a number."""
    told: list[Changes] = []
    async for changes in engine.watch(after):
        told.append(changes)
        if changes.cursor.sequence >= sequence:
            break
    return told


async def test_nothing_is_passed_over(bench: Bench, engine: ParticipantEngine, db: Database) -> None:
    """While many transactions commit at once, some of them slowly and some never, numbers become visible densely and in order."""
    rng = random.Random(7)
    plans = [delivery_versus_payment() for _ in range(60)]
    done = asyncio.Event()
    seen: list[int] = []

    async def one(plan: Any) -> None:
        await bench.prepare(plan)
        for finding in (Finding.VOTED_YES, Finding.LAPSED):
            try:
                async with db.transaction() as tx:
                    await engine.complete(tx, [bench.completion(plan, finding)])
                    await asyncio.sleep(rng.random() / 50)
                    if rng.random() < 0.2:
                        raise RuntimeError("rolled back")
            except RuntimeError:
                await bench.find(plan, finding)

    async def reader() -> None:
        at = 0
        while not done.is_set() or at < 180:
            async with db.connection() as connection:
                rows = await connection.fetch(
                    "select sequence from participant_outcome_log where sequence > $1 order by sequence", at
                )
            seen.extend(row["sequence"] for row in rows)
            at = seen[-1] if seen else 0
            await asyncio.sleep(0)

    watcher = asyncio.create_task(read_until(engine, None, 180))
    polling = asyncio.create_task(reader())
    await asyncio.gather(*(one(plan) for plan in plans))
    done.set()
    await asyncio.wait_for(polling, 90)
    assert seen == list(range(1, 181))
    told = await asyncio.wait_for(watcher, 90)
    last = {record.plan_id: record.fence for changes in told for record in changes.records}
    assert {plan_id: (fence.phase, fence.revision) for plan_id, fence in last.items()} == {
        plan.plan_id: (Phase.REFUSED, 3) for plan in plans
    }
    cursors = [changes.cursor.sequence for changes in told]
    assert cursors == sorted(cursors)


async def test_resumes_after_the_cursor(bench: Bench, engine: ParticipantEngine) -> None:
    """From every cursor that was handed out, a watcher is told of everything after it."""
    for _ in range(3):
        await bench.reach(Phase.COMMITTED)
    log = await bench.log()
    head, _ = await engine.log_head()
    assert head.sequence == len(log) == 12
    for sequence in range(len(log) + 1):
        told = await read_until(engine, Cursor(head.incarnation, sequence), len(log))
        assert {record.plan_id for changes in told for record in changes.records} == {
            plan for number, plan, _ in log if number > sequence
        }


@pytest.mark.parametrize("other", ["incarnation", "ahead", "negative"])
async def test_cursor_of_another_database(bench: Bench, engine: ParticipantEngine, other: str) -> None:
    """A cursor of another log, or one ahead of this one, comes from another database: everything is sent again."""
    plan = await bench.reach(Phase.PREPARED)
    head, _ = await engine.log_head()
    cursor = {
        "incarnation": Cursor("00000000-0000-4000-8000-000000000000", head.sequence),
        "ahead": Cursor(head.incarnation, head.sequence + 1),
        "negative": Cursor(head.incarnation, -1),
    }[other]
    told = await read_until(engine, cursor, head.sequence)
    assert [record.plan_id for changes in told for record in changes.records] == [plan.plan_id]


async def test_long_log_comes_in_pages(bench: Bench, engine: ParticipantEngine, operations: Any, db: Database) -> None:
    """A watcher from the beginning gets bounded pages, each leg once a page and as it is now."""
    operations.at_once = True
    plans = [delivery_versus_payment() for _ in range(200)]
    await bench.send(*(convert.read_prepare(commands.prepare(plan, bench.LEG)) for plan in plans))
    told = await read_until(engine, None, 400)
    assert all(len(changes.records) <= 256 for changes in told)
    for changes in told:
        keys = [record.key_of_leg for record in changes.records]
        assert len(keys) == len(set(keys))
    assert {record.plan_id for changes in told for record in changes.records} == {plan.plan_id for plan in plans}
    async with db.connection() as connection:
        page = await store.changes(connection, 400, 256)
    assert (page.records, page.read, page.last) == ([], 400, 400)


@pytest.mark.parametrize(
    "settings",
    [ParticipantSettings(signing_key_file=Path("unused"), registry_file=Path("unused"), heartbeat_seconds=60, poll_seconds=60)],
    ids=["no heartbeat, no poll"],
)
async def test_live_change_wakes(bench: Bench, engine: ParticipantEngine) -> None:
    """A change reaches a waiting watcher by notification: a heartbeat would come too late."""
    plan, stream = delivery_versus_payment(), engine.watch(None)
    assert (await anext(stream)).records == ()
    watching = asyncio.create_task(anext(stream))
    await bench.prepare(plan)
    changes = await asyncio.wait_for(watching, 45)
    assert [record.plan_id for record in changes.records] == [plan.plan_id]
    await stream.aclose()


async def test_a_database_that_is_put_back_under_a_stream(bench: Bench, engine: ParticipantEngine) -> None:
    """When the log under an open stream becomes another one, everything is sent again, under its name."""
    plan = await bench.reach(Phase.PREPARED)
    head, _ = await engine.log_head()
    stream = engine.watch(head)
    assert (await anext(stream)).cursor == head
    await asyncio.to_thread(renew_logs, bench.database.owner_url)
    async with asyncio.timeout(60):
        while not (again := await anext(stream)).records:
            pass
    assert again.cursor.incarnation != head.incarnation
    assert [record.plan_id for record in again.records] == [plan.plan_id]
    await stream.aclose()
