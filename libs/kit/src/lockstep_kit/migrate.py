"""Migrations: Alembic over a service's folder, run as the database's owner, who then grants the service's role what it needs.

Several may run at once, as when several replicas are rolled out: one does the work while the others wait, and then find nothing to do. Each revision is one
transaction with its row in the version table.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command, context
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from lockstep_kit import revisions
from lockstep_kit.fields import require
from lockstep_kit.migration_steps import Migration, Step, target
from lockstep_kit.owner_login import add_owner_arguments, owner_url

_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
#: Tables that say which log a database holds: one row, with its incarnation.
_LOGS: Final = """
select one.table_name from information_schema.columns as one join information_schema.columns as log using (table_schema, table_name)
where one.table_schema = 'public' and one.column_name = 'singleton' and log.column_name = 'incarnation' order by one.table_name
"""
#: Advisory lock that a run of migrations holds, on its own database.
_LOCK: Final = 5_270_311_942


def migrate(folder: Path, owner_url: str, role: str, step: Step = Step.ALL) -> None:
    """Bring a database to the newest revision of a step. `role` is the service's role, which owns nothing. Blocks; not to be called in an event loop.

    Raises:
        FieldInvalid: the role's name needs quotes, the database is at a revision that the folder does not know, or an earlier step was left out.
        alembic.util.CommandError: the folder holds no migrations.
    """
    require(_ROLE.fullmatch(role) is not None, "role", "must be a lower-case name without quotes")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes.update(url=owner_url, role=role)
    scripts = ScriptDirectory.from_config(config)
    found = [Migration(each.revision, Step(getattr(each.module, "STEP", Step.PRE))) for each in scripts.walk_revisions()]
    command.upgrade(config, target(found[::-1], asyncio.run(_current(owner_url)), step) if found else "head")


async def _current(owner_url: str) -> str:
    """The revision that a database is at; "" for one that is at none."""
    engine = create_async_engine(_async_url(owner_url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda it: MigrationContext.configure(it).get_current_revision()) or ""
    finally:
        await engine.dispose()


def renew_logs(owner_url: str) -> None:
    """Have every log of a database that was put back count as another one, so that whoever followed it reads it anew. Blocks.

    Without it a follower that comes late may not notice: the log has grown past the place that it had read before.
    """
    asyncio.run(_renew_logs(owner_url))


async def _renew_logs(owner_url: str) -> None:
    engine = create_async_engine(_async_url(owner_url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            for name in (await connection.execute(sa.text(_LOGS))).scalars().all():
                await connection.execute(sa.text(f'update "{name}" set incarnation = gen_random_uuid()::text'))
    finally:
        await engine.dispose()


def run_env(metadata: sa.MetaData) -> None:
    """What a service's `migrations/env.py` calls."""
    asyncio.run(_run(metadata))


async def _run(metadata: sa.MetaData) -> None:
    def apply(connection: sa.Connection) -> None:
        def note(revision: str) -> None:
            """Have the version read by who may not read the version table."""
            connection.execute(sa.text(f"comment on table alembic_version is '{revisions.MARK}{revision}'"))

        # Held by the session, over all transactions of the run, and given back when the connection closes.
        connection.execute(sa.text("select pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            on_version_apply=lambda step, **_: note(str(step.up_revision_id)),
        )
        with context.begin_transaction():
            context.run_migrations()
            # Also where nothing was to be done: the database may be older than these comments.
            note(str(context.get_context().get_current_revision()))

    engine = create_async_engine(_async_url(context.config.attributes["url"]), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(apply)
            await connection.commit()
    finally:
        await engine.dispose()


async def differences(url: str, metadata: sa.MetaData) -> list[Any]:
    """Where a migrated database differs from what the code declares: tables, columns, types, nullability, defaults, indexes, keys."""

    def compare(connection: sa.Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    engine = create_async_engine(_async_url(url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(compare)
    finally:
        await engine.dispose()


def _async_url(url: str) -> str:
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def main(folder: Path) -> None:
    """Command line of a service's migrations: the owner's URL without password, a file with it, and the service's role."""
    parser = argparse.ArgumentParser(description="Bring the service's database to the newest revision.")
    add_owner_arguments(parser)
    parser.add_argument("--role", required=True, help="the service's role")
    parser.add_argument("--restored", action="store_true", help="the database was put back: have its logs count as other ones")
    parser.add_argument(
        "--step", type=Step, choices=list(Step), default=Step.ALL,
        help="pre: what the code of before can live with, before the new code is there; post: the rest, once the code of before is gone; all: both",
    )  # fmt: skip
    told = parser.parse_args()
    url = owner_url(told)
    migrate(folder, url, told.role, told.step)
    if told.restored:
        renew_logs(url)
