"""Every SQL statement on what was received and made, and on what is put into mailboxes. Each takes the transaction it is part of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from bank_simulator.database import Connection

_FIND_RECEIVED = """
-- The first messages that came with idempotency keys.
select idempotency_key, message_id, content_sha256 from messages_in
where counterparty = $1 and idempotency_key = any ($2::text[]) and repeat_of is null
"""

_ADD_RECEIVED = """
-- Keeps messages, or their repeats, byte for byte.
insert into messages_in (counterparty, idempotency_key, kind, repeat_of, body, content_sha256)
select $1, idempotency_key, kind, repeat_of, body, content_sha256
from unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[])
    with ordinality as new (idempotency_key, kind, repeat_of, body, content_sha256, place)
order by place
returning idempotency_key, message_id
"""

_ADD_QUARANTINED = """
-- Keeps what is not valid, with the rule that it breaks.
insert into quarantine (counterparty, idempotency_key, body, field, rule, error) values ($1, $2, $3, $4, $5, $6) returning quarantine_id
"""

_ADD_MESSAGES = """
-- Keeps messages that were made, byte for byte.
insert into messages_out (counterparty, kind, business_message_id, in_reply_to, uetrs, body)
select $1, kind, business_message_id, in_reply_to, uetrs::uuid[], body
from unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::bytea[])
    with ordinality as new (kind, business_message_id, in_reply_to, uetrs, body, place)
order by place
returning business_message_id, message_id
"""

_READ_MESSAGES = """
-- Messages that were made, and the accounts that the payments in them debit.
select made.message_id, made.kind, made.uetrs, exists (select from deferred_messages as late where late.message_id = made.message_id) as late,
    array(select debtor_account from payments where uetr = any (made.uetrs) and debtor_account is not null) as debtor_accounts
from messages_out as made where made.message_id = any ($1::bigint[])
"""

_FIND_REPLIES = """
-- What was answered to a message, in order.
select message_id from messages_out where in_reply_to = $1 order by message_id
"""

_FIND_SHARED = """
-- Messages that answer several of a counterparty's at once.
select message_id from messages_out where message_id = any ($1::bigint[]) and in_reply_to is null and cardinality(uetrs) > 1
"""

_DEFER = """
-- Puts a message aside until later.
insert into deferred_messages (message_id, due_at) values ($1, clock_timestamp() + $2 * interval '1 millisecond')
"""

_PUT = """
-- Puts messages into a mailbox: see the function.
select put_into_mailbox($1, $2::bigint[])
"""

_TAKE_DEFERRED = """
-- Takes messages whose time has come, earliest first.
with due as (
    select deferred_id from deferred_messages where due_at <= clock_timestamp() order by due_at, deferred_id limit $1
    for update skip locked
), taken as (
    delete from deferred_messages using due where deferred_messages.deferred_id = due.deferred_id
    returning deferred_messages.message_id, deferred_messages.due_at, deferred_messages.deferred_id
)
select taken.message_id, made.counterparty from taken join messages_out as made using (message_id) order by due_at, deferred_id
"""


@dataclass(frozen=True, slots=True)
class Received:
    """The first message of an idempotency key."""

    message_id: int
    content_sha256: bytes


@dataclass(frozen=True, slots=True)
class NewReceived:
    """What was received, to be kept."""

    key: str
    kind: str
    body: bytes
    content_sha256: bytes
    #: The first message with the key, of a repeat.
    repeat_of: int | None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that was made, to be kept."""

    kind: str
    #: Its identification.
    name: str
    in_reply_to: int | None
    uetrs: Sequence[UUID]
    body: bytes


@dataclass(frozen=True, slots=True)
class MadeMessage:
    """A message that may be put into a mailbox."""

    message_id: int
    kind: str
    uetrs: frozenset[UUID]
    debtor_accounts: frozenset[str]
    #: Whether it waits to be late already.
    late: bool = False


async def find_received(tx: Connection, counterparty: str, keys: Collection[str]) -> dict[str, Received]:
    """The first messages that came with keys, by key."""
    rows = await tx.fetch(_FIND_RECEIVED, counterparty, list(keys))
    return {row["idempotency_key"]: Received(row["message_id"], row["content_sha256"]) for row in rows}


async def add_received(tx: Connection, counterparty: str, received: Sequence[NewReceived]) -> dict[str, int]:
    """Keeps what was received, under different keys; returns its numbers by key."""
    if not received:
        return {}
    rows = await tx.fetch(
        _ADD_RECEIVED, counterparty, [each.key for each in received], [each.kind for each in received],
        [each.repeat_of for each in received], [each.body for each in received], [each.content_sha256 for each in received],
    )  # fmt: skip
    return {row["idempotency_key"]: row["message_id"] for row in rows}


async def add_quarantined(tx: Connection, counterparty: str, key: str, body: bytes, field: str, rule: str, error: str) -> int:
    """Keeps what is not valid; returns its number."""
    number: int = await tx.fetchval(_ADD_QUARANTINED, counterparty, key, body, field, rule, error)
    return number


async def add_messages(tx: Connection, counterparty: str, made: Sequence[NewMessage]) -> list[int]:
    """Keeps messages that were made; returns their numbers, in order."""
    if not made:
        return []
    rows = await tx.fetch(
        _ADD_MESSAGES, counterparty, [each.kind for each in made], [each.name for each in made], [each.in_reply_to for each in made],
        ["{" + ",".join(map(str, each.uetrs)) + "}" for each in made], [each.body for each in made],
    )  # fmt: skip
    numbers = {row["business_message_id"]: row["message_id"] for row in rows}
    return [numbers[each.name] for each in made]


async def read_messages(tx: Connection, message_ids: Sequence[int]) -> list[MadeMessage]:
    """Messages in the given order."""
    found = {
        row["message_id"]: MadeMessage(
            row["message_id"], row["kind"], frozenset(row["uetrs"]), frozenset(row["debtor_accounts"]), row["late"]
        )
        for row in await tx.fetch(_READ_MESSAGES, list(message_ids))
    }
    return [found[message_id] for message_id in message_ids]


async def find_replies(tx: Connection, received: int) -> list[int]:
    """What was answered to a message."""
    return [row["message_id"] for row in await tx.fetch(_FIND_REPLIES, received)]


async def find_shared(tx: Connection, message_ids: Sequence[int]) -> set[int]:
    """Which of some messages answer several of a counterparty's at once."""
    return {row["message_id"] for row in await tx.fetch(_FIND_SHARED, list(message_ids))} if message_ids else set()


async def defer(tx: Connection, message_id: int, delay_ms: int) -> None:
    """Puts a message aside for a while."""
    await tx.execute(_DEFER, message_id, delay_ms)


async def put(tx: Connection, counterparty: str, message_ids: Sequence[int]) -> None:
    """Puts messages into a mailbox. The last thing in a transaction."""
    if message_ids:
        await tx.execute(_PUT, counterparty, list(message_ids))


async def take_deferred(tx: Connection, limit: int) -> list[tuple[str, int]]:
    """Takes messages whose time has come: (counterparty, message)."""
    return [(row["counterparty"], row["message_id"]) for row in await tx.fetch(_TAKE_DEFERRED, limit)]
