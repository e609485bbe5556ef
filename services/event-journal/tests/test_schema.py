"""The database keeps the journal's promises, whatever the service's code does, and whoever asks."""

from __future__ import annotations

import asyncio
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
        "update journal_entry set signature = decode(repeat('01', 64), 'hex')",
        "update journal_entry set previous_hash = decode(repeat('01', 32), 'hex')",
        "update journal_entry set sequence = 2",
        "update journal_entry set actor = 'mallory'",
        "update journal_entry set event_time = now()",
        "update journal_entry set canonical_bytes = '', entry_hash = sha256('')",
        "update journal_entry set plan_id = 'other'",
        "insert into journal_key values (1, '0011223344556677', '', null, decode(repeat('00', 64), 'hex'))",
        "delete from journal_key",
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


async def test_two_writers_behind_one_entry(database: TestDatabase) -> None:
    """Of two transactions that put an entry behind the same one at the same moment, one is refused; neither index nor trigger over what is named is needed."""
    async with database.as_role() as one, database.as_role() as other:
        first = await enter(one, 1, GENESIS)
        tx = one.transaction()
        await tx.start()
        await enter(one, 2, first, position=2, type_="plan.ready")
        late = asyncio.create_task(enter(other, 2, first, position=3, type_="plan.ready"))
        await asyncio.sleep(0.1)
        await tx.commit()
        with pytest.raises(asyncpg.UniqueViolationError, match="journal_entry_pkey"):
            await late
        rows = await one.fetch("select sequence, previous_hash from journal_entry order by sequence")
        assert [(row["sequence"], row["previous_hash"]) for row in rows] == [(1, GENESIS), (2, first)]


async def test_links_of_one_statement(database: TestDatabase) -> None:
    """Entries of one statement may stand behind one another; one wrong link among them, and none is taken."""
    several = """
        insert into journal_entry (plan_id, sequence, position, event_id, type, actor, actor_role, event_time, payload, previous_hash,
            entry_hash, canonical_bytes, key_id, signature)
        select 'plan', n, n, 'id-' || n, 'plan.created', 'alice', 'maker', now(), '',
            case when n = $1 then decode(repeat('11', 32), 'hex') when n = 1 then decode(repeat('00', 32), 'hex')
                else sha256(convert_to((n - 1)::text, 'UTF8')) end,
            sha256(convert_to(n::text, 'UTF8')), convert_to(n::text, 'UTF8'), 'key', decode(repeat('00', 64), 'hex')
        from generate_series(1, 5) as n
    """
    async with database.as_role() as connection:
        for wrong in (1, 3, 5):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="follows"):
                await connection.execute(several, wrong)
        assert await connection.fetchval("select count(*) from journal_entry") == 0
        await connection.execute(several, 0)
        assert await connection.fetchval("select count(*) from journal_entry") == 5


