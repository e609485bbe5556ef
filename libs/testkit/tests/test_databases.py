from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from lockstep_kit.db import Database
from lockstep_sandbox.postgres import plan_service_database, private_postgres
from lockstep_testkit.databases import Databases, TestDatabase

pytestmark = pytest.mark.integration

MakeDatabase = Callable[..., Awaitable[TestDatabase]]

MIGRATION = """
from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("create table thing (name text primary key)")
    op.execute(f"grant select, insert on thing to {context.config.attributes['role']}")
"""

#: Starts a server and is killed while it runs.
PARENT = """
import time
from lockstep_sandbox.postgres import private_postgres

with private_postgres("secret") as url:
    print(url, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(
        "import sqlalchemy as sa\n\nfrom lockstep_kit.migrate import run_env\n\nrun_env(sa.MetaData())\n"
    )
    (folder / "versions" / "0001_things.py").write_text(MIGRATION)
    return folder


async def test_a_service_reaches_its_migrated_database(database_for: MakeDatabase, migrations: Path) -> None:
    """The service's role reads and writes what it was granted, and owns nothing."""
    database = await database_for("test_service", migrations)
    db = await Database.connect(database.settings, application_name="test")
    try:
        async with db.transaction() as tx:
            await tx.execute("insert into thing values ('a')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction() as tx:
                await tx.execute("delete from thing")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction() as tx:
                await tx.execute("create table another (name text)")
    finally:
        await db.close()
    async with database.as_owner() as owner:
        assert await owner.fetchval("select count(*) from thing") == 1
        assert await owner.fetchval("select count(*) from pg_class where relowner = $1::regrole", database.role) == 0


async def test_each_test_has_a_database_of_its_own(database_for: MakeDatabase, migrations: Path) -> None:
    """What is written into one clone is not in another of the same template."""
    first, second = await database_for("test_service", migrations), await database_for("test_service", migrations)
    assert first.name != second.name
    async with first.as_owner() as owner:
        await owner.execute("insert into thing values ('a')")
    async with second.as_owner() as owner:
        assert await owner.fetchval("select count(*) from thing") == 0


async def test_services_cannot_reach_one_anothers_databases(database_for: MakeDatabase, migrations: Path) -> None:
    """A role that is not of the service is refused at the connection, and so is a wrong password."""
    mine, other = await database_for("test_service", migrations), await database_for("test_other")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(mine.role_url.rpartition("/")[0] + f"/{other.name}")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(mine.settings.url, password="wrong")


async def test_a_dropped_database_is_gone(databases: Databases) -> None:
    """Dropping ends the sessions that are still open."""
    database = await databases.create("test_dropped")
    connection = await asyncpg.connect(database.role_url)
    await databases.drop(database)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
        await connection.fetchval("select 1")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(database.role_url)


@pytest.mark.parametrize("name", ["a b", "A", "1a", "x" * 64, "a;drop"])
def test_only_plain_names_become_databases(name: str) -> None:
    """A name that would need quotes is refused."""
    with pytest.raises(ValueError, match="no plain name"):
        plan_service_database(name)


async def test_the_server_listens_on_loopback_and_asks_for_passwords() -> None:
    """The server listens on 127.0.0.1 alone, demands its password, keeps what it commits, and is gone when it was stopped."""
    with private_postgres("secret") as url:
        connection = await asyncpg.connect(url)
        folder = Path(await connection.fetchval("show data_directory")).parent
        assert await connection.fetchval("show listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("show fsync") == "on"
        assert await connection.fetchval("show synchronous_commit") == "on"
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url, password="wrong")
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(url)


async def test_a_server_ends_with_its_parent() -> None:
    """Killing the process that started the server with kill -9 stops the server."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        url = (await parent.stdout.readline()).decode().strip()
        connection = await asyncpg.connect(url)
        folder = Path(await connection.fetchval("show data_directory")).parent
        await connection.close()
    finally:
        parent.kill()
        await parent.wait()
    deadline = time.monotonic() + 120
    while (folder / "data" / "postmaster.pid").exists():
        assert time.monotonic() < deadline, "the server outlived its parent"
        await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(url)
    shutil.rmtree(folder)
