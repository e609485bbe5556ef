from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from pydantic import ValidationError

from lockstep_kit.db import Database, DatabaseSettings, DatabaseUnreachable, is_transient, violated
from lockstep_kit.errors import as_error
from lockstep_sandbox.network import Door
from lockstep_sandbox.ports import free_ports

pytestmark = pytest.mark.integration


@pytest.fixture
async def database(database_for: Any) -> Any:
    made = await database_for("runtime_db")
    async with made.as_owner() as owner:
        await owner.execute(
            "create table thing (name text constraint thing_pkey primary key, n int constraint thing_small check (n < 10))"
        )
        await owner.execute(f"grant select, insert, update on thing to {made.role}")
    return made


@contextlib.asynccontextmanager
async def connected(database: Any, **changes: Any) -> AsyncIterator[Database]:
    settings = DatabaseSettings.model_validate(database.settings.model_dump() | changes)
    db = await Database.connect(settings, application_name="runtime-test")
    try:
        yield db
    finally:
        await db.close()


async def count(database: Any) -> int:
    async with database.as_owner() as owner:
        return int(await owner.fetchval("select count(*) from thing"))


async def rolled_back(db: Database, statement: str) -> None:
    """Run a statement in a transaction that raises at its end."""

    class Trouble(Exception):
        pass

    with contextlib.suppress(Trouble):
        async with db.transaction() as tx:
            await tx.execute(statement)
            raise Trouble


async def test_a_transaction_commits_or_leaves_nothing(database: Any) -> None:
    """What is written stays when the block ends, and none of it when the block raises."""
    async with connected(database) as db:
        async with db.transaction() as tx:
            await tx.execute("insert into thing values ('a', 1)")
        await rolled_back(db, "insert into thing values ('b', 1)")
    assert await count(database) == 1


async def test_a_cancelled_transaction_leaves_nothing(database: Any) -> None:
    """Cancelling the task in the middle of a transaction rolls it back and gives the connection back."""
    async with connected(database, pool_size_max=1) as db:
        inside = asyncio.Event()

        async def work() -> None:
            async with db.transaction() as tx:
                await tx.execute("insert into thing values ('a', 1)")
                inside.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with db.connection() as connection:
            assert await connection.fetchval("select count(*) from thing") == 0


async def test_nothing_goes_from_one_user_of_a_connection_to_the_next(database: Any) -> None:
    """A transaction that was left open is rolled back, and its locks, settings and cursors are gone; the settings of the session stand."""
    async with connected(database, pool_size_max=1, lock_timeout_seconds=10) as db:
        async with db.connection() as connection:
            session = await connection.fetchval("select pg_backend_pid()")
            await connection.execute("begin isolation level repeatable read")
            await connection.execute(
                "set local lock_timeout = 1; declare seen cursor for select 1; insert into thing values ('a', 1)"
            )
            await connection.fetchval("select pg_advisory_xact_lock(7)")
        async with db.transaction() as tx:
            await tx.execute("set local lock_timeout = 2; declare seen cursor for select 1")
        async with db.transaction() as tx:
            assert await tx.fetchval("select pg_backend_pid()") == session, "it is not the same connection"
            assert await tx.fetchval("show transaction_isolation") == "read committed"
            assert await tx.fetchval("show lock_timeout") == "10s"
            assert await tx.fetchval("select count(*) from pg_cursors where name = 'seen'") == 0
            assert await tx.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
    assert await count(database) == 0


async def test_a_connection_goes_back_without_a_round_trip(database: Any, databases: Any) -> None:
    """Two statements in a row are two transactions, and nothing is asked between them."""
    async with connected(database, pool_size_max=1) as db:
        for _ in range(2):
            async with db.connection() as connection:
                await connection.fetchval("select 1")
        superuser = await asyncpg.connect(databases.superuser_url)
        try:
            last = await superuser.fetchval("select query from pg_stat_activity where usename = $1", database.role)
        finally:
            await superuser.close()
    assert last == "select 1"


async def test_sessions_have_the_limits_of_the_settings(database: Any) -> None:
    """Isolation, durability, limits, time zone and name of a session are what the settings say, and json comes as text."""
    async with connected(database, lock_timeout_seconds=90.5, statement_timeout_seconds=91.5) as db, db.transaction() as tx:
        shown = {name: await tx.fetchval(f"show {name}") for name in ("transaction_isolation", "synchronous_commit", "timezone")}
        assert shown == {"transaction_isolation": "read committed", "synchronous_commit": "on", "timezone": "UTC"}
        assert await tx.fetchval("show lock_timeout") == "90500ms"
        assert await tx.fetchval("show statement_timeout") == "91500ms"
        assert await tx.fetchval("show idle_in_transaction_session_timeout") == "91500ms"
        assert await tx.fetchval("show application_name") == "runtime-test"
        assert await tx.fetchval("""select '{"b": 1.10, "a": 2}'::jsonb""") == '{"a": 2, "b": 1.10}'


