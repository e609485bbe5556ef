from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from lockstep_kit.db import Database
from lockstep_kit.migrate import differences
from lockstep_kit.outbox import Message, NewMessage, Outbox

pytestmark = pytest.mark.integration

OUTBOX = Outbox("post")
LEASE = timedelta(minutes=10)
NOW = timedelta(0)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

#: Enqueues in a transaction and is killed before its end, or after it.
DOOMED = """
import asyncio, sys
from lockstep_kit import failpoints
from lockstep_kit.db import Database, DatabaseSettings
from lockstep_kit.outbox import NewMessage, Outbox

async def main(url, password_file):
    db = await Database.connect(DatabaseSettings(url=url, password_file=password_file), application_name="doomed")
    async with db.transaction() as tx:
        await Outbox("post").enqueue(tx, [NewMessage("bank", "p", b"1"), NewMessage("bank", "p", b"2")])
        await failpoints.failpoint("test.post.in_tx")
    await failpoints.failpoint("test.post.after_commit")

failpoints.declare("test.post.in_tx", "test.post.after_commit")
failpoints.arm_from_environment()
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def database(database_for: Any) -> Any:
    made = await database_for("runtime_outbox")
    async with made.as_owner() as owner:
        for statement in (*OUTBOX.upgrade(), *OUTBOX.grants(made.role)):
            await owner.execute(statement)
    return made


@pytest.fixture
async def db(database: Any) -> AsyncIterator[Database]:
    connected = await Database.connect(database.settings, application_name="relay")
    yield connected
    await connected.close()


async def enqueue(db: Database, *messages: tuple[str, str, bytes]) -> list[int]:
    async with db.transaction() as tx:
        return await OUTBOX.enqueue(tx, [NewMessage(*each) for each in messages])


async def claim(db: Database, lease: timedelta = LEASE, **limits: Any) -> list[Message]:
    async with db.connection() as connection:
        return await OUTBOX.claim(connection, lease, **limits)


def payloads(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


async def test_the_table_is_as_declared(database: Any) -> None:
    """What the statements make is what the code declares."""
    declared = sa.MetaData()
    OUTBOX.declare(declared)
    assert await differences(database.owner_url, declared) == []


async def test_a_message_is_claimed_as_it_was_enqueued(db: Database) -> None:
    """Destination, key, payload and trace of a message survive, and its first claim is attempt one."""
    async with db.transaction() as tx:
        (number,) = await OUTBOX.enqueue(tx, [NewMessage("bank", "p", b"\x00\xff", TRACE)])
    (found,) = await claim(db)
    assert (found.id, found.destination, found.ordering_key, found.payload) == (number, "bank", "p", b"\x00\xff")
    assert (found.traceparent, found.attempts) == (TRACE, 1)
    assert await claim(db) == []


async def test_a_clock_that_is_set_back_keeps_nothing_waiting(database: Any, db: Database) -> None:
    """A message that is due later than any is put off is claimed at once; one that is put off within that waits, and no message is put off for longer."""
    await enqueue(db, ("bank", "p", b"1"), ("bank", "q", b"2"))
    one, two = await claim(db)
    async with db.connection() as connection:
        await OUTBOX.reschedule(connection, {one: timedelta(days=9), two: LEASE})
    assert await claim(db) == []
    async with database.as_owner() as owner:
        await owner.execute("update post set due_at = due_at + interval '2 hours' where id = $1", one.id)
    assert payloads(await claim(db)) == [b"1"]


async def test_what_is_rolled_back_is_never_sent(db: Database) -> None:
    """A message of a transaction that raised is not there."""

    class Trouble(Exception):
        pass

    with contextlib.suppress(Trouble):
        async with db.transaction() as tx:
            await OUTBOX.enqueue(tx, [NewMessage("bank", "p", b"1")])
            raise Trouble
    assert await claim(db) == []


@pytest.mark.parametrize(("place", "rows"), [("test.post.in_tx", 0), ("test.post.after_commit", 2)])
async def test_kill_9_around_the_commit(database: Any, db: Database, place: str, rows: int) -> None:
    """Killed before the commit, the enqueuer leaves no row; killed straight after it, all of them."""
    arguments = [database.settings.url, str(database.settings.password_file)]
    doomed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DOOMED, *arguments, env={"LOCKSTEP_FAILPOINTS": f"{place}=kill"}, stderr=subprocess.PIPE
    )
    _, said = await doomed.communicate()
    assert (doomed.returncode, said) == (-9, b"")
    async with database.as_owner() as owner:
        await owner.fetch("select from post for update")
        assert await owner.fetchval("select count(*) from post") == rows
    assert payloads(await claim(db)) == [b"1", b"2"][:rows]


async def test_a_key_is_kept_in_order(db: Database) -> None:
    """While an earlier message of a key is claimed or waits for another try, none behind it is claimed; other keys and destinations go on."""
    await enqueue(db, ("bank", "p", b"1"), ("bank", "p", b"2"), ("bank", "q", b"3"), ("dlt", "p", b"4"))
    first = await claim(db, run_max=1)
    assert payloads(first) == [b"1", b"3", b"4"]
    assert await claim(db) == []
    async with db.connection() as connection:
        await OUTBOX.reschedule(connection, {first[0]: LEASE})
        await OUTBOX.done(connection, first[1:])
    assert await claim(db) == []
    async with db.connection() as connection:
        await OUTBOX.done(connection, first[:1])
    assert payloads(await claim(db)) == [b"2"]


async def test_a_run_is_claimed_together(db: Database) -> None:
    """The messages behind the first of a key come with it, in order and up to the limit of a run."""
    await enqueue(db, *(("bank", key, f"{key}{n}".encode()) for n in range(3) for key in ("p", "q")))
    assert payloads(await claim(db, run_max=2)) == [b"p0", b"q0", b"p1", b"q1"]


async def test_only_wanted_destinations_are_claimed(db: Database) -> None:
    """A relay that serves some destinations leaves the others to others."""
    await enqueue(db, ("bank", "p", b"1"), ("dlt", "p", b"2"))
    assert payloads(await claim(db, destinations=["dlt"])) == [b"2"]
    assert payloads(await claim(db, limit=1)) == [b"1"]


async def test_two_relays_never_claim_the_same(db: Database) -> None:
    """Many relays at the same time claim every message once, each key in order."""
    await enqueue(db, *(("bank", f"p{n % 20}", str(n).encode()) for n in range(200)))
    sent: dict[str, list[int]] = {}

    async def relay() -> None:
        while messages := await claim(db, limit=3, run_max=4):
            await asyncio.sleep(0)
            for message in messages:
                sent.setdefault(message.ordering_key, []).append(int(message.payload))
            async with db.connection() as connection:
                await OUTBOX.done(connection, messages)

    for _ in range(3):
        await asyncio.gather(*(relay() for _ in range(8)))
    assert sorted(number for numbers in sent.values() for number in numbers) == list(range(200))
    assert all(numbers == sorted(numbers) for numbers in sent.values())


async def test_a_lapsed_claim_is_taken_again(db: Database) -> None:
    """When a relay dies its messages are claimed again, as another attempt; what it still says about them changes no plan of the new one."""
    await enqueue(db, ("bank", "p", b"1"))
    (lost,) = await claim(db, NOW)
    (again,) = await claim(db)
    assert (again.id, again.attempts) == (lost.id, 2)
    async with db.connection() as connection:
        await OUTBOX.reschedule(connection, {lost: NOW})
    assert await claim(db) == []
    async with db.connection() as connection:
        await OUTBOX.reschedule(connection, {again: NOW})
        assert payloads(await OUTBOX.claim(connection, LEASE)) == [b"1"]
        await OUTBOX.done(connection, [lost])
        assert (await OUTBOX.backlog(connection)).waiting_count == 0


async def test_enqueueing_notifies(db: Database) -> None:
    """A committed message wakes whoever listens on the outbox's channel."""
    wake = asyncio.Event()
    db.listen(OUTBOX.channel, wake)
    await asyncio.wait_for(wake.wait(), 60)
    wake.clear()
    await enqueue(db, ("bank", "p", b"1"), ("bank", "p", b"2"))
    await asyncio.wait_for(wake.wait(), 60)


