"""A database's clock that a test can set: everything that a service reads off its database's clock jumps, live, and nothing else of the machine does.

The services read time by `clock_timestamp()` alone. In a database that is prepared so, that name means a function of the test's own, found before the
server's; it adds an offset that is a row. Sessions that were open before keep the server's clock: prepare first, or end them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg

_PREPARE = (
    "create schema jumping",
    "create table jumping.ahead (by interval not null)",
    "insert into jumping.ahead values ('0')",
    """
    create function jumping.clock_timestamp() returns timestamptz language sql volatile as
        'select pg_catalog.clock_timestamp() + (select by from jumping.ahead)'
    """,
    "grant usage on schema jumping to public",
    "grant select on jumping.ahead to public",
)


@dataclass(frozen=True, slots=True)
class JumpingClock:
    """The clock of one database."""

    #: URL of the database's owner, with password.
    owner_url: str

    async def prepare(self) -> None:
        """Give the database a clock that can be set; for sessions that begin from now on."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            for statement in _PREPARE:
                await connection.execute(statement)
            name = urlsplit(self.owner_url).path.removeprefix("/")
            await connection.execute(f'alter database {name} set search_path = jumping, pg_catalog, "$user", public')
        finally:
            await connection.close()

    async def set(self, ahead: timedelta) -> None:
        """From now on the clock is so far ahead of the machine's; negative: behind."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            await connection.execute("update jumping.ahead set by = $1", ahead)
        finally:
            await connection.close()
