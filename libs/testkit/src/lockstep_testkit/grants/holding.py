"""The three findings about a role: what it has and should not, what it can do and should not, what it has and nobody needs."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

import asyncpg

from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.grants.attempts import everything_else
from lockstep_testkit.grants.catalogue import functions_of, sequences_of, tables_of
from lockstep_testkit.grants.listed import Grants
from lockstep_testkit.grants.used import refused, statements_of, unused

_VIEWS = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'v'"


async def done(database: TestDatabase, grants: Grants) -> list[str]:
    """What the role was not refused: every statement that its list does not allow is executed as the role, and must fail for want of a right (42501)."""
    wrong = []
    async with database.as_owner() as owner, database.as_role() as role:
        statements = list(
            everything_else(
                grants,
                await tables_of(owner),
                {row["relname"] for row in await owner.fetch(_VIEWS)},
                await functions_of(owner),
                await sequences_of(owner),
                owner=str(urlsplit(database.owner_url).username),
                database=database.name,
                backend=await owner.fetchval("select pg_backend_pid()"),
            )
        )
        for statement in statements:
            attempt = role.transaction()
            # Some of them must not stand in a transaction; those are refused before anything is done, or have failed the test.
            begun = not statement.startswith(
                ("alter system", "create database", "drop database", "create tablespace", "create subscription")
            )
            if begun:
                await attempt.start()
            try:
                await role.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                pass
            except asyncpg.PostgresError as error:
                wrong.append(f"{statement}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{statement}: done")
            finally:
                if begun:
                    await attempt.rollback()
    return wrong


async def of_others(database: TestDatabase, others: Collection[TestDatabase], superuser_url: str) -> list[str]:
    """The databases that the role can connect to, and the sessions of others whose statements it can read."""
    wrong = []
    place = urlsplit(database.role_url)
    superuser = await asyncpg.connect(superuser_url)
    try:
        for name in ("postgres", "template1", *(each.name for each in others)):
            try:
                connection = await asyncpg.connect(place._replace(path=f"/{name}").geturl())
            except asyncpg.InsufficientPrivilegeError:
                continue
            await connection.close()
            wrong.append(f"connects to {name}")
        async with database.as_owner() as owner, database.as_role() as role:
            await owner.fetchval("select 'of the owner alone'")
            seen = await role.fetch("select query from pg_stat_activity where usename is distinct from current_user")
            wrong += [f"reads {row['query']}" for row in seen if row["query"] not in ("", "<insufficient privilege>", None)]
            if not any(row["query"] == "<insufficient privilege>" for row in seen):
                wrong.append("nobody else was connected")
    finally:
        await superuser.close()
    return wrong


async def as_superuser(superuser_url: str, database: TestDatabase, statement: str) -> None:
    """Run a statement in a database as the server's superuser."""
    connection = await asyncpg.connect(urlsplit(superuser_url)._replace(path=f"/{database.name}").geturl())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def needless(
    superuser_url: str, database: TestDatabase, grants: Grants, packages: Collection[str], without: Collection[str]
) -> tuple[list[str], list[str]]:
    """The service's own statements that its role may not run, and the role's grants that no statement needs."""
    statements = statements_of(packages, without=without)
    connection = await asyncpg.connect(urlsplit(superuser_url)._replace(path=f"/{database.name}").geturl())
    try:
        return await refused(connection, database.role, statements), await unused(connection, database.role, grants, statements)
    finally:
        await connection.close()
