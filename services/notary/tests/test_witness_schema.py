"""The database keeps what a witness promises, whatever the service's code does, and whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from lockstep_testkit.databases import TestDatabase

CHECKPOINT = "insert into witness_checkpoint values ($1, $2, decode(repeat('00', 32), 'hex'), 'note', now())"
RAISE = "insert into witness_alarm (rule, message) values ('LOG_SPLIT', 'split')"
ACKNOWLEDGE = "update witness_alarm set finding = 'looked', acknowledged_at = now(), follows = $1 where acknowledged_at is null"
KEPT = asyncpg.IntegrityConstraintViolationError


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_for: Callable[..., Awaitable[TestDatabase]]) -> TestDatabase:
    return await database_for("notary")


async def test_checkpoints_only_grow(database: TestDatabase) -> None:
    """A checkpoint is larger than the one before; another history begins only with an alarm of which a person has said so."""
    async with database.as_role() as connection:
        for misplaced in ((2, 5), (0, 5)):
            with pytest.raises(KEPT, match="counted from 1"):
                await connection.execute(CHECKPOINT, *misplaced)
        await connection.execute(CHECKPOINT, 1, 5)
        for size in (4, 5, 0):
            with pytest.raises(KEPT):
                await connection.execute(CHECKPOINT, 1, size)
        await connection.execute(CHECKPOINT, 1, 6)
        with pytest.raises(KEPT, match="begins anew"):
            await connection.execute(CHECKPOINT, 2, 7)
        await connection.execute(RAISE)
        with pytest.raises(KEPT, match="alarm is open"):
            await connection.execute(CHECKPOINT, 1, 7)
        await connection.execute(ACKNOWLEDGE, 2)
        for misplaced in ((3, 9), (0, 9)):
            with pytest.raises(KEPT, match="begins anew"):
                await connection.execute(CHECKPOINT, *misplaced)
        await connection.execute(CHECKPOINT, 2, 3)
        for misplaced in ((1, 7), (2, 3), (3, 4)):
            with pytest.raises(KEPT):
                await connection.execute(CHECKPOINT, *misplaced)


async def test_one_alarm_at_a_time(database: TestDatabase) -> None:
    """There is one open alarm at the most, and it is acknowledged once, with a finding."""
    async with database.as_role() as connection:
        await connection.execute(RAISE)
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(RAISE)
        for half in ("finding = 'looked'", "acknowledged_at = now()", "follows = 2", "finding = '', acknowledged_at = now()"):
            with pytest.raises(KEPT):
                await connection.execute(f"update witness_alarm set {half}")
        await connection.execute(ACKNOWLEDGE, None)
        for again in ("finding = 'other'", "follows = 2", "acknowledged_at = null, finding = null"):
            with pytest.raises(KEPT, match="once"):
                await connection.execute(f"update witness_alarm set {again}")
        await connection.execute(RAISE)


#: What nobody may do, and who has no right to in the first place.
STATEMENTS = [
    "update witness_checkpoint set tree_size = 9",
    "delete from witness_checkpoint",
    "truncate witness_checkpoint",
    "update witness_alarm set message = 'other', finding = 'x', acknowledged_at = now()",
    "update witness_alarm set refused_note = 'other', finding = 'x', acknowledged_at = now()",
    "delete from witness_alarm",
    "truncate witness_alarm",
]


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_the_role_takes_nothing_back(database: TestDatabase, statement: str) -> None:
    """The service's role can neither change nor remove what was witnessed."""
    async with database.as_role() as connection:
        await connection.execute(CHECKPOINT, 1, 5)
        await connection.execute(RAISE)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("replica", [False, True])
async def test_triggers_stop_the_owner_too(database: TestDatabase, superuser_url: str, statement: str, *, replica: bool) -> None:
    """Not even the owner changes what was witnessed without first taking the triggers away, nor does a superuser's replication session."""
    async with database.as_role() as connection:
        await connection.execute(CHECKPOINT, 1, 5)
        await connection.execute(RAISE)
    url = urlsplit(superuser_url)._replace(path=f"/{database.name}").geturl() if replica else database.owner_url
    other = await asyncpg.connect(url)
    try:
        if replica:
            await other.execute("set session_replication_role = replica")
        with pytest.raises(KEPT, match="kept"):
            await other.execute(statement)
        with pytest.raises(KEPT):
            await other.execute(CHECKPOINT, 1, 4)
    finally:
        await other.close()


async def test_writers_wait_for_one_another(database: TestDatabase) -> None:
    """Two transactions that both saw the same last checkpoint do not both add to it."""
    async with database.as_role() as one, database.as_role() as other:
        await one.execute(CHECKPOINT, 1, 5)
        await other.execute("set lock_timeout = '100ms'")
        async with one.transaction():
            await one.execute(CHECKPOINT, 1, 8)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await other.execute(CHECKPOINT, 1, 7)
        with pytest.raises(KEPT, match="only grows"):
            await other.execute(CHECKPOINT, 1, 7)
