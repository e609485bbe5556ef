"""`lockstep_kit.db.Database` over a twin: what one process holds, with a limit on connections, and everything that may go wrong on the way to a database.

A connection can be lost while a statement runs, before a commit and after it: the process cannot know whether it took effect.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, cast

import asyncpg

from lockstep_kit.db import Connection, CopyInto, Database, DatabaseUnreachable
from lockstep_testkit.simulation.loop import Process
from lockstep_testkit.simulation.memory import Asked, Handler, Recorder, Row, Rows, Server, Statement, Transaction
from lockstep_testkit.simulation.specs import copied

#: As `DatabaseSettings` has them.
POOL_SIZE_MAX: Final = 10
ACQUIRE_SECONDS_MAX: Final = 10.0
#: A transaction of a process that does not go on is ended by the server after this.
IDLE_SECONDS_MAX: Final = 30.0


@dataclass(slots=True)
class Trouble:
    """How a database treats its clients; changed while a simulation runs."""

    #: Share of the statements that take time, and the longest that one takes.
    slow: float = 0.0
    slow_seconds_max: float = 0.0
    #: Share of the statements whose connection is lost.
    lost: float = 0.0
    #: Share of the commits whose connection is lost, before or after they took effect.
    lost_at_commit: float = 0.0
    #: No connection is made.
    down: bool = False
    #: What was done of it.
    lost_count: int = 0


class StatementUnknown(LookupError):
    """A statement has no twin."""


class Session:
    """One connection, inside a transaction or outside."""

    def __init__(self, database: MemoryDatabase, tx: Transaction | None) -> None:
        self._database = database
        self._server = database.server
        self._tx = tx

    async def fetch(self, text: str, *args: Any) -> Rows:
        """The rows of a statement."""
        return await self._run(text, args)

    async def fetchrow(self, text: str, *args: Any) -> Row | None:
        """The first of them."""
        rows = await self._run(text, args)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *args: Any) -> Any:
        """The first value of the first row; a twin gives no other, since its columns have no order."""
        rows = await self._run(text, args)
        if rows and len(rows[0]) != 1:
            raise AssertionError(f"one value is wanted of {sorted(rows[0])}")
        return next(iter(rows[0].values())) if rows else None

    async def execute(self, text: str, *args: Any) -> None:
        """Run a statement for what it does."""
        await self._run(text, args)

    async def copy_records_to_table(self, table_name: str, *, records: Sequence[Sequence[Any]], columns: Sequence[str]) -> None:
        """Copy rows into a table."""
        await self._run(copied(CopyInto(table_name, tuple(columns))), tuple(records))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A savepoint: what is written from here on is undone if it ends with an error, and what was written before stays."""
        tx = self._tx
        if tx is None:
            raise AssertionError("a savepoint is inside a transaction")
        writes = {table: dict(rows) for table, rows in tx.writes.items()}
        notified, deferred = dict(tx.notified), list(tx.deferred)
        try:
            yield
        except BaseException:
            tx.writes, tx.notified, tx.deferred, tx.failed = writes, notified, deferred, False
            raise

    async def _run(self, text: str, args: tuple[Any, ...]) -> Rows:
        handler = self._server.schema.statements.get(text)
        if handler is None:
            raise StatementUnknown(f"{self._server.name}: no twin of {text.strip()}")
        database, tx = self._database, self._tx
        if database.hurried():
            await database.travel(tx)
        if self._server.recorder is not None:
            return await self._recorded(handler, text, args, self._server.recorder)
        return await self._answer(handler, args)

    async def _recorded(self, handler: Handler, text: str, args: tuple[Any, ...], recorder: Recorder) -> Rows:
        now = self._server.now()
        try:
            rows = await self._answer(handler, args)
        except Exception as error:
            recorder.append(Asked(self._tx, text, args, now, error))
            raise
        recorder.append(Asked(self._tx, text, args, now, rows))
        return rows

    async def _answer(self, handler: Handler, args: tuple[Any, ...]) -> Rows:
        tx = self._tx
        if tx is None:
            return await self._alone(handler, args)
        if tx.lost:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        if tx.failed:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        try:
            found = handler(Statement(self._server, tx), *args)
            return found if isinstance(found, list) else await found
        except Exception:
            tx.failed = True
            raise

    async def _alone(self, handler: Handler, args: tuple[Any, ...]) -> Rows:
        tx = self._server.begin()
        self._database.transactions[tx] = None
        try:
            found = handler(Statement(self._server, tx), *args)
            rows: Rows = found if isinstance(found, list) else await found
            if tx.lost:
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            self._server.commit(tx)
        except BaseException:
            self._server.rollback(tx)
            raise
        finally:
            self._database.transactions.pop(tx, None)
        return rows


