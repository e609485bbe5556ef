"""When a checkpoint is due; and that the log does not fork, whoever makes it grow, and shows it when its database is put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from log_world import PLANS, Log
from structlog.testing import capture_logs

from event_journal.log import reading, store
from event_journal.log.publishing import Published, Rhythm, due_in
from event_journal.log.tiles import TileMissing
from lockstep_kit import merkle
from lockstep_kit.db import Database
from lockstep_kit.migrate import renew_logs
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.snapshots import Snapshots

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RHYTHM = Rhythm(timedelta(seconds=10), entries=100)


@pytest.mark.parametrize(
    ("entries", "newest", "seconds"),
    [
        (0, None, None),
        (1, None, 0),
        (5, Published(5, NOW), None),
        (4, Published(5, NOW), None),
        (6, Published(5, NOW), 10),
        (6, Published(5, NOW - timedelta(seconds=4)), 6),
        (6, Published(5, NOW - timedelta(seconds=10)), 0),
        (6, Published(5, NOW - timedelta(days=1)), 0),
        (6, Published(5, NOW + timedelta(microseconds=1)), 0),
        (6, Published(5, NOW + timedelta(days=1)), 0),
        (104, Published(5, NOW), 10),
        (105, Published(5, NOW), 0),
    ],
)
def test_when_a_checkpoint_is_due(entries: int, newest: Published | None, seconds: int | None) -> None:
    """At once when there was none or many entries came, else an interval after the last; never without something new, however the clock jumps."""
    due = due_in(entries, newest, NOW, RHYTHM)
    assert due == (timedelta(seconds=seconds) if seconds is not None else None)


@pytest_asyncio.fixture(loop_scope="session")
async def log(database_for: Callable[..., Awaitable[TestDatabase]]) -> AsyncIterator[Log]:
    database = await database_for("event_journal")
    made = Log(await Database.connect(database.settings, application_name="test"), database)
    try:
        yield made
    finally:
        await made.db.close()


async def checkpoints(log: Log) -> list[int]:
    async with log.database.as_owner() as connection:
        return [row["tree_size"] for row in await connection.fetch("select tree_size from journal_checkpoint order by 1")]


async def growing(log: Log, count: int) -> list[BaseException]:
    """Everything that goes wrong while so many replicas make the log grow and entries come."""
    replicas = [log.replica() for _ in range(count)]
    found: list[BaseException] = []
    for turn in range(12):
        await log.append(PLANS[turn % 3], 30, after=turn // 3 * 30)
        ended = await asyncio.gather(*(each.run() for each in replicas), return_exceptions=True)
        found += [each for each in ended if isinstance(each, BaseException)]
    await log.replica().run()
    return found


async def test_replicas_take_turns(log: Log) -> None:
    """Replicas that make the log grow at one time get in one another's way nowhere, and make one tree."""
    assert await growing(log, 4) == []
    assert await log.audited() == set()
    assert (await checkpoints(log))[-1] == 360


async def test_without_the_lock(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that do not lock the tree collide, and the database lets none of them fork it."""

    async def nobody_asks(_: object) -> bool:
        return True

    monkeypatch.setattr(store, "lock_tree", nobody_asks)
    collided = await growing(log, 4)
    assert collided
    assert all(isinstance(each, asyncpg.IntegrityConstraintViolationError | TileMissing) for each in collided)
    assert await log.audited() == set()


async def test_a_transaction_that_is_lost(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whose transaction does not commit is not there, nor is what the tree grew by; the next one takes up the same."""
    publish = store.publish

    async def lost(*arguments: object) -> None:
        await publish(*arguments)  # type: ignore[arg-type]
        raise ConnectionError

    await log.append(PLANS[0], 5)
    monkeypatch.setattr(store, "publish", lost)
    with pytest.raises(ConnectionError):
        await log.sequencer.run()
    async with log.database.as_owner() as connection:
        assert await connection.fetchval("select tree_size from journal_tree") == 0
        assert await connection.fetchval("select count(*) from journal_tile") == 0
    assert await checkpoints(log) == []
    monkeypatch.undo()
    await log.sequencer.run()
    assert await checkpoints(log) == [5]


async def test_it_waits_until_a_checkpoint_is_due(log: Log) -> None:
    """What comes soon after a checkpoint waits for the next one, to which it wakes by itself."""
    slow = log.replica()
    slow._rhythm = Rhythm(timedelta(seconds=5), entries=100)
    await log.append(PLANS[0], 1)
    await slow.run()
    await log.append(PLANS[0], 1, after=1)
    await slow.run()
    assert await checkpoints(log) == [1]
    await asyncio.wait_for(slow.wake.wait(), 60)
    await slow.run()
    assert await checkpoints(log) == [1, 2]


async def test_it_looks_only_at_what_is_due(log: Log) -> None:
    """Of a notification it works out by itself when a checkpoint is due: it looks at once, sets itself an alarm, or lets it be."""
    slow = log.replica()
    slow._rhythm = Rhythm(timedelta(seconds=2), entries=100)
    assert slow.heeds("1")
    await log.append(PLANS[0], 5)
    await slow.run()
    assert await checkpoints(log) == [5]
    assert not slow.heeds("5")
    assert slow.heeds("105")
    assert slow.heeds("")
    assert not slow.wake.is_set()
    await log.append(PLANS[0], 1, after=5)
    assert not slow.heeds("6")
    await asyncio.wait_for(slow.wake.wait(), 60)
    assert slow.heeds("6")
    await slow.run()
    assert await checkpoints(log) == [5, 6]


async def test_a_database_that_was_put_back(log: Log, superuser_url: str) -> None:
    """The log goes on from where it was put back, says so once, and is shown not to be the log that was seen before."""
    snapshots = Snapshots(superuser_url)
    await log.append(PLANS[0], 10)
    await log.sequencer.run()
    await log.db.close()
    snapshot = await snapshots.take(log.database.name, log.database.role)
    try:
        log.db = await Database.connect(log.database.settings, application_name="test")
        await log.append(PLANS[1], 10)
        await log.replica().run()
        async with log.db.connection() as connection:
            seen = await reading.newest_checkpoint(connection)
        await log.db.close()
        await snapshots.put_back(snapshot)
    finally:
        await snapshots.drop(snapshot)
    await asyncio.to_thread(renew_logs, log.database.owner_url)
    log.db = await Database.connect(log.database.settings, application_name="test")
    with capture_logs() as said:
        await log.replica().run()
        await log.append(PLANS[2], 20)
        await log.replica().run()
    assert [line["event"] for line in said] == ["log_restored"]
    assert seen is not None
    assert await checkpoints(log) == [10, 30]
    assert await log.audited() == set()
    async with log.db.connection() as connection:
        now = await reading.newest_checkpoint(connection)
        assert now is not None
        first = await reading.checkpoint_from(connection, 10)
        assert first is not None
        for before, consistent in ((first, True), (seen, False)):
            path = await reading.consistency_path(connection, before.tree_size, now.tree_size)
            assert path is not None
            assert merkle.consistent(before.tree_size, before.root_hash, now.tree_size, now.root_hash, path) is consistent
