"""An owner of one database, as the bank is of its own, has no way to another one or to the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
import pytest

from lockstep_testkit.databases import TestDatabase

#: What belongs to the server or to others.
NOT_THE_OWNERS = (
    "create role made", "create database made", "create tablespace made location '/tmp'", "alter system set fsync = off", "set role postgres",
    "set session authorization postgres", "set session_replication_role = replica", "alter role current_user superuser", "load 'auto_explain'",
    "copy (select 1) to program 'cat'", "copy (select 1) to '/tmp/made'", "select pg_read_file('/etc/hostname')", "select pg_ls_dir('/')",
    "select lo_import('/etc/hostname')", "select lo_creat(-1)", "select pg_reload_conf()", "select * from pg_authid", "select * from pg_shadow",
    "select pg_terminate_backend({backend})", "grant {other} to current_user", "set role {other}", "drop database {database}",
    "alter database {database} owner to current_user",
)  # fmt: skip


async def test_an_owner_owns_its_database_alone(database_for: Callable[..., Awaitable[TestDatabase]], superuser_url: str) -> None:
    """It makes its tables, and nothing of the server's or of another database's; it cannot even connect there."""
    database, other = await database_for("bank_simulator"), await database_for("coordinator")
    superuser = await asyncpg.connect(superuser_url)
    try:
        backend = await superuser.fetchval("select pg_backend_pid()")
        async with database.as_owner() as owner:
            await owner.execute("create table made (x integer); drop table made")
            for statement in NOT_THE_OWNERS:
                told = statement.format(backend=backend, other=f"{other.role}_owner", database=other.name)
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await owner.execute(told)
    finally:
        await superuser.close()
    for name in ("postgres", "template1", other.name):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(urlsplit(database.owner_url)._replace(path=f"/{name}").geturl())
