from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.util import CommandError

from lockstep_kit import revisions
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.migrate import differences, migrate
from lockstep_kit.migration_steps import Step
from lockstep_kit.outbox import Outbox

pytestmark = pytest.mark.integration

ENV = """
import sqlalchemy as sa

from lockstep_kit.migrate import run_env

run_env(sa.MetaData())
"""
FIRST = """
from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("select pg_sleep(0.3)")
    op.execute("create table thing (name text primary key)")
    op.execute(f"grant select on thing to {context.config.attributes['role']}")
"""
BROKEN = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("create table half (name text primary key)")
    op.execute("create table thing (name text primary key)")
"""

MORE = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table thing add column label text not null default ''")
"""
LESS = """
from alembic import op

revision = "0003"
down_revision = "0002"
STEP = "post"


def upgrade() -> None:
    op.execute("alter table thing drop column name")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Migrations in a folder whose name needs care."""
    made = tmp_path / "100% migrations"
    (made / "versions").mkdir(parents=True)
    (made / "env.py").write_text(ENV)
    (made / "versions" / "0001_thing.py").write_text(FIRST)
    return made


async def test_migrations_run_once_however_many_start_them(database_for: Any, folder: Path) -> None:
    """Three processes that migrate at the same time all succeed, and the revision is applied once."""
    database = await database_for("runtime_migrate")
    program = f"from pathlib import Path\nfrom lockstep_kit.migrate import main\nmain(Path({str(folder)!r}))"
    user, _, place = database.owner_url.partition("://")[2].rpartition("@")
    owner, _, password = user.partition(":")
    secret = folder / "password"
    secret.write_text(password + "\n")
    arguments = ["--owner-url", f"postgresql://{owner}@{place}", "--owner-password-file", str(secret), "--role", database.role]
    runs = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments, stderr=subprocess.PIPE) for _ in range(3)
    ]
    ends = await asyncio.gather(*(run.communicate() for run in runs))
    assert [(run.returncode, end[1].decode()) for run, end in zip(runs, ends, strict=True)] == [(0, "")] * 3
    async with database.as_owner() as connection:
        assert await connection.fetchval("select array_agg(version_num::text) from alembic_version") == ["0001"]
    async with database.as_role() as connection:
        assert await connection.fetchval("select count(*) from thing") == 0
        assert await revisions.recorded(connection) == "0001"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("select count(*) from alembic_version")


async def test_a_revision_that_fails_leaves_nothing(database_for: Any, folder: Path) -> None:
    """A broken revision is rolled back whole; the one before it stays, and a corrected one is applied later."""
    database = await database_for("runtime_migrate")
    second = folder / "versions" / "0002_half.py"
    second.write_text(BROKEN)
    with pytest.raises(sa.exc.ProgrammingError):
        await asyncio.to_thread(migrate, folder, database.owner_url, database.role)
    async with database.as_owner() as connection:
        assert await connection.fetchval("select version_num from alembic_version") == "0001"
        assert await revisions.recorded(connection) == "0001"
        assert await connection.fetchval("select to_regclass('half')") is None
    second.write_text(BROKEN.replace("create table thing", "create table other"))
    await asyncio.to_thread(migrate, folder, database.owner_url, database.role)
    async with database.as_owner() as connection:
        assert await connection.fetchval("select version_num from alembic_version") == "0002"
        assert await revisions.recorded(connection) == "0002"


async def test_what_the_code_of_before_needs_goes_after_it(database_for: Any, folder: Path) -> None:
    """The step before a release stops at what drops something, and the step after it brings that about."""
    database = await database_for("runtime_migrate")
    await asyncio.to_thread(migrate, folder, database.owner_url, database.role)
    (folder / "versions" / "0002_more.py").write_text(MORE)
    (folder / "versions" / "0003_less.py").write_text(LESS)
    found = []
    for step in (Step.PRE, Step.PRE, Step.POST):
        await asyncio.to_thread(migrate, folder, database.owner_url, database.role, step)
        async with database.as_owner() as connection:
            columns = await connection.fetch(
                "select attname::text from pg_attribute where attrelid = 'thing'::regclass and attnum > 0 and not attisdropped"
            )
            found.append({each["attname"] for each in columns})
        async with database.as_role() as connection:
            assert await revisions.recorded(connection) == ("0002" if step is Step.PRE else "0003")
    assert found == [{"name", "label"}, {"name", "label"}, {"label"}]


async def test_wrong_input_is_refused(database_for: Any, folder: Path, tmp_path: Path) -> None:
    """A role that needs quotes and a folder without migrations are refused."""
    database = await database_for("runtime_migrate")
    with pytest.raises(FieldInvalid, match="role"):
        await asyncio.to_thread(migrate, folder, database.owner_url, "a; drop table thing")
    with pytest.raises(CommandError):
        await asyncio.to_thread(migrate, tmp_path / "nowhere", database.owner_url, database.role)


async def test_differences_are_found(database_for: Any) -> None:
    """A missing table, another type, another nullability, another default and a missing index are each told; agreement is silence."""
    database = await database_for("runtime_migrate")
    outbox = Outbox("post")
    declared = sa.MetaData()
    table = outbox.declare(declared)
    async with database.as_owner() as connection:
        for statement in outbox.upgrade():
            await connection.execute(statement)
        assert await differences(database.owner_url, declared) == []
        for change in (
            "alter table post alter column attempts type bigint",
            "alter table post alter column traceparent set not null",
            "alter table post alter column attempts set default 1",
            "drop index post_due",
        ):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(change)
            await transaction.commit()
            assert len(await differences(database.owner_url, declared)) >= 1, change
            await connection.execute("drop table post")
            for statement in outbox.upgrade():
                await connection.execute(statement)
    sa.Table("missing", declared, sa.Column("name", sa.Text, primary_key=True))
    assert [difference[0] for difference in await differences(database.owner_url, declared)] == ["add_table"]
    assert table.name == "post"
