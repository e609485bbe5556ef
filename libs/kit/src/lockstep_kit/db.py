"""The database, as the services use it: an asyncpg pool with transactions, a clock, and notifications.

Statements are written in SQL and run through asyncpg's own protocol. A transaction commits when its block ends and rolls back when it raises; durability
settings of the server are never lowered. A notification only wakes: whoever waits for one also polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from pydantic import BaseModel, ConfigDict, Field

_log = structlog.get_logger()

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_LISTEN_RETRY_SECONDS_MAX: Final = 5.0
_TRANSIENT: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    ConnectionError,
    TimeoutError,
)


class DatabaseSettings(BaseModel):
    """Where the database is and how it is used."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="postgresql://role@host:port/database, without a password")
    password_file: Path | None = Field(
        default=None, description="file with the role's password; none where the server asks for none"
    )
    pool_size_max: int = Field(default=10, ge=1, le=100, description="connections at the most; more do not help on few cores")
    lock_timeout_seconds: float = Field(default=10.0, description="longest wait for a row; a deadlock is found sooner")
    statement_timeout_seconds: float = Field(default=30.0, description="longest statement")
    connect_timeout_seconds: float = Field(default=10.0, description="longest wait for a new connection")


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when it is done again."""
    return isinstance(error, _TRANSIENT)


def violated(error: BaseException) -> str | None:
    """Name of the constraint that an error says was violated, or None."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return getattr(error, "constraint_name", None)
    return None


class Database:
    """A pool of connections to one database."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], arguments: dict[str, Any]) -> None:
        self._pool = pool
        self._arguments = arguments
        self._listeners: list[asyncio.Task[None]] = []

    @classmethod
    async def connect(cls, settings: DatabaseSettings, *, application_name: str) -> Database:
        """A pool that has reached its server.

        Raises:
            OSError, asyncpg.PostgresError: the server cannot be reached, or refuses.
        """
        password = settings.password_file.read_text().strip() if settings.password_file else None
        arguments: dict[str, Any] = {
            "dsn": settings.url,
            "password": password,
            "timeout": settings.connect_timeout_seconds,
            "server_settings": {
                "application_name": application_name,
                "timezone": "UTC",
                "lock_timeout": f"{int(settings.lock_timeout_seconds * 1000)}",
                "statement_timeout": f"{int(settings.statement_timeout_seconds * 1000)}",
                "idle_in_transaction_session_timeout": f"{int(settings.statement_timeout_seconds * 1000)}",
            },
        }
        pool = await asyncpg.create_pool(min_size=1, max_size=settings.pool_size_max, **arguments)
        return cls(pool, arguments)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One READ COMMITTED transaction."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside a transaction, for reads and single statements."""
        async with self._pool.acquire() as connection:
            yield connection

    async def now(self) -> datetime:
        """The database's clock, to the microsecond."""
        moment: datetime = await self._pool.fetchval("select clock_timestamp()")
        return moment.astimezone(UTC)

    def listen(self, channel: str, wake: asyncio.Event) -> None:
        """Set the event at each notification, and after each reconnection, since one may have been missed."""
        self._listeners.append(asyncio.create_task(self._listen(channel, wake), name=f"listen:{channel}"))

    async def _listen(self, channel: str, wake: asyncio.Event) -> None:
        pause = 0.1
        while True:
            lost = asyncio.Event()
            try:
                connection = await asyncpg.connect(**self._arguments)
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                _log.warning("listen_failed", channel=channel, error=type(error).__name__)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                pause = min(pause * 2, _LISTEN_RETRY_SECONDS_MAX)
                continue
            try:
                connection.add_termination_listener(lambda *_, lost=lost: lost.set())
                await connection.add_listener(channel, lambda *_: wake.set())
                wake.set()
                pause = 0.1
                await lost.wait()
            finally:
                connection.terminate()

    async def close(self) -> None:
        """End listening, and every connection once its work is done."""
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        try:
            await asyncio.wait_for(self._pool.close(), 5.0)
        except TimeoutError:
            self._pool.terminate()
