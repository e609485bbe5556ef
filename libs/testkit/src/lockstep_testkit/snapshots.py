"""Databases set back to an earlier moment, as a restore from a backup does: everything written since is gone, for whoever is connected too.

A snapshot is a copy of the whole database on the same server. Taking one ends the sessions of those who use it, as a failover would; they connect again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

#: How often it is seen whether all sessions have ended, and for how long.
LOOK_SECONDS: Final = 0.02
LOOKS_MAX: Final = 6_000

#: What is set for whoever connects to a database: it is no part of a copy, and whoever connects first must find it.
_SETTINGS: Final = """
select setconfig from pg_db_role_setting join pg_database on pg_database.oid = setdatabase where datname = $1 and setrole = 0
"""

_END_SESSIONS: Final = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A database as it was."""

    #: The database.
    database: str
    #: Its copy.
    copy: str
    #: Who owns the database.
    owner: str
    #: Role that may connect to it.
    role: str


class Snapshots:
    """Takes and puts back snapshots on one server."""

    def __init__(self, superuser_url: str) -> None:
        self._superuser_url = superuser_url
        self._taken = 0

    async def take(self, database: str, role: str) -> Snapshot:
        """A copy of a database; `role` is the service's, which may connect to it."""
        self._taken += 1
        copy = f"{database}_at_{self._taken}"
        async with self._quiet(database) as server:
            owner = await server.fetchval(
                "select rolname from pg_database join pg_roles on pg_roles.oid = datdba where datname = $1", database
            )
            await server.execute(f"create database {copy} owner {owner} template {database}")
        return Snapshot(database, copy, owner, role)

    async def put_back(self, snapshot: Snapshot) -> None:
        """Set a database back to what it was; the snapshot stays, and can be put back again."""
        name = snapshot.database
        async with self._quiet(name) as server:
            settings = await server.fetchval(_SETTINGS, name) or []
            await server.execute(f"drop database {name} with (force)")
            await server.execute(f"create database {name} owner {snapshot.owner} template {snapshot.copy} allow_connections false")
            for each in settings:
                setting, _, value = each.partition("=")
                await server.execute("select set_config($1, $2, false)", setting, value)
                await server.execute(f"alter database {name} set {setting} from current")
            await server.execute(f"revoke all on database {name} from public")
            await server.execute(f"grant connect on database {name} to {snapshot.role}")

    async def drop(self, snapshot: Snapshot) -> None:
        """Remove a copy."""
        connection = await asyncpg.connect(self._superuser_url)
        try:
            await connection.execute(f"drop database if exists {snapshot.copy} with (force)")
        finally:
            await connection.close()

    @asynccontextmanager
    async def _quiet(self, database: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The server, with nobody connected to a database, and nobody let in."""
        connection = await asyncpg.connect(self._superuser_url)
        try:
            await connection.execute(f"alter database {database} allow_connections false")
            for _ in range(LOOKS_MAX):
                if not await connection.fetchval(_END_SESSIONS, database):
                    break
                await asyncio.sleep(LOOK_SECONDS)
            else:
                raise TimeoutError(f"sessions of {database} do not end")
            yield connection
        finally:
            await connection.execute(f"alter database {database} allow_connections true")
            await connection.close()
