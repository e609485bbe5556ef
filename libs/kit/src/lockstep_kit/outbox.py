"""A transactional outbox: messages that are sent if, and only if, the transaction that caused them commits.

A message is a row, written in the transaction of its cause. A relay claims rows for a while, sends them, and marks them done; if it dies between, the
claim lapses and they are claimed again, so that every message is sent at least once. Messages of one destination and ordering key are claimed in the
order of their ids, and none while an earlier one is claimed or waits for another try. Ids are in the order of commits only where the writers of a key
exclude one another, as the holders of a plan's row lock do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from lockstep_kit.db import Connection
from lockstep_kit.moments import passed
from lockstep_kit.values import dataclass

_PLAIN_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,48}")

#: Messages of one ordering key that are claimed together, at the most.
RUN_MAX: Final = 64

#: Longest that a message is put off, unless told otherwise.
PUT_OFF_MAX: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What is to be sent."""

    #: To whom, or about what.
    destination: str
    #: Messages of one destination and key stay in order; the plan's id, where the order matters within a plan.
    ordering_key: str
    #: The message, in the form that the receiver gets.
    payload: bytes = field(repr=False)
    #: W3C trace context of the cause.
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A claimed message."""

    #: Its number in the outbox; ascending within a key.
    id: int
    #: To whom, or about what.
    destination: str
    #: Key that its order is kept in.
    ordering_key: str
    #: The message.
    payload: bytes = field(repr=False)
    #: W3C trace context of the cause.
    traceparent: str | None
    #: Claims so far, this one included.
    attempts: int
    #: When it was enqueued, by the database's clock.
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits."""

    #: Messages not done.
    waiting_count: int
    #: Age of the oldest of them.
    oldest_age: timedelta


class Outbox:
    """The outbox in one table of a service's database; all statements are set-based."""

    def __init__(self, table: str, *, channel: str | None = None, put_off_max: timedelta = PUT_OFF_MAX) -> None:
        """Name the table, and the channel that is notified of new messages, which has the table's name unless told otherwise.

        No message is claimed for longer than `put_off_max`, nor put off for longer: one that is due later was written before the clock was set back.

        Raises:
            ValueError: the name needs quotes.
        """
        if not _PLAIN_NAME.fullmatch(table):
            raise ValueError(f"{table} is no plain name of a table")
        self.table = table
        self.channel = channel or table
        self._enqueue = _ENQUEUE.format(t=table)
        self._claim = _CLAIM.format(t=table)
        self._put_off_max = put_off_max
        self._done = _DONE.format(t=table)
        self._reschedule = _RESCHEDULE.format(t=table)
        self._purge = _PURGE.format(t=table)
        self._backlog = _BACKLOG.format(t=table)

    def upgrade(self) -> tuple[str, ...]:
        """Statements that make the table, for a migration."""
        return tuple(statement.format(t=self.table) for statement in _V1_UPGRADE)

    def grants(self, role: str) -> tuple[str, ...]:
        """Statements that let the service's role use the table, for a migration."""
        return (f"grant select, insert, update, delete on {self.table} to {role}",)

    def declare(self, metadata: sa.MetaData) -> sa.Table:
        """The table as the code sees it."""
        table = sa.Table(
            self.table,
            metadata,
            sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
            sa.Column("destination", sa.Text, nullable=False),
            sa.Column("ordering_key", sa.Text, nullable=False),
            sa.Column("payload", sa.LargeBinary, nullable=False),
            sa.Column("traceparent", sa.Text),
            sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
            sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
            sa.Column("done_at", sa.DateTime(timezone=True)),
            sa.PrimaryKeyConstraint("id", name=f"{self.table}_pkey"),
        )
        waiting = table.c.done_at.is_(None)
        sa.Index(f"{self.table}_due", table.c.due_at, table.c.id, postgresql_where=waiting)
        sa.Index(f"{self.table}_order", table.c.destination, table.c.ordering_key, table.c.id, postgresql_where=waiting)
        sa.Index(f"{self.table}_done", table.c.done_at, postgresql_where=table.c.done_at.isnot(None))
        return table

    async def enqueue(self, tx: Connection, messages: Sequence[NewMessage]) -> list[int]:
        """Add messages in the caller's transaction, in their order, and notify whoever listens when it commits; their ids."""
        if not messages:
            return []
        rows = await tx.fetch(
            self._enqueue,
            [each.destination for each in messages],
            [each.ordering_key for each in messages],
            [each.payload for each in messages],
            [each.traceparent for each in messages],
            self.channel,
        )
        return [row["id"] for row in rows]

    async def claim(
        self,
        connection: Connection,
        lease: timedelta,
        *,
        limit: int = 64,
        destinations: Sequence[str] | None = None,
        run_max: int = RUN_MAX,
    ) -> list[Message]:
        """Messages that this relay is to send within `lease`, ordered by id: of at most `limit` keys, each with the run from its first undone one.

        A single statement; outside a transaction the claim holds at once.
        """
        wanted = None if destinations is None else list(destinations)
        rows = await connection.fetch(self._claim, limit, run_max, min(lease, self._put_off_max), wanted, self._put_off_max)
        return [
            Message(
                row["id"],
                row["destination"],
                row["ordering_key"],
                row["payload"],
                row["traceparent"],
                row["attempts"],
                row["created_at"],
            )
            for row in rows
        ]

    async def done(self, connection: Connection, messages: Sequence[Message]) -> None:
        """The messages were taken by their receivers; they are never claimed again, also when the claim had lapsed."""
        if messages:
            await connection.execute(self._done, [each.id for each in messages])

    async def reschedule(self, connection: Connection, delays: Mapping[Message, timedelta]) -> None:
        """The messages were not taken: try again after a delay. A relay whose claim has lapsed changes nothing."""
        if delays:
            ids, attempts = [each.id for each in delays], [each.attempts for each in delays]
            waits = [min(each, self._put_off_max) for each in delays.values()]
            await connection.execute(self._reschedule, ids, attempts, waits)

    async def purge(self, connection: Connection, age: timedelta, *, limit: int = 1_000) -> int:
        """Delete messages that were done longer ago than `age`; how many."""
        return len(await connection.fetch(self._purge, age, limit))

    async def backlog(self, connection: Connection) -> Backlog:
        """How much waits, and for how long."""
        row = await connection.fetchrow(self._backlog)
        if row is None:
            raise AssertionError("an aggregate has one row")
        return Backlog(row["waiting_count"], row["oldest_age"])


