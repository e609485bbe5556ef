"""The database, as the services use it: an asyncpg pool with transactions, a clock, and notifications.

Statements are written in SQL and run through asyncpg's own protocol. A transaction commits when its block ends and rolls back when it raises; durability
settings of the server are never lowered. A notification only wakes: whoever waits for one also polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from pydantic import BaseModel, ConfigDict, Field, field_validator

from lockstep_kit.statement_spans import TracedConnection
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


#: Types with smaller numbers came with the server (FirstNormalObjectId).
_OWN_TYPES_FROM: Final = 16_384


class _PooledConnection(TracedConnection):
    """A connection that goes back to its pool without a round trip.

    The driver would unlock, close, unlisten and reset whatever a session may have been left with. Nothing here leaves anything: settings are the session's
    own from its start, locks and cursors end with their transactions, and what listens has a connection of its own. An open transaction is still rolled back.
    """

    __slots__ = ()

    #: What the server told of its own types, by the types that were asked about. They are the same in every database of a server.
    _told: ClassVar[dict[frozenset[int], Any]] = {}

    def get_reset_query(self) -> str:
        """None."""
        return ""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:  # noqa: ASYNC109 - the driver's signature
        """What the driver must know of types: asked once by a process, where each new connection would ask, with a statement that takes milliseconds."""
        asked = frozenset(typeoids)
        if max(asked) >= _OWN_TYPES_FROM:
            return await super()._introspect_types(asked, timeout)  # type: ignore[misc]  # the driver's own
        if asked not in self._told:
            self._told[asked] = await super()._introspect_types(asked, timeout)  # type: ignore[misc]  # the driver's own
        return self._told[asked]


_LISTEN_RETRY_SECONDS_MIN: Final = 0.1
_LISTEN_RETRY_SECONDS_MAX: Final = 5.0
#: A listening connection that nobody writes on is asked for a sign of life this often: a lost network path says nothing by itself.
_LISTEN_PROBE_SECONDS: Final = 20.0
_CLOSE_SECONDS_MAX: Final = 5.0


class DatabaseUnreachable(Exception):
    """There is no connection to work with: the server is away, or all of the pool's are taken. Nothing was done."""


_TRANSIENT: Final = (
    DatabaseUnreachable,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    # The driver's word for a connection that the server ends in the middle of a statement.
    asyncpg.InternalClientError,
)


@dataclass(frozen=True, slots=True)
class CopyInto:
    """A table into which rows are copied: where columns are many that costs the driver less than one list for each. It takes the right to insert."""

    #: The table.
    table: str
    #: Columns of a row, in order.
    columns: tuple[str, ...]

    async def copy(self, tx: Connection | asyncpg.Connection[asyncpg.Record], rows: Sequence[tuple[object, ...]]) -> None:
        """Write rows; all or none."""
        await tx.copy_records_to_table(self.table, records=rows, columns=self.columns)


class DatabaseSettings(BaseModel):
    """Where the database is and how it is used."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="postgresql://role@host:port/database, without a password, which comes from a file")
    password_file: Path | None = Field(
        default=None, description="file with the role's password; none where the server asks for none"
    )
    pool_size_max: int = Field(default=10, ge=1, le=100, description="connections at the most; more do not help on few cores")
    acquire_timeout_seconds: float = Field(
        default=10.0, gt=0, description="longest wait for a free connection; then the work is refused"
    )
    lock_timeout_seconds: float = Field(default=10.0, gt=0, description="longest wait for a row; a deadlock is found sooner")
    statement_timeout_seconds: float = Field(
        default=30.0, gt=0, description="longest statement, and longest pause inside a transaction"
    )
    connect_timeout_seconds: float = Field(default=10.0, gt=0, description="longest wait for a new connection")

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("must be a postgresql:// URL")
        if parts.password is not None or "password=" in parts.query:
            raise ValueError("must hold no password: name a file in password_file")
        return url


def is_transient(error: BaseException) -> bool:
    """Whether the database could not do the work now, and the same work may succeed when it is done again."""
    return isinstance(error, (*_TRANSIENT, ConnectionError, TimeoutError))


def is_database_trouble(error: BaseException) -> bool:
    """The same, of errors that only the database raises."""
    return isinstance(error, _TRANSIENT)


def violated(error: BaseException) -> str | None:
    """Name of the constraint that an error says was violated, or None."""
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return getattr(error, "constraint_name", None)
    return None


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How much of a pool is taken."""

    #: Connections that somebody works with.
    in_use: int
    #: Connections that wait for work.
    idle: int
    #: How many there may be.
    size_max: int
    #: Pieces of work that wait for a connection.
    waiting: int