async def test_statements_are_planned_once(database: Any) -> None:
    """A statement that a connection runs again and again is planned for all values at once, and for none of them alone."""
    async with connected(database, pool_size_max=1) as db:
        asked = "select count(*) from pg_class join unnest($1::text[]) as wanted (name) on relname = name"
        for many in (1, 100, 1, 7):
            async with db.connection() as connection:
                assert await connection.fetchval(asked, ["pg_class"] * many) == many
        async with db.connection() as connection:
            plans = await connection.fetchrow(
                "select generic_plans, custom_plans from pg_prepared_statements where statement = $1", asked
            )
        assert plans is not None
        assert tuple(plans) == (4, 0)


async def test_a_violation_names_its_constraint(database: Any) -> None:
    """The name of the violated constraint is told, and nothing for other errors."""
    async with connected(database) as db:
        names = []
        for statement in ("insert into thing values ('a', 11)", "insert into thing values ('a', 1), ('a', 2)", "select 1/0"):
            with pytest.raises(asyncpg.PostgresError) as caught:
                async with db.transaction() as tx:
                    await tx.execute(statement)
            names.append((violated(caught.value), is_transient(caught.value)))
    assert names == [("thing_small", False), ("thing_pkey", False), (None, False)]


async def test_deadlocks_and_waits_are_transient(database: Any) -> None:
    """A deadlock's victim, a wait for a row that is too long, and a statement that is too long may be done again."""
    async with connected(database, lock_timeout_seconds=90, statement_timeout_seconds=120) as db:
        async with db.transaction() as tx:
            await tx.execute("insert into thing values ('a', 1), ('b', 1)")
        gate = asyncio.Barrier(2)

        async def cross(first: str, second: str) -> None:
            async with db.transaction() as tx:
                await tx.execute("update thing set n = n + 1 where name = $1", first)
                await gate.wait()
                await tx.execute("update thing set n = n + 1 where name = $1", second)

        ends = await asyncio.gather(cross("a", "b"), cross("b", "a"), return_exceptions=True)
        (victim,) = [end for end in ends if end is not None]
        assert isinstance(victim, asyncpg.DeadlockDetectedError)
        assert is_transient(victim)
    async with (
        connected(database, lock_timeout_seconds=0.1, statement_timeout_seconds=120) as db,
        database.as_owner() as owner,
        owner.transaction(),
    ):
        await owner.execute("update thing set n = 1")
        with pytest.raises(asyncpg.LockNotAvailableError) as waited:
            async with db.transaction() as tx:
                await tx.execute("update thing set n = 2")
    # The pause between two statements of a transaction has the same limit.
    async with connected(database, statement_timeout_seconds=4) as db:
        with pytest.raises(asyncpg.QueryCanceledError) as slow:
            async with db.transaction() as tx:
                await tx.execute("select pg_sleep(600)")
    assert is_transient(waited.value)
    assert is_transient(slow.value)


async def test_a_pool_that_is_used_up_refuses_in_time(database: Any) -> None:
    """Waiting for a connection has a limit."""
    async with connected(database, pool_size_max=1, acquire_timeout_seconds=1.0) as db, db.connection():
        with pytest.raises(DatabaseUnreachable) as caught:
            async with db.transaction():
                pass
    assert is_transient(caught.value)
    assert as_error(caught.value).code is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_is_away_is_no_inner_error(database: Any) -> None:
    """Whoever asks while nobody listens in the database's place is told to ask again, and no more."""
    there = urlsplit(database.settings.url)
    port = free_ports(1)[0]
    url = there._replace(netloc=there.netloc.replace(str(there.port), str(port))).geturl()
    found: list[BaseException] = []
    async with contextlib.AsyncExitStack() as stack:
        async with Door(port, [there.port or 0]):
            db = await stack.enter_async_context(connected(database, url=url, pool_size_max=1))
            await db.now()
        for _ in range(3):
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, DatabaseUnreachable)) as caught:
                await db.now()
            found.append(caught.value)
    assert isinstance(found[-1], DatabaseUnreachable)
    assert {as_error(each).code for each in found} == {grpc.StatusCode.UNAVAILABLE}


async def test_lost_sessions_are_transient_and_made_again(database: Any, databases: Any) -> None:
    """When the server ends a session, the work in it fails as transient, and the next transaction has a new session."""
    async with connected(database, pool_size_max=1) as db:

        async def interrupted() -> None:
            async with db.transaction() as tx:
                await tx.execute("insert into thing values ('a', 1)")
                await end_sessions(databases, database, "true")
                await tx.execute("insert into thing values ('b', 1)")

        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as caught:
            await interrupted()
        assert is_transient(caught.value)
        async with db.transaction() as tx:
            await tx.execute("insert into thing values ('c', 1)")
    assert await count(database) == 1


async def end_sessions(databases: Any, database: Any, which: str) -> int:
    superuser = await asyncpg.connect(databases.superuser_url)
    try:
        ended = await superuser.fetch(
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename = $2 and {which}",
            database.name,
            database.role,
        )
    finally:
        await superuser.close()
    return len(ended)


async def answer_of(db: Database) -> int:
    async with db.transaction() as tx:
        found: int = await tx.fetchval("select 1")
    return found


