from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from lockstep_kit import leases
from lockstep_kit.db import Database
from lockstep_kit.fence import Epoch
from lockstep_kit.migrate import differences
from lockstep_testkit.clocks import JumpingClock

pytestmark = pytest.mark.integration

LONG, GONE = timedelta(minutes=2), timedelta(seconds=-1)


@pytest.fixture
async def database(database_for: Any) -> Any:
    made = await database_for("runtime_leases")
    async with made.as_owner() as owner:
        for statement in (*leases.V1_UPGRADE, "create table work (resource_id text primary key, writer text)"):
            await owner.execute(statement)
        await owner.execute(f"grant select, insert, update on lease, work to {made.role}")
    return made


@pytest.fixture
async def db(database: Any) -> AsyncIterator[Database]:
    connected = await Database.connect(database.settings, application_name="leases")
    yield connected
    await connected.close()


async def acquire(db: Database, owner: str, *resources: str, generation: int = 1, duration: timedelta = LONG) -> dict[str, Epoch]:
    async with db.transaction() as tx:
        return await leases.acquire(tx, resources, owner, generation, duration)


async def test_the_table_is_as_declared(database: Any) -> None:
    """What the statements make is what the code declares."""
    declared = sa.MetaData()
    leases.lease_table(declared)
    sa.Table("work", declared, sa.Column("resource_id", sa.Text, primary_key=True), sa.Column("writer", sa.Text))
    assert await differences(database.owner_url, declared) == []


async def test_a_lease_has_one_owner(db: Database) -> None:
    """What one owner holds another does not get; of a list each gets what is free."""
    assert await acquire(db, "a", "p", "q") == {"p": Epoch(1, 1), "q": Epoch(1, 1)}
    assert await acquire(db, "b", "p", "q", "r") == {"r": Epoch(1, 1)}


async def test_renewing_keeps_the_epoch_and_taking_over_raises_it(db: Database) -> None:
    """The counter stays while the owner stays, grows by one at each take-over, and starts again in a new generation."""
    assert await acquire(db, "a", "p") == {"p": Epoch(1, 1)}
    assert await acquire(db, "a", "p", duration=GONE) == {"p": Epoch(1, 1)}
    assert await acquire(db, "b", "p", duration=GONE) == {"p": Epoch(1, 2)}
    assert await acquire(db, "a", "p", duration=GONE) == {"p": Epoch(1, 3)}
    assert await acquire(db, "a", "p", generation=2, duration=GONE) == {"p": Epoch(2, 1)}
    assert await acquire(db, "b", "p") == {}, "an older generation never takes a lease"
    assert Epoch(2, 1) > Epoch(1, 3)


async def test_releasing_frees_only_ones_own(db: Database) -> None:
    """A released lease is taken at once, with the next counter; releasing another's does nothing."""
    await acquire(db, "a", "p")
    async with db.transaction() as tx:
        await leases.release(tx, ["p"], "b")
    assert await acquire(db, "b", "p") == {}
    async with db.transaction() as tx:
        await leases.release(tx, ["p"], "a")
    assert await acquire(db, "b", "p") == {"p": Epoch(1, 2)}


async def test_a_stale_holder_writes_nothing(db: Database) -> None:
    """Once a lease lapsed or was taken, its old holder's guarded write does not happen."""
    await acquire(db, "a", "lapsed", duration=GONE)
    await acquire(db, "a", "taken", duration=GONE)
    await acquire(db, "b", "taken")
    await acquire(db, "a", "held")

    async with db.transaction() as tx:
        held = await leases.hold(tx, ["lapsed", "taken", "held", "unknown"], "a", 1)
        for resource in held:
            await tx.execute("insert into work values ($1, 'a')", resource)
    assert held == {"held": Epoch(1, 1)}
    async with db.connection() as connection:
        assert await connection.fetchval("select array_agg(resource_id) from work") == ["held"]


async def until_somebody_waits(database: Any) -> None:
    """Wait until a session of the service waits for a lock."""
    waiting = "select count(*) from pg_stat_activity where datname = $1 and usename = $2 and wait_event_type = 'Lock'"
    async with asyncio.timeout(60), database.as_role() as own:
        while not await own.fetchval(waiting, database.name, database.role):  # noqa: ASYNC110 - the server shows it, and tells nobody
            await asyncio.sleep(0.02)


async def test_a_lease_is_not_taken_while_its_holder_writes(database: Any) -> None:
    """A holder whose lease lapses in the middle of its guarded transaction still commits first; the taker comes after it, with a higher epoch."""
    clock = JumpingClock(database.owner_url)
    await clock.prepare()
    db = await Database.connect(database.settings, application_name="leases")
    await acquire(db, "a", "p")
    async with db.transaction() as tx:
        assert await leases.hold(tx, ["p"], "a", 1) == {"p": Epoch(1, 1)}
        await clock.set(LONG)
        taking = asyncio.create_task(acquire(db, "b", "p"))
        await until_somebody_waits(database)
        assert not taking.done()
        await tx.execute("insert into work values ('p', 'a')")
    assert await taking == {"p": Epoch(1, 2)}
    async with db.transaction() as tx:
        assert await leases.hold(tx, ["p"], "a", 1) == {}
    await db.close()


async def test_contenders_never_share(db: Database) -> None:
    """Of many that reach for the same leases in different orders at the same time each lease has one taker, and nobody deadlocks."""
    resources = [f"p{n}" for n in range(30)]
    got = await asyncio.gather(*(acquire(db, f"o{n}", *(resources[n:] + resources[:n])) for n in range(10)))
    taken = [resource for each in got for resource in each]
    assert sorted(taken) == sorted(resources)


async def test_an_epoch_never_goes_back(database: Any) -> None:
    """The database itself refuses a lower epoch, from whomever."""
    async with database.as_owner() as owner:
        await owner.execute("insert into lease values ('p', 'a', 2, 5, now())")
        for change in ("counter = 4", "generation = 1", "generation = 1, counter = 9"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="never goes back"):
                await owner.execute(f"update lease set {change}")
