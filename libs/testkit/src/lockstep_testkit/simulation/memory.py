"""A twin of Postgres, as far as the services' statements go: committed rows, transactions with row locks, unique constraints, triggers, notifications.

Every statement is a named constant of a store, so that a Python function stands in for each text, and the store's own code runs as it is. A statement
sees what was committed before it and what its own transaction wrote (READ COMMITTED); rows are values that are replaced, never changed. A lock is held
to the end of its transaction; who waits for one and gets it looks at the row again. A transaction is all or nothing: it becomes visible when it
commits and leaves no trace when it rolls back, its connection is lost, or its process is killed. What is lost at the twin's edge: locks of foreign
keys, predicate locks, plans of execution, and everything that no statement of a twinned store uses.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import asyncpg

from lockstep_testkit.simulation.loop import VirtualLoop

Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = "list[Row]"
Handler: TypeAlias = "Callable[..., Rows | Awaitable[Rows]]"
LockName: TypeAlias = tuple[str, Key]

#: What asyncpg gives for 'infinity' and '-infinity'.
INFINITY: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
#: Longest wait for a row, as `DatabaseSettings` has it.
LOCK_SECONDS_MAX: Final = 10.0
_LOST: Final = "connection was closed in the middle of operation"
#: Where every database's clock stands at virtual second zero, before skew.
EPOCH: Final = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)


def passed(moment: datetime, now: datetime, put_off_max: timedelta = timedelta(minutes=5)) -> bool:
    """`lockstep_kit.moments.passed`."""
    return moment <= now or now + put_off_max < moment < INFINITY


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique constraint beside the primary key."""

    #: Its name, as an error tells it.
    name: str
    #: Its columns.
    columns: tuple[str, ...]
    #: Rows that it is about; None: all.
    where: Callable[[Row], bool] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """What of a table matters to its twin."""

    #: Its name.
    name: str
    #: Columns of the primary key.
    key: tuple[str, ...]
    #: Values of columns that a statement leaves out; a function is given the statement.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    #: Name of the primary key's constraint, where it is not the table's with `_pkey`.
    primary: str = ""
    #: Column that an identity numbers.
    serial: str = ""
    #: Further constraints.
    unique: tuple[Unique, ...] = ()
    #: Called before each row is written, with the row before (None: there was none) and after; raises what the database's triggers raise.
    trigger: Callable[[Statement, Row | None, Row], None] | None = None
    #: Called when the transaction commits, for each row that was written, with the same.
    deferred: Callable[[Statement, Row | None, Row], None] | None = None

    def key_of(self, row: Row) -> Key:
        """The primary key of a row."""
        return tuple(row[name] for name in self.key)


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables, and what each statement does."""

    #: By name.
    tables: Mapping[str, Table]
    #: Text of a statement -> its twin.
    statements: Mapping[str, Handler]
    #: Rows that migrations insert: table, and the row.
    seeds: tuple[tuple[str, Row], ...] = ()


def violation(kind: type[asyncpg.IntegrityConstraintViolationError], constraint: str, message: str) -> Exception:
    """The error of a violated constraint, as the driver raises it."""
    error = kind(message)
    error.constraint_name = constraint
    return error


class Transaction:
    """What a transaction wrote and holds."""

    def __init__(self) -> None:
        self.writes: dict[str, dict[Key, Row | None]] = {}
        self.locks: list[LockName] = []
        self.notified: dict[str, None] = {}
        self.deferred: list[tuple[Table, Row | None, Row]] = []
        #: What every read sees, where the transaction asked for one moment.
        self.moment: dict[str, dict[Key, Row]] | None = None
        #: Waits for this lock.
        self.waiting: LockName | None = None
        #: An error ended it; only the rollback is left.
        self.failed = False
        #: The connection is gone, and with it the transaction.
        self.lost = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement that was run, and how it ended."""

    #: Its transaction; None: it was one by itself.
    tx: Transaction | None
    #: Its text.
    text: str
    #: Its arguments.
    args: tuple[Any, ...]
    #: What the database's clock said.
    now: datetime
    #: Its rows, or the error that it ended with.
    answer: Rows | Exception


@dataclass(frozen=True, slots=True)
class Ended:
    """A transaction that ended."""

    #: The transaction.
    tx: Transaction
    #: Whether it is kept.
    committed: bool


#: What a database was asked, in order.
Recorder: TypeAlias = "list[Asked | Ended]"


