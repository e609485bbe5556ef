"""Migrations: Alembic over a service's folder, run as the database's owner, who then grants the service's role what it needs."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from alembic import command, context
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from lockstep_kit.fields import require


def migrate(folder: Path, owner_url: str, role: str) -> None:
    """Bring a database to the newest revision. `role` is the service's role, which owns nothing."""
    require(role.isidentifier() and role.islower(), "role", "must be a lower-case identifier")
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes.update(url=owner_url, role=role)
    command.upgrade(config, "head")


def run_env(metadata: MetaData) -> None:
    """What a service's `migrations/env.py` calls."""
    asyncio.run(_run(metadata))


async def _run(metadata: MetaData) -> None:
    def apply(connection: Connection) -> None:
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()

    engine = create_async_engine(_async_url(context.config.attributes["url"]), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(apply)
        await connection.commit()
    await engine.dispose()


async def differences(url: str, metadata: MetaData) -> list[Any]:
    """Where a migrated database differs from what the code declares; empty when it does not."""

    def compare(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    engine = create_async_engine(_async_url(url), poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(compare)
    await engine.dispose()
    return found


def _async_url(url: str) -> str:
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def main(folder: Path) -> None:
    """Command line of a service's migrations: the owner's URL without password, a file with it, and the service's role."""
    parser = argparse.ArgumentParser(description="Bring the service's database to the newest revision.")
    parser.add_argument("--owner-url", required=True, help="postgresql://owner@host:port/database, without a password")
    parser.add_argument("--owner-password-file", type=Path, help="file with the owner's password")
    parser.add_argument("--role", required=True, help="the service's role")
    told = parser.parse_args()
    url = make_url(told.owner_url)
    if told.owner_password_file is not None:
        url = url.set(password=told.owner_password_file.read_text().strip())
    migrate(folder, url.render_as_string(hide_password=False), told.role)
