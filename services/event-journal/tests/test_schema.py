"""The database keeps the journal's promises, whatever the service's code does, and whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy as sa

from event_journal.tables import METADATA
from lockstep_kit.migrate import differences
from lockstep_testkit.databases import TestDatabase

ENTRY = """
insert into journal_entry (plan_id, sequence, position, event_id, type, actor, actor_role, event_time, payload, previous_hash, entry_hash,
    canonical_bytes, key_id, signature)
values ('plan', $1, $2, $3, $4, 'alice', 'maker', now(), '', $5, sha256($6), $6, 'key', decode(repeat('00', 64), 'hex'))
"""
GENESIS = bytes(32)


async def enter(
    connection: asyncpg.Connection[asyncpg.Record],
    sequence: int,
    previous: bytes,
    *,
    position: int = 0,
    type_: str = "plan.created",
) -> bytes:
    octets = f"{sequence}/{position}".encode()
    await connection.execute(ENTRY, sequence, position or sequence, f"id-{sequence}-{position}", type_, previous, octets)
    return bytes(await connection.fetchval("select sha256($1::bytea)", octets))


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_for: Callable[..., Awaitable[TestDatabase]]) -> TestDatabase:
    return await database_for("event_journal")


async def test_declared_is_migrated(database: TestDatabase) -> None:
    """What the code declares is what the migration made."""
    declared = sa.MetaData()
    for table in METADATA.tables.values():
        table.to_metadata(declared)
    sa.Table("alembic_version", declared, sa.Column("version_num", sa.String(32), primary_key=True))
    assert await differences(database.owner_url, declared) == []


@pytest.mark.parametrize(
    "statement",
    [
        "update journal_entry set payload = ''",
        "delete from journal_entry",
        "truncate journal_entry",
        "delete from journal_chain",
        "truncate journal_chain",
        "delete from journal_counter",
        "alter table journal_entry disable trigger all",
        "drop table journal_entry",
    ],
)
async def test_the_role_takes_nothing_back(database: TestDatabase, statement: str) -> None:
    """The service's role can neither change nor remove what is in the journal."""
    async with database.as_role() as connection:
        await enter(connection, 1, GENESIS)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "update journal_entry set payload = ''",
        "update journal_entry set position = 9",
        "delete from journal_entry",
        "truncate journal_entry",
        "truncate journal_entry, journal_chain",
    ],
)
@pytest.mark.parametrize("replica", [False, True])
async def test_triggers_stop_the_owner_too(database: TestDatabase, superuser_url: str, statement: str, *, replica: bool) -> None:
    """Not even the owner changes an entry without first taking the triggers away, nor does a superuser's replication session."""
    async with database.as_role() as connection:
        await enter(connection, 1, GENESIS)
    url = urlsplit(superuser_url)._replace(path=f"/{database.name}").geturl() if replica else database.owner_url
    other = await asyncpg.connect(url)
    try:
        if replica:
            await other.execute("set session_replication_role = replica")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await other.execute(statement)
    finally:
        await other.close()


async def test_no_fork_and_no_gap(database: TestDatabase) -> None:
    """An entry stands behind the one that it names, with the number after it, once; nothing stands behind a seal."""
    async with database.as_role() as connection:
        first = await enter(connection, 1, GENESIS)
        second = await enter(connection, 2, first, type_="plan.ready")
        for sequence, previous in ((2, first), (3, first), (4, second), (3, GENESIS), (1, GENESIS), (1, second)):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await enter(connection, sequence, previous, position=7, type_="plan.ready")
        sealed = await enter(connection, 3, second, type_="plan.closed")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="seal"):
            await enter(connection, 4, sealed, type_="plan.ready")


async def test_a_head_only_grows(database: TestDatabase) -> None:
    """A chain's head and fence never go back, and a seal is for ever."""
    async with database.as_role() as connection:
        await connection.execute("insert into journal_chain values ('plan', 5, $1, false, '', 2, 3)", GENESIS)
        for change in ("entry_count = 4", "epoch_generation = 1, epoch_counter = 9", "epoch_counter = 2"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(f"update journal_chain set {change}")
        await connection.execute("update journal_chain set sealed = true")
        for change in ("sealed = false", "entry_count = 6", "frozen = 'why'", "epoch_counter = 4", "plan_id = 'other'"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(f"update journal_chain set {change}")
