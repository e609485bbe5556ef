"""The bank's database: connecting, creating its tables, and transactions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final, Literal, TypeAlias, TypeVar

import asyncpg
import structlog

from bank_simulator.settings import DatabaseSettings

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_Result = TypeVar("_Result")

#: Numbered scripts, each applied once and never changed afterwards.
SCRIPTS: Final = (
    (1, "0001_bank.sql"), (2, "0002_credit.sql"), (3, "0003_reservations.sql"), (5, "0005_statements.sql"), (6, "0006_undertakings.sql"),
    (7, "0007_together.sql"),
)  # fmt: skip
#: Serialises processes that create the tables at the same time.
SCHEMA_LOCK: Final = 7_204_110
ATTEMPTS_MAX: Final = 5
COMMAND_SECONDS_MAX: Final = 30
#: What has a key is found by its index from the first payment on: a plan that goes through all rows, made while there were few, would stay for thousands of
#: payments, until the server looks at the table's size again.
SERVER_SETTINGS: Final = {"application_name": "bank-simulator", "enable_seqscan": "off"}

_CREATE_VERSIONS = """
-- What was applied to this database.
create table if not exists schema_versions (version int primary key, applied_at timestamptz not null default now())
"""

log = structlog.get_logger()


class PooledConnection(asyncpg.Connection):
    """A connection that goes back to its pool as it is: settings, locks and cursors end with their transactions here, and nothing listens."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        """None; the driver still rolls back a transaction that was left open."""
        return ""


class Database:
    """A pool of connections to the bank's own database."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, settings: DatabaseSettings) -> Database:
        """Connects, waiting a bounded time for a server that is not there yet, and creates what is missing.

        Raises:
            OSError, asyncpg.PostgresError: It cannot be reached, or refuses.
        """
        password = settings.password_file.read_text(encoding="utf-8").strip() if settings.password_file else None
        give_up = time.monotonic() + settings.connect_seconds_max
        while True:
            try:
                pool = await asyncpg.create_pool(
                    settings.url, password=password, min_size=1, max_size=settings.pool_size_max,
                    command_timeout=COMMAND_SECONDS_MAX, server_settings=SERVER_SETTINGS, connection_class=PooledConnection,
                )  # fmt: skip
                break
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError):
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(0.2)
        database = cls(pool)
        await database._create()
        return database

    async def _create(self) -> None:
        async with self.transaction() as tx:
            await tx.execute("select pg_advisory_xact_lock($1)", SCHEMA_LOCK)
            await tx.execute(_CREATE_VERSIONS)
            applied = {row["version"] for row in await tx.fetch("select version from schema_versions")}
            for version, name in SCRIPTS:
                if version not in applied:
                    await tx.execute(files("bank_simulator").joinpath("sql", name).read_text(encoding="utf-8"))
                    await tx.execute("insert into schema_versions (version) values ($1)", version)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Literal["read_committed", "repeatable_read"] = "read_committed"
    ) -> AsyncIterator[Connection]:
        """One transaction: committed at the end, rolled back on an error."""
        async with self._pool.acquire() as connection, connection.transaction(isolation=isolation):
            yield connection

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Connection]:
        """A connection for one statement, which is a transaction by itself."""
        async with self._pool.acquire() as connection:
            yield connection

    async def run(self, work: Callable[[Connection], Awaitable[_Result]]) -> _Result:
        """Does work in a transaction, again if the database stopped it for the sake of another one, a bounded number of times."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self.transaction() as tx:
                    return await work(tx)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                if attempt == ATTEMPTS_MAX:
                    raise
                log.warning("transaction repeated", attempt=attempt, error=type(error).__name__)
                await asyncio.sleep(0.01 * attempt)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.close()