class Server:
    """One database: what is committed, who holds which lock, who listens, and a clock of its own."""

    def __init__(self, loop: VirtualLoop, name: str, schema: Schema) -> None:
        self.loop: Final = loop
        self.name: Final = name
        self.schema: Final = schema
        self.tables: dict[str, dict[Key, Row]] = {table: {} for table in schema.tables}
        for table, row in schema.seeds:
            self.tables[table][schema.tables[table].key_of(row)] = dict(row)
        self.skew = timedelta(0)
        self.sequences: dict[str, int] = {}
        #: Called with every notification's channel when its transaction has committed.
        self.listeners: dict[str, list[Callable[[], None]]] = {}
        #: Called before a transaction's writes become visible.
        self.observers: list[Callable[[Server, Transaction], None]] = []
        #: Transactions that are open, in the order of their beginning: a set would have one that the seed does not decide.
        self.open: dict[Transaction, None] = {}
        self.commits = 0
        #: Keeps what is asked and answered, where somebody wants to ask a real database the same.
        self.recorder: Recorder | None = None
        self._holders: dict[LockName, Transaction] = {}
        self._waiters: dict[LockName, deque[tuple[Transaction, asyncio.Future[None]]]] = {}

    def draw(self, purpose: str) -> str:
        """A fresh id, as `gen_random_uuid()` gives one."""
        number = self.sequences[purpose] = self.sequences.get(purpose, 0) + 1
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}/{purpose}/{number}"))

    def now(self) -> datetime:
        """The database's clock."""
        return EPOCH + timedelta(microseconds=round(self.loop.time() * 1e6)) + self.skew

    def snapshot(self) -> dict[str, dict[Key, Row]]:
        """Everything that is committed now."""
        return {name: dict(rows) for name, rows in self.tables.items()}

    def restore(self, snapshot: Mapping[str, Mapping[Key, Row]]) -> None:
        """Go back to what was committed once; every connection is lost."""
        self.lose(list(self.open))
        self.tables = {name: dict(rows) for name, rows in snapshot.items()}

    # -- transactions ------------------------------------------------------------------------------------------------

    def begin(self) -> Transaction:
        """A transaction that has done nothing yet."""
        tx = Transaction()
        self.open[tx] = None
        return tx

    def commit(self, tx: Transaction) -> None:
        """Make what was written visible, and tell who listens."""
        if tx.deferred:
            statement = Statement(self, tx)
            for table, before, after in tx.deferred:
                if table.deferred is not None:
                    table.deferred(statement, before, after)
        if tx.writes:
            for observe in self.observers:
                observe(self, tx)
        for name, writes in tx.writes.items():
            rows = self.tables[name]
            for key, row in writes.items():
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
        if tx.writes:
            self.commits += 1
        self._end(tx, committed=True)
        for channel in tx.notified:
            for tell in self.listeners.get(channel, ()):
                tell()

    def rollback(self, tx: Transaction) -> None:
        """Forget what was written; nothing of one that has ended."""
        if tx in self.open:
            self._end(tx)

    def lose(self, transactions: Iterable[Transaction]) -> None:
        """The connections of these are gone: they are rolled back, and whoever goes on with one learns it."""
        for tx in transactions:
            tx.lost = True
            waiting = tx.waiting
            self._end(tx)
            if waiting is not None:
                for other, future in list(self._waiters.get(waiting, ())):
                    if other is tx and not future.done():
                        future.set_exception(asyncpg.ConnectionDoesNotExistError(_LOST))
                        # Who waits looks at it, but not the process that was killed meanwhile: that is nobody's mistake.
                        future.exception()

    def _end(self, tx: Transaction, *, committed: bool = False) -> None:
        if self.recorder is not None and tx in self.open:
            self.recorder.append(Ended(tx, committed))
        self.open.pop(tx, None)
        for name in tx.locks:
            self._hand_on(name)
        tx.locks.clear()

    def _hand_on(self, name: LockName) -> None:
        waiters = self._waiters.get(name)
        while waiters:
            following, future = waiters.popleft()
            if not future.done() and not following.lost:
                self._holders[name] = following
                following.locks.append(name)
                following.waiting = None
                future.set_result(None)
                return
        self._waiters.pop(name, None)
        self._holders.pop(name, None)

    async def lock(self, tx: Transaction, name: LockName) -> None:
        """Hold a lock until the transaction ends.

        Raises:
            asyncpg.ConnectionDoesNotExistError: the transaction has ended meanwhile, and would keep the lock for ever.
            asyncpg.DeadlockDetectedError: waiting would never end.
            asyncpg.LockNotAvailableError: the wait took too long.
        """
        if tx.lost:
            raise asyncpg.ConnectionDoesNotExistError(_LOST)
        holder = self._holders.get(name)
        if holder is tx:
            return
        if holder is None:
            self._holders[name] = tx
            tx.locks.append(name)
            return
        following: Transaction | None = holder
        while following is not None and following.waiting is not None:
            following = self._holders.get(following.waiting)
            if following is tx:
                raise asyncpg.DeadlockDetectedError("deadlock detected")
        future: asyncio.Future[None] = self.loop.create_future()
        self._waiters.setdefault(name, deque()).append((tx, future))
        tx.waiting = name
        try:
            async with asyncio.timeout(LOCK_SECONDS_MAX):
                await future
        except TimeoutError:
            raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout") from None
        finally:
            tx.waiting = None
            if not future.done():
                future.cancel()

    def locked(self, tx: Transaction, name: LockName) -> bool:
        """Whether another transaction holds a lock."""
        return self._holders.get(name, tx) is not tx