async def test_the_clock_is_the_databases(database: Any) -> None:
    """now() moves inside a transaction too, is aware and in UTC."""
    async with connected(database) as db:
        first, second = await db.now(), await db.now()
    assert first < second
    assert first.utcoffset() == timedelta(0)
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


async def test_notifications_wake(database: Any) -> None:
    """A committed notification sets the event of its channel and no other; a rolled back one none."""
    async with connected(database) as db:
        one, two = asyncio.Event(), asyncio.Event()
        db.listen("one", one)
        db.listen("two", two)
        for event in (one, two):
            await asyncio.wait_for(event.wait(), 60)
            event.clear()
        await rolled_back(db, "select pg_notify('one', '')")
        async with db.transaction() as tx:
            await tx.execute("select pg_notify('two', '')")
            await asyncio.sleep(0.05)
            assert not two.is_set(), "a notification came before its commit"
        await asyncio.wait_for(two.wait(), 60)
        assert not one.is_set()


async def test_listening_goes_on_after_the_session_was_lost(database: Any, databases: Any) -> None:
    """After the listening session was ended, the event is set once, since something may have been missed, and notifications wake again."""
    async with connected(database) as db:
        wake = asyncio.Event()
        db.listen("one", wake)
        await asyncio.wait_for(wake.wait(), 60)
        wake.clear()
        assert await end_sessions(databases, database, "query ilike 'listen%'") == 1
        await asyncio.wait_for(wake.wait(), 60)
        wake.clear()
        async with db.transaction() as tx:
            await tx.execute("select pg_notify('one', '')")
        await asyncio.wait_for(wake.wait(), 60)


async def test_one_channel_wakes_all_who_listen_on_one_session(database: Any) -> None:
    """Several events and channels share one connection."""
    async with connected(database) as db:
        events = [asyncio.Event() for _ in range(3)]
        for channel, event in zip(("one", "one", "two"), events, strict=True):
            db.listen(channel, event)
        for event in events:
            await asyncio.wait_for(event.wait(), 60)
            event.clear()
        async with database.as_owner() as owner:
            await owner.execute("select pg_notify('one', ''), pg_notify('two', '')")
            for event in events:
                await asyncio.wait_for(event.wait(), 60)
            sessions = await owner.fetchval("select count(*) from pg_stat_activity where usename = $1", database.role)
    assert sessions == 2


async def test_closing_ends_every_session(database: Any) -> None:
    """After close no session is left, though one was listening and one was held."""
    settings = database.settings
    db = await Database.connect(settings, application_name="runtime-test")
    wake = asyncio.Event()
    db.listen("one", wake)
    await asyncio.wait_for(wake.wait(), 60)
    await db.close()
    async with database.as_owner() as owner:
        for _ in range(1200):
            left = await owner.fetchval("select count(*) from pg_stat_activity where usename = $1", database.role)
            if left == 0:
                break
            await asyncio.sleep(0.05)
    assert left == 0


async def test_a_changed_password_is_used_for_new_connections(database: Any, databases: Any, tmp_path: Path) -> None:
    """The password file is read at each connection."""
    file = tmp_path / "password"
    file.write_text(database.settings.password_file.read_text() + "\n")
    async with connected(database, password_file=file) as db:
        superuser = await asyncpg.connect(databases.superuser_url)
        await superuser.execute(f"alter role {database.role} password 'another'")
        file.write_text("another")
        await end_sessions(databases, database, "true")
        try:
            # A connection that the server has just ended may still be handed out once; such a failure is transient, and says so.
            answers: list[int | BaseException] = []
            while 1 not in answers and len(answers) < 5:
                answers += await asyncio.gather(answer_of(db), return_exceptions=True)
            assert answers.pop() == 1
            assert all(isinstance(each, BaseException) and is_transient(each) for each in answers)
        finally:
            old = database.settings.password_file.read_text()
            await superuser.execute(f"alter role {database.role} password '{old}'")
            await superuser.close()


@pytest.mark.parametrize("url", ["postgresql://a:secret@h/d", "postgresql://a@h/d?password=secret", "mysql://a@h/d", "h"])
def test_passwords_are_never_in_the_url(url: str) -> None:
    """A URL with a password, or of another kind, is refused."""
    with pytest.raises(ValidationError, match="must"):
        DatabaseSettings(url=url)


async def test_types_are_asked_about_once(database: Any) -> None:
    """A connection that comes later knows the server's own types already, and reads and writes them as the first does."""
    said: list[str] = []
    values = [[b"a", b"b"], [Decimal(1), Decimal(2)], [datetime(2026, 1, 2, tzinfo=UTC)]]
    async with connected(database) as db, db.connection() as first, db.connection() as second:
        assert list(await first.fetchrow("select $1::bytea[], $2::numeric[], $3::timestamptz[]", *values) or ()) == values
        with second.query_logger(lambda record: said.append(record.query)):
            assert list(await second.fetchrow("select $1::bytea[], $2::numeric[], $3::timestamptz[]", *values) or ()) == values
    assert len(said) == 1
