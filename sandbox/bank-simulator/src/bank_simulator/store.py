"""Every SQL statement of the payments desk. Each takes the transaction it is part of; order of locks: names, scripts, accounts, mailbox."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import asyncpg

from bank_simulator.database import Connection
from bank_simulator.domain import Account, Original, Payment, PaymentOrder, PaymentState
from bank_simulator.misbehaviour import ActiveScript, Mischief, Script

_LOCK_NAMES = """
-- Waits for everybody else who works on the same messages and payments; always in the same order.
select pg_advisory_xact_lock(hashtextextended(name, 0)) from (select distinct unnest($1::text[]) as name order by 1) as wanted
"""

_NOW = """
-- The only clock of the bank.
select clock_timestamp()
"""

_FIND_RECEIVED = """
-- The first message that came with an idempotency key.
select message_id, kind, content_sha256 from messages_in where counterparty = $1 and idempotency_key = $2 and repeat_of is null
"""

_ADD_RECEIVED = """
-- Keeps a message, or its repeat, byte for byte.
insert into messages_in (counterparty, idempotency_key, kind, repeat_of, body, content_sha256) values ($1, $2, $3, $4, $5, $6)
returning message_id
"""

_ADD_QUARANTINED = """
-- Keeps what is not valid, with the rule that it breaks.
insert into quarantine (counterparty, idempotency_key, body, field, rule, error) values ($1, $2, $3, $4, $5, $6) returning quarantine_id
"""

_FIND_PAYMENTS = """
-- What is known about payments.
select * from payments where uetr = any ($1::uuid[]) order by uetr
"""

_FIND_PAYMENTS_OF_MESSAGES = """
-- The payments that came with a counterparty's messages.
select * from payments where counterparty = $1 and message_id = any ($2::text[]) order by uetr
"""

_FIND_USED_INSTRUCTIONS = """
-- Instruction ids that a counterparty used before.
select instruction_id from payments where counterparty = $1 and instruction_id = any ($2::text[])
"""

_LOCK_ACCOUNTS = """
-- Accounts as they are, held until the end of the transaction, always locked in the same order.
select account_id, kind, owner_name, currency, status, balance + coalesce(overdraft_limit, 0) as available, owner_bic
from accounts where account_id = any ($1::text[]) order by account_id for update
"""

_READ_ACCOUNTS = """
-- Accounts as they are.
select account_id, kind, owner_name, currency, status, balance + coalesce(overdraft_limit, 0) as available, owner_bic
from accounts where account_id = any ($1::text[])
"""

_VOSTRO_ACCOUNTS = """
-- The accounts of correspondents at this bank, by the first eight characters of their BIC.
select account_id, owner_bic, currency from accounts where kind = 'VOSTRO' and left(owner_bic, 8) = any ($1::text[])
"""

_DUE = """
-- What is due on an account that has a credit line, which is what was drawn for no hold that still stands; and what is free on the account.
select coalesce(-line.balance - (
        select coalesce(sum(drawn), 0) from payments where state = 'HELD' and debtor_account = account.account_id
    ), 0)::bigint as due, account.balance as free
from accounts as account, accounts as line where account.account_id = $1 and line.account_id = $2
"""

_SET_LINE = """
-- What the provider says of a credit line.
update accounts set status = $2 where account_id = $1 and kind = 'CREDIT'
"""

_LENT_HOLDS = """
-- Holds that credit was drawn for.
select uetr from payments where state = 'HELD' and drawn > 0 and debtor_account = $1 order by uetr
"""

_POST = """
-- Posts a batch: see the function.
select reference, posting_id, booked_at from post($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[])
"""

_BOOKING_DATES = """
-- The booking days that postings bear.
select posting_id, booking_date from postings where posting_id = any ($1::bigint[])
"""

_ADD_PAYMENT = """
-- A payment that was judged.
insert into payments (uetr, counterparty, state, reason, content_sha256, message_id, instruction_id, end_to_end_id, transaction_id, amount,
    currency, scale, debtor_account, creditor_account, credited_account, hold_lock, expires_at, hold_until, status_message, status_code,
    booking_message, drawn, message_kind)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
"""

_ADD_TOMBSTONE = """
-- A payment that will never be.
insert into payments (uetr, counterparty, state) values ($1, $2, 'TOMBSTONED')
"""

_CLOSE_HOLD = """
-- A hold ends.
update payments set state = $2, reason = $3, hold_key = $4 where uetr = $1 and state = 'HELD'
"""

_SET_MESSAGES = """
-- What was last said about a payment; null leaves it.
update payments set status_message = coalesce($2, status_message), status_code = coalesce($3, status_code),
    booking_message = coalesce($4, booking_message) where uetr = $1
"""

_ADD_MESSAGE = """
-- Keeps a message that was made, byte for byte.
insert into messages_out (counterparty, kind, business_message_id, in_reply_to, uetrs, body) values ($1, $2, $3, $4, $5::uuid[], $6)
returning message_id
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