async def test_backlog_and_purge(db: Database) -> None:
    """What waits is counted with its age; what was done long enough ago is deleted, some at a time, and nothing else."""
    await enqueue(db, *(("bank", f"p{n}", b"") for n in range(5)))
    done = await claim(db, limit=3)
    async with db.connection() as connection:
        await OUTBOX.done(connection, done)
        backlog = await OUTBOX.backlog(connection)
        assert backlog.waiting_count == 2
        assert timedelta(0) < backlog.oldest_age < timedelta(minutes=10)
        assert await OUTBOX.purge(connection, timedelta(hours=1)) == 0
        assert await OUTBOX.purge(connection, NOW, limit=2) == 2
        assert await OUTBOX.purge(connection, NOW) == 1
        assert await connection.fetchval("select count(*) from post") == 2


async def test_nothing_is_nothing(db: Database) -> None:
    """Empty lists are fine and do nothing."""
    async with db.transaction() as tx:
        assert await OUTBOX.enqueue(tx, []) == []
        await OUTBOX.done(tx, [])
        await OUTBOX.reschedule(tx, {})
        assert (await OUTBOX.backlog(tx)).oldest_age == NOW


@pytest.mark.parametrize("name", ["a b", "Post", "post;drop table x", "1post", ""])
def test_only_plain_names_name_tables(name: str) -> None:
    """A table's name that needs quotes is refused."""
    with pytest.raises(ValueError, match="no plain name"):
        Outbox(name)