class Statement:
    """One statement while it runs: what it sees, locks and writes."""

    def __init__(self, server: Server, tx: Transaction) -> None:
        self.server: Final = server
        self.tx: Final = tx

    @property
    def now(self) -> datetime:
        """`clock_timestamp()`."""
        return self.server.now()

    def all(self, table: str) -> Iterable[Row]:
        """Every row of a table that the statement sees; not to be written to while it is gone through."""
        committed = self.server.tables[table] if self.tx.moment is None else self.tx.moment[table]
        written = self.tx.writes.get(table)
        return committed.values() if not written else self._merged(committed, written)

    @staticmethod
    def _merged(committed: Mapping[Key, Row], written: Mapping[Key, Row | None]) -> Iterator[Row]:
        for key, row in committed.items():
            if key not in written:
                yield row
        for mine in written.values():
            if mine is not None:
                yield mine

    def get(self, table: str, *key: Any) -> Row | None:
        """One row by its primary key."""
        written = self.tx.writes.get(table)
        if written and key in written:
            return written[key]
        return (self.server.tables[table] if self.tx.moment is None else self.tx.moment[table]).get(key)

    async def lock(self, table: str, *key: Any) -> Row | None:
        """Lock a row, whether it is there or not, and see it as it is then."""
        await self.server.lock(self.tx, (table, key))
        return self.get(table, *key)

    async def locking(self, table: str, rows: Iterable[Row], where: Callable[[Row], bool] | None = None) -> list[Row]:
        """Lock rows in their order, and keep those that, as they are then, still fit."""
        key_of = self.server.schema.tables[table].key_of
        found: list[Row] = []
        for each in list(rows):
            row = await self.lock(table, *key_of(each))
            if row is not None and (row is each or where is None or where(row)):
                found.append(row)
        return found

    async def insert(self, table: str, row: Row) -> Row:
        """Add a row.

        Raises:
            asyncpg.IntegrityConstraintViolationError: a constraint is violated.
        """
        added = await self.insert_new(table, row)
        if added is None:
            name = self.server.schema.tables[table].primary or f"{table}_pkey"
            raise violation(asyncpg.UniqueViolationError, name, f"duplicate key value violates {name}")
        return added

    async def insert_new(self, table: str, row: Row) -> Row | None:
        """Add a row unless there is one with its primary key; None then."""
        spec = self.server.schema.tables[table]
        if await self.lock(table, *spec.key_of(row)) is not None:
            return None
        row = {
            **{name: value(self) if callable(value) else value for name, value in spec.defaults.items() if name not in row},
            **row,
        }
        if spec.serial and spec.serial not in spec.key:
            row[spec.serial] = self.server.sequences[table] = self.server.sequences.get(table, 0) + 1
        for unique in spec.unique:
            if spec.serial in unique.columns or (unique.where is not None and not unique.where(row)):
                continue
            value = tuple(row[name] for name in unique.columns)
            if None in value:
                # What is not known is like nothing else.
                continue
            await self.server.lock(self.tx, (unique.name, value))
            if any(
                tuple(each[name] for name in unique.columns) == value and (unique.where is None or unique.where(each))
                for each in self.all(table)
            ):
                raise violation(asyncpg.UniqueViolationError, unique.name, f"duplicate key value violates {unique.name}")
        self._write(spec, None, row)
        return row

    def update(self, table: str, row: Row, **changes: Any) -> Row:
        """Replace a row that this transaction has locked."""
        after = {**row, **changes}
        self._write(self.server.schema.tables[table], row, after)
        return after

    def _write(self, spec: Table, before: Row | None, after: Row) -> None:
        if spec.trigger is not None:
            spec.trigger(self, before, after)
        if spec.deferred is not None:
            self.tx.deferred.append((spec, before, after))
        self.tx.writes.setdefault(spec.name, {})[spec.key_of(after)] = after

    def delete(self, table: str, row: Row) -> None:
        """Remove a row that this transaction has locked."""
        self.tx.writes.setdefault(table, {})[self.server.schema.tables[table].key_of(row)] = None

    def notify(self, channel: str) -> None:
        """Tell who listens, once the transaction has committed."""
        self.tx.notified[channel] = None


class Registry:
    """The twins of some statements, by the statements' texts."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def on(self, text: str) -> Callable[[Handler], Handler]:
        """Register a function as the twin of a statement."""

        def register(handler: Handler) -> Handler:
            if text in self.handlers:
                raise ValueError(f"a second twin of {text}")
            self.handlers[text] = handler
            return handler

        return register