class _Connected:
    """A connection outside a transaction, taken from the pool and given back."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        await self._database.acquire()
        return cast("Connection", Session(self._database, None))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.release()


class _InTransaction:
    """A connection inside a transaction, which commits when its block ends and rolls back when it raises."""

    def __init__(self, database: MemoryDatabase, *, one_moment: bool) -> None:
        self._database = database
        self._one_moment = one_moment
        self._tx: Transaction | None = None

    async def __aenter__(self) -> Connection:
        await self._database.acquire()
        self._tx = tx = self._database.server.begin()
        if self._one_moment:
            tx.moment = self._database.server.snapshot()
        self._database.transactions[tx] = None
        return cast("Connection", Session(self._database, tx))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        database, tx = self._database, self._tx
        if tx is None:
            raise AssertionError("it was entered")
        try:
            if kind is None:
                await database.commit(tx)
        finally:
            # Of one that committed there is nothing left to be undone.
            database.server.rollback(tx)
            database.transactions.pop(tx, None)
            database.release()


class MemoryDatabase:
    """What a process has of a database."""

    def __init__(self, server: Server, process: Process, chance: random.Random, trouble: Trouble) -> None:
        self.server: Final = server
        #: Open transactions of the process.
        self.transactions: dict[Transaction, None] = {}
        self._process = process
        self._chance = chance
        self._trouble = trouble
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        # The server learns at once that a process is gone, and in time that one does not go on; it ends what that had begun.
        process.on_kill.append(self._gone)
        process.on_silence.append(self._gone)

    @property
    def typed(self) -> Database:
        """This, as services know it."""
        return cast("Database", self)

    def hurried(self) -> bool:
        """Whether something happens to the statement that comes now; drawn cheaply, since it is asked for each."""
        trouble = self._trouble
        return trouble.down or self._chance.random() < trouble.slow + trouble.lost

    async def travel(self, tx: Transaction | None) -> None:
        """What happens to a statement on its way.

        Raises:
            asyncpg.PostgresConnectionError: it never arrived.
        """
        trouble = self._trouble
        if trouble.down or self._chance.random() * (trouble.slow + trouble.lost) < trouble.lost:
            if tx is not None:
                self.server.lose([tx])
            trouble.lost_count += 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        await asyncio.sleep(self._chance.random() * trouble.slow_seconds_max)

    def transaction(self) -> _InTransaction:
        """As `Database.transaction`."""
        return _InTransaction(self, one_moment=False)

    def snapshot(self) -> _InTransaction:
        """As `Database.snapshot`."""
        return _InTransaction(self, one_moment=True)

    def connection(self) -> _Connected:
        """As `Database.connection`."""
        return _Connected(self)

    async def acquire(self) -> None:
        """Take a connection of the pool.

        Raises:
            asyncpg.CannotConnectNowError: the server starts up.
            DatabaseUnreachable: it is away, or no connection became free in time.
        """
        if self._trouble.down:
            seconds = self._chance.random()
            await asyncio.sleep(seconds)
            if seconds < 0.5:
                raise DatabaseUnreachable("ConnectionRefusedError: nobody listens")
            raise asyncpg.CannotConnectNowError("the database system is starting up")
        if self._used < POOL_SIZE_MAX:
            self._used += 1
            return
        freed: asyncio.Future[None] = self.server.loop.create_future()
        self._waiting.append(freed)
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS_MAX):
                await freed
        except TimeoutError as error:
            raise DatabaseUnreachable("TimeoutError") from error

    def release(self) -> None:
        """Give it to who waits, or back."""
        while self._waiting:
            freed = self._waiting.popleft()
            if not freed.done():
                freed.set_result(None)
                return
        self._used -= 1

    async def commit(self, tx: Transaction) -> None:
        """Commit, as far as the way there and back allows.

        Raises:
            asyncpg.PostgresConnectionError: nobody knows whether it took effect.
        """
        if self._chance.random() < self._trouble.slow:
            await asyncio.sleep(self._chance.random() * self._trouble.slow_seconds_max)
        if tx.lost:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        if tx.failed:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        lost = self._chance.random() < self._trouble.lost_at_commit
        if lost and self._chance.random() < 0.5:
            self.server.lose([tx])
        else:
            self.server.commit(tx)
        if lost:
            self._trouble.lost_count += 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    async def now(self) -> datetime:
        """As `Database.now`."""
        return self.server.now()

    def listen(self, channel: str, wake: asyncio.Event, heeds: Callable[[str], bool] = lambda _: True) -> None:
        """As `Database.listen`; a notification takes a moment, and its text is lost."""
        context = self._process.context()

        def tell() -> None:
            if heeds(""):
                self.server.loop.call_later(self._chance.random() * 0.01, wake.set, context=context)

        listeners = self.server.listeners.setdefault(channel, [])
        listeners.append(tell)
        self._process.on_kill.append(lambda: listeners.remove(tell))

    async def close(self) -> None:
        """As `Database.close`."""

    def _gone(self) -> None:
        self.server.lose(list(self.transactions))