class Database:
    """A pool of connections to one database, and one connection that listens."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], arguments: dict[str, Any], acquire_seconds_max: float) -> None:
        self._pool = pool
        self._arguments = arguments
        self._waiting = 0
        self._acquire_seconds_max = acquire_seconds_max
        self._listener = _Listener(arguments)

    @classmethod
    async def connect(cls, settings: DatabaseSettings, *, application_name: str) -> Database:
        """A pool that has reached its server. The password is read again for each new connection, so that it can be changed.

        Raises:
            OSError, asyncpg.PostgresError: the server cannot be reached, or refuses, or the password cannot be read.
        """
        path = settings.password_file
        arguments: dict[str, Any] = {
            "dsn": settings.url,
            # Never none: the driver would look for a password in the environment then.
            "password": lambda: path.read_text().strip() if path is not None else "",
            "timeout": settings.connect_timeout_seconds,
            # Statements are planned once by a connection, not for each execution, which is a third of what a small one costs. Their plans know neither how many
            # values come nor how much tables will hold: what is found by its key is found by an index, which costs little, since what is used is in memory.
            "server_settings": {
                "application_name": application_name,
                "timezone": "UTC",
                "plan_cache_mode": "force_generic_plan",
                "random_page_cost": "1.1",
                "lock_timeout": f"{int(settings.lock_timeout_seconds * 1000)}",
                "statement_timeout": f"{int(settings.statement_timeout_seconds * 1000)}",
                "idle_in_transaction_session_timeout": f"{int(settings.statement_timeout_seconds * 1000)}",
            },
        }
        pool = await asyncpg.create_pool(
            min_size=1, max_size=settings.pool_size_max, connection_class=_PooledConnection, **arguments
        )
        return cls(pool, arguments, settings.acquire_timeout_seconds)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One READ COMMITTED transaction.

        Raises:
            DatabaseUnreachable: the server is away, or no connection became free in time.
        """
        async with self.connection() as connection, connection.transaction(isolation="read_committed"):
            yield connection

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """One transaction that only reads, and all of whose reads see one moment.

        Raises:
            DatabaseUnreachable: the server is away, or no connection became free in time.
        """
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside a transaction, for reads and single statements.

        Raises:
            DatabaseUnreachable: the server is away, or no connection became free in time.
        """
        self._waiting += 1
        try:
            connection = await self._pool.acquire(timeout=self._acquire_seconds_max)
        except OSError as error:
            raise DatabaseUnreachable(f"{type(error).__name__}: {error}".rstrip(" :")) from error
        finally:
            self._waiting -= 1
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    async def apart(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool, for what must neither wait for the pool nor keep others waiting; whoever asked closes it.

        Raises:
            OSError, asyncpg.PostgresError: the server cannot be reached, or refuses.
        """
        return await asyncpg.connect(**self._arguments)

    def use(self) -> PoolUse:
        """How much of the pool is taken now."""
        idle, size = self._pool.get_idle_size(), self._pool.get_size()
        return PoolUse(size - idle, idle, self._pool.get_max_size(), self._waiting)

    async def now(self) -> datetime:
        """The database's clock, to the microsecond."""
        async with self.connection() as connection:
            moment: datetime = await connection.fetchval("select clock_timestamp()")
        return moment.astimezone(UTC)

    def listen(self, channel: str, wake: asyncio.Event, heeds: Callable[[str], bool] = lambda _: True) -> None:
        """Set the event at each notification whose text is heeded, and after each reconnection, since one may have been missed; its text is ""."""
        self._listener.add(channel, wake, heeds)

    async def close(self) -> None:
        """End listening, and every connection once its work is done; after some seconds, whether it is done or not."""
        await self._listener.close()
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS_MAX)
        except TimeoutError:
            self._pool.terminate()


class _Listener:
    """One connection that listens to any number of channels, and is made again whenever it is lost."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._wakes: dict[str, list[tuple[asyncio.Event, Callable[[str], bool]]]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rng = random.Random()  # noqa: S311 - jitter, no secret

    def add(self, channel: str, wake: asyncio.Event, heeds: Callable[[str], bool]) -> None:
        self._wakes.setdefault(channel, []).append((wake, heeds))
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="database.listen")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = _LISTEN_RETRY_SECONDS_MIN
        while True:
            try:
                connection = await asyncpg.connect(**self._arguments)
                pause = _LISTEN_RETRY_SECONDS_MIN
                try:
                    await self._listen(connection)
                finally:
                    connection.terminate()
            except Exception as error:  # noqa: BLE001 - whatever it is, listening must begin again; polling goes on meanwhile
                _log.warning("listen_lost", channels=sorted(self._wakes), error=type(error).__name__)
            await asyncio.sleep(self._rng.uniform(pause / 2, pause))
            pause = min(pause * 2, _LISTEN_RETRY_SECONDS_MAX)

    async def _listen(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Return when the connection is lost."""
        connection.add_termination_listener(lambda *_: self._changed.set())
        heard: set[str] = set()
        while not connection.is_closed():
            self._changed.clear()
            for channel in self._wakes.keys() - heard:
                await connection.add_listener(channel, self._wake)
                heard.add(channel)
                self._wake(connection, 0, channel, "")
            try:
                async with asyncio.timeout(_LISTEN_PROBE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                await connection.execute("select", timeout=_LISTEN_RETRY_SECONDS_MAX)

    def _wake(self, _connection: object, _pid: int, channel: str, told: object) -> None:
        for wake, heeds in self._wakes[channel]:
            if heeds(str(told)):
                wake.set()