_DUE_HOLDS = """
-- Holds whose time is over.
select uetr from payments where state = 'HELD' and hold_until <= clock_timestamp() order by hold_until limit $1
"""

_SECONDS_TO_NEXT = """
-- Seconds until the next hold ends or late message is due; null if there is none.
select extract(epoch from least(
    (select min(hold_until) from payments where state = 'HELD'), (select min(due_at) from deferred_messages)
) - clock_timestamp())::float8
"""

_ACTIVE_SCRIPTS = """
-- What the bank was told to do wrong; held, so that an occasion is used once.
select misbehaviour_id, script, remaining from misbehaviours where remaining > 0 order by misbehaviour_id for update
"""

_USE_SCRIPT = """
-- Some of a script's occasions are gone.
update misbehaviours set remaining = remaining - $2 where misbehaviour_id = $1
"""


@dataclass(frozen=True, slots=True)
class Received:
    """The first message of an idempotency key."""

    message_id: int
    kind: str
    content_sha256: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a batch of postings."""

    reference: str
    kind: str
    uetr: UUID | None
    debited: str
    credited: str
    amount: int


@dataclass(frozen=True, slots=True)
class Posted:
    """A posting in the books."""

    posting_id: int
    booked_at: datetime
    booking_date: date


@dataclass(frozen=True, slots=True)
class MadeMessage:
    """A message that may be put into a mailbox."""

    message_id: int
    kind: str
    uetrs: frozenset[UUID]
    debtor_accounts: frozenset[str]
    #: Whether it waits to be late already.
    late: bool = False


async def lock_names(tx: Connection, names: Collection[str]) -> None:
    """Waits until nobody else works on the same messages and payments."""
    await tx.execute(_LOCK_NAMES, list(names))


async def now(tx: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await tx.fetchval(_NOW)
    return instant


async def find_received(tx: Connection, counterparty: str, key: str) -> Received | None:
    """The first message that came with a key."""
    row = await tx.fetchrow(_FIND_RECEIVED, counterparty, key)
    return Received(row["message_id"], row["kind"], row["content_sha256"]) if row else None


async def add_received(
    tx: Connection, counterparty: str, key: str, kind: str, body: bytes, content_sha256: bytes, *, repeat_of: int | None = None
) -> int:
    """Keeps what was received; returns its number."""
    number: int = await tx.fetchval(_ADD_RECEIVED, counterparty, key, kind, repeat_of, body, content_sha256)
    return number


async def add_quarantined(tx: Connection, counterparty: str, key: str, body: bytes, field: str, rule: str, error: str) -> int:
    """Keeps what is not valid; returns its number."""
    number: int = await tx.fetchval(_ADD_QUARANTINED, counterparty, key, body, field, rule, error)
    return number


async def find_payments(tx: Connection, uetrs: Collection[UUID]) -> dict[UUID, Payment]:
    """What is known about payments, by UETR."""
    return {row["uetr"]: _payment(row) for row in await tx.fetch(_FIND_PAYMENTS, list(uetrs))}


async def find_payments_of_messages(tx: Connection, counterparty: str, message_ids: Sequence[str]) -> list[Payment]:
    """The payments that came with messages of a counterparty."""
    return [_payment(row) for row in await tx.fetch(_FIND_PAYMENTS_OF_MESSAGES, counterparty, list(message_ids))]


async def find_used_instructions(tx: Connection, counterparty: str, instruction_ids: Collection[str]) -> set[str]:
    """Which of these instruction ids were used before."""
    return {row["instruction_id"] for row in await tx.fetch(_FIND_USED_INSTRUCTIONS, counterparty, list(instruction_ids))}


async def accounts(tx: Connection, account_ids: Collection[str], *, lock: bool) -> dict[str, Account]:
    """Accounts by their identification; what is not there is left out."""
    rows = await tx.fetch(_LOCK_ACCOUNTS if lock else _READ_ACCOUNTS, sorted(set(account_ids)))
    return {row["account_id"]: Account(**dict(row)) for row in rows}


async def vostro_accounts(tx: Connection, banks: Collection[str]) -> dict[tuple[str, str], str]:
    """(First eight characters of a correspondent's BIC, currency) -> its account at this bank."""
    rows = await tx.fetch(_VOSTRO_ACCOUNTS, list(banks))
    return {(row["owner_bic"][:8], row["currency"]): row["account_id"] for row in rows}


async def post(tx: Connection, items: Sequence[Item]) -> dict[str, Posted]:
    """Posts a batch, whole or not at all; returns the postings by reference.

    Raises:
        asyncpg.CheckViolationError: constraint account_not_overdrawn.
        asyncpg.UniqueViolationError: A reference with other content, or a second booking, hold or end of a payment.
    """
    if not items:
        return {}
    listed = [(item.reference, item.kind, item.uetr, item.debited, item.credited, item.amount) for item in items]
    rows = await tx.fetch(_POST, *(list(column) for column in zip(*listed, strict=True)))
    dated = await tx.fetch(_BOOKING_DATES, [row["posting_id"] for row in rows])
    days = {row["posting_id"]: row["booking_date"] for row in dated}
    return {row["reference"]: Posted(row["posting_id"], row["booked_at"], days[row["posting_id"]]) for row in rows}


async def due(tx: Connection, account_id: str, line: str) -> tuple[int, int]:
    """What is due on an account, and what is free on it."""
    row = await tx.fetchrow(_DUE, account_id, line)
    if row is None:
        raise AssertionError("an account with a credit line has both accounts")
    return row["due"], row["free"]


async def set_line(tx: Connection, line: str, status: str) -> bool:
    """Opens, blocks or closes a credit line; False where there is none."""
    return await tx.execute(_SET_LINE, line, status) == "UPDATE 1"


async def lent_holds(tx: Connection, account_id: str) -> list[UUID]:
    """Holds of an account that credit was drawn for."""
    return [row["uetr"] for row in await tx.fetch(_LENT_HOLDS, account_id)]


async def add_payment(
    tx: Connection, counterparty: str, message_id: str, order: PaymentOrder, state: PaymentState, *, reason: str | None,
    credited_account: str | None, hold_until: datetime | None, status_message: int, status_code: str, booking_message: int | None,
    drawn: int,
) -> None:  # fmt: skip
    """Keeps a payment that was judged."""
    # A second use of an instruction id is what such a payment was refused for: it stays with the first.
    instruction_id = None if reason == "DU05" else order.instruction_id
    await tx.execute(
        _ADD_PAYMENT, order.uetr, counterparty, state, reason, order.content_sha256, message_id, instruction_id, order.end_to_end_id,
        order.transaction_id, order.amount, order.currency, order.scale, order.debtor_account, order.creditor_account, credited_account,
        order.lock, order.expires_at, hold_until, status_message, status_code, booking_message, drawn, order.message_kind,
    )  # fmt: skip


async def add_tombstone(tx: Connection, counterparty: str, uetr: UUID) -> None:
    """A payment with this UETR will never be taken."""
    await tx.execute(_ADD_TOMBSTONE, uetr, counterparty)


async def close_hold(
    tx: Connection, uetr: UUID, state: PaymentState, *, reason: str | None = None, key: bytes | None = None
) -> None:
    """A hold ends in this state."""
    done = await tx.execute(_CLOSE_HOLD, uetr, state, reason, key)
    if done != "UPDATE 1":
        raise AssertionError("the payment is locked and was held")


async def set_messages(
    tx: Connection, uetr: UUID, *, status: int | None = None, code: str | None = None, booking: int | None = None
) -> None:
    """Remembers what was last said about a payment."""
    await tx.execute(_SET_MESSAGES, uetr, status, code, booking)


async def add_message(
    tx: Connection,
    counterparty: str,
    kind: str,
    business_message_id: str,
    in_reply_to: int | None,
    uetrs: Collection[UUID],
    body: bytes,
) -> int:
    """Keeps a message that was made; returns its number."""
    number: int = await tx.fetchval(_ADD_MESSAGE, counterparty, kind, business_message_id, in_reply_to, list(uetrs), body)
    return number


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


async def due_holds(tx: Connection, limit: int) -> list[UUID]:
    """Holds whose time is over."""
    return [row["uetr"] for row in await tx.fetch(_DUE_HOLDS, limit)]


async def seconds_to_next(tx: Connection) -> float | None:
    """How long nothing becomes due; None if nothing will."""
    seconds: float | None = await tx.fetchval(_SECONDS_TO_NEXT)
    return seconds


async def mischief(tx: Connection) -> Mischief:
    """What the bank was told to do wrong."""
    rows = await tx.fetch(_ACTIVE_SCRIPTS)
    return Mischief(
        [ActiveScript(row["misbehaviour_id"], Script.model_validate_json(row["script"]), row["remaining"]) for row in rows]
    )


async def save_mischief(tx: Connection, used: Mischief) -> None:
    """Counts down what was used."""
    for misbehaviour_id, count in used.used.items():
        await tx.execute(_USE_SCRIPT, misbehaviour_id, count)


def _payment(row: asyncpg.Record) -> Payment:
    names = (row["message_id"], row["instruction_id"], row["end_to_end_id"], row["transaction_id"], row["uetr"])
    original = Original(*names, row["message_kind"])
    return Payment(
        uetr=row["uetr"], counterparty=row["counterparty"], state=PaymentState(row["state"]), reason=row["reason"],
        content_sha256=row["content_sha256"], original=original,
        amount=row["amount"] or 0, currency=row["currency"] or "", scale=row["scale"] or 0,
        debtor_account=row["debtor_account"] or "", creditor_account=row["creditor_account"],
        credited_account=row["credited_account"] or "",
        hold_lock=row["hold_lock"], hold_key=row["hold_key"], hold_until=row["hold_until"],
        status_message=row["status_message"], status_code=row["status_code"], booking_message=row["booking_message"],
        drawn=row["drawn"], returned=row["returned"],
    )  # fmt: skip