async def test_the_keys_history_only_grows(database: TestDatabase) -> None:
    """A key follows the one before it, and not even the owner changes or removes one without first taking the triggers away."""
    key = "insert into journal_key (number, key_id, statement, previous_signature, own_signature) values ($1, $2, '', $3, $4)"
    signature = bytes(64)
    async with database.as_owner() as owner:
        await owner.execute(key, 1, "0" * 16, None, signature)
        for number, key_id, before in (
            (3, "1" * 16, signature),
            (2, "0" * 16, signature),
            (2, "1" * 16, None),
            (1, "1" * 16, None),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(key, number, key_id, before, signature)
        for statement in ("update journal_key set key_id = '1111111111111111'", "delete from journal_key", "truncate journal_key"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await owner.execute(statement)


async def test_a_head_only_grows(database: TestDatabase) -> None:
    """A chain's head and fence never go back, and a seal is for ever."""
    async with database.as_role() as connection:
        await connection.execute("insert into journal_chain values ('plan', 5, $1, false, '', 2, 3)", GENESIS)
        for change in ("entry_count = 4", "epoch_generation = 1, epoch_counter = 9", "epoch_counter = 2"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(f"update journal_chain set {change}")
        await connection.execute("update journal_chain set sealed = true")
        for change in ("sealed = false", "entry_count = 6", "frozen = 'why'", "epoch_counter = 4"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(f"update journal_chain set {change}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("update journal_chain set plan_id = 'other'")


LEAVES = b"".join(bytes([number]) * 32 for number in range(256))
LOG_TABLES = ("journal_tile", "journal_tree", "journal_checkpoint")


async def logged(connection: asyncpg.Connection[asyncpg.Record], count: int = 2) -> None:
    """Entries, a tree over them, and a checkpoint of it."""
    previous = GENESIS
    for sequence in range(1, count + 1):
        previous = await enter(connection, sequence, previous, type_="plan.created" if sequence == 1 else "plan.ready")
    await connection.execute("insert into journal_tile values (0, 0, $1)", LEAVES[: count * 32])
    await connection.execute("update journal_tree set tree_size = $1", count)
    await connection.execute("insert into journal_checkpoint values ($1, $2, 'note', now())", count, bytes(32))


@pytest.mark.parametrize(
    "statement", [f"delete from {table}" for table in LOG_TABLES] + [f"truncate {table}" for table in LOG_TABLES]
)
async def test_the_role_takes_nothing_out_of_the_log(database: TestDatabase, statement: str) -> None:
    """The service's role cannot remove a tile, the tree or a checkpoint, nor change a checkpoint."""
    async with database.as_role() as connection:
        await logged(connection)
        for refused in (statement, "update journal_checkpoint set signed_note = 'other'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        *((f"delete from {table}", "append-only") for table in LOG_TABLES),
        *((f"truncate {table}", "append-only") for table in LOG_TABLES),
        ("update journal_checkpoint set signed_note = 'other'", "append-only"),
        ("update journal_tile set hashes = hashes || substring(hashes for 32), tile_index = 1", "a tile only grows"),
        ("update journal_tile set hashes = substring(hashes for 32)", "a tile only grows"),
        ("update journal_tile set hashes = decode(repeat('ff', 96), 'hex')", "a tile only grows"),
        ("update journal_tile set hashes = hashes", "a tile only grows"),
        ("insert into journal_tile values (0, 1, decode(repeat('ff', 32), 'hex'))", "a tile follows a full one"),
        ("update journal_tree set tree_size = 1", "the tree only grows"),
        ("update journal_tree set tree_size = 3", "a leaf is an entry"),
        ("insert into journal_checkpoint values (3, sha256(''), 'note', now())", "a tree that there is"),
        ("insert into journal_checkpoint values (1, sha256(''), 'note', now())", "larger than those before"),
        ("insert into journal_checkpoint values (2, sha256(''), 'note', now())", "larger than those before"),
    ],
)
@pytest.mark.parametrize("who", ["role", "owner", "replication"])
async def test_the_log_only_grows(database: TestDatabase, superuser_url: str, statement: str, message: str, *, who: str) -> None:
    """Whoever asks, also in a replication session: what the log holds stays, and what is added follows what there is."""
    async with database.as_role() as connection:
        await logged(connection)
    urls = {"role": database.role_url, "owner": database.owner_url}
    other = await asyncpg.connect(urls.get(who) or urlsplit(superuser_url)._replace(path=f"/{database.name}").geturl())
    try:
        if who == "replication":
            await other.execute("set session_replication_role = replica")
        if who == "role" and (message == "append-only" or "tile_index =" in statement):
            message = "permission denied"
        with pytest.raises(asyncpg.PostgresError, match=message):
            await other.execute(statement)
    finally:
        await other.close()


async def test_a_tree_is_as_large_as_its_tiles(database: TestDatabase) -> None:
    """The tree's size is that of its leaves; a full tile never changes, and the next one begins behind it."""
    async with database.as_role() as connection:
        await logged(connection)
        second = await connection.fetchval("select entry_hash from journal_entry where sequence = 2")
        await enter(connection, 3, second, type_="plan.ready")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="as large as its tiles"):
            await connection.execute("update journal_tree set tree_size = 3")
        await connection.execute("update journal_tile set hashes = $1", LEAVES)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute("update journal_tile set hashes = hashes || substring(hashes for 32)")
        await connection.execute("insert into journal_tile values (0, 1, $1)", bytes(32))