_V1_UPGRADE: Final = (
    """
    create table {t} (
        id bigint generated always as identity,
        destination text not null,
        ordering_key text not null,
        payload bytea not null,
        traceparent text,
        attempts integer not null default 0,
        due_at timestamptz not null default clock_timestamp(),
        created_at timestamptz not null default clock_timestamp(),
        done_at timestamptz,
        constraint {t}_pkey primary key (id)
    )
    """,
    "create index {t}_due on {t} (due_at, id) where done_at is null",
    "create index {t}_order on {t} (destination, ordering_key, id) where done_at is null",
    "create index {t}_done on {t} (done_at) where done_at is not null",
)

#: Adds messages in the order of the lists; the notification is sent with the commit.
_ENQUEUE: Final = """
with added as (
    insert into {t} (destination, ordering_key, payload, traceparent)
    select destination, ordering_key, payload, traceparent
    from unnest($1::text[], $2::text[], $3::bytea[], $4::text[])
        with ordinality as new (destination, ordering_key, payload, traceparent, place)
    order by place
    returning id
), told as materialized (select pg_notify($5, ''))
select added.id from added cross join told order by added.id
"""

#: Claims keys whose first undone message is due, skipping those that another relay is claiming, and takes the run of messages behind it.
_CLAIM: Final = f"""
with head as materialized (
    select first.id, first.destination, first.ordering_key
    from {{t}} as first
    where first.done_at is null and {passed("first.due_at", put_off_max="$5")} and ($4::text[] is null or first.destination = any($4))
      and not exists (
        select from {{t}} as earlier
        where earlier.destination = first.destination and earlier.ordering_key = first.ordering_key
          and earlier.id < first.id and earlier.done_at is null)
    order by first.due_at, first.id
    limit $1
    for update skip locked
), run as materialized (
    select each.id
    from head cross join lateral (
        select next.id
        from {{t}} as next
        where next.destination = head.destination and next.ordering_key = head.ordering_key
          and next.id >= head.id and next.done_at is null
        order by next.id
        limit $2
    ) as each
), claimed as (
    update {{t}} as message
    set attempts = message.attempts + 1, due_at = clock_timestamp() + $3
    from run
    where message.id = run.id and message.done_at is null
    returning message.id, message.destination, message.ordering_key, message.payload, message.traceparent,
              message.attempts, message.created_at
)
select id, destination, ordering_key, payload, traceparent, attempts, created_at from claimed order by id
"""

#: Marks messages as taken by their receivers.
_DONE: Final = "update {t} set done_at = clock_timestamp() where id = any($1::bigint[]) and done_at is null"

#: Lets messages be claimed again after a delay, unless somebody has claimed them since.
_RESCHEDULE: Final = """
update {t} as message
set due_at = clock_timestamp() + again.delay
from unnest($1::bigint[], $2::integer[], $3::interval[]) as again (id, attempts, delay)
where message.id = again.id and message.attempts = again.attempts and message.done_at is null
"""

#: Deletes messages that were done long ago, some at a time.
_PURGE: Final = """
delete from {t}
where id in (
    select id from {t} where done_at < clock_timestamp() - $1::interval order by done_at limit $2 for update skip locked)
returning id
"""

#: Counts what waits.
_BACKLOG: Final = """
select count(*) as waiting_count, coalesce(max(clock_timestamp() - created_at), '0'::interval) as oldest_age
from {t} where done_at is null
"""
