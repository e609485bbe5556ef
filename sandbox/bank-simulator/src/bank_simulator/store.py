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
select reference, posting_id, booked_at, booking_date from post($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[])
"""

_FIND_BOOKED = """
-- The postings that booked payments.
select uetr, posting_id, booked_at, booking_date from postings where uetr = any ($1::uuid[]) and kind in ('SETTLE', 'PAYMENT')
"""

_ADD_PAYMENTS = """
-- Payments that were judged.
insert into payments (counterparty, uetr, state, reason, content_sha256, message_id, instruction_id, end_to_end_id, transaction_id, amount,
    currency, scale, debtor_account, creditor_account, credited_account, hold_lock, expires_at, hold_until, status_message, status_code,
    booking_message, drawn, message_kind)
select $1, judged.* from unnest($2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[],
    $11::text[], $12::smallint[], $13::text[], $14::text[], $15::text[], $16::bytea[], $17::timestamptz[], $18::timestamptz[], $19::bigint[],
    $20::text[], $21::bigint[], $22::bigint[], $23::text[]) as judged
"""

_ADD_TOMBSTONE = """
-- A payment that will never be.
insert into payments (uetr, counterparty, state) values ($1, $2, 'TOMBSTONED')
"""

_SETTLE = """
-- Holds end by their payments' bookings, with what is said of them.
update payments set state = 'SETTLED', hold_key = settled.key, status_message = settled.status, status_code = 'ACSC',
    booking_message = settled.booking
from unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[]) as settled (uetr, key, status, booking)
where payments.uetr = settled.uetr and payments.state = 'HELD'
"""

_CLOSE_HOLD = """
-- A hold ends without a booking.
update payments set state = $2, reason = $3 where uetr = $1 and state = 'HELD'
"""

_SET_STATUS = """
-- What was last said about a payment.
update payments set status_message = $2, status_code = $3, booking_message = coalesce($4, booking_message) where uetr = $1
"""

_DUE_HOLDS = """
-- Holds whose time is over.
select uetr from payments where state = 'HELD' and hold_until <= clock_timestamp() order by hold_until limit $1
"""

_LOOK = """
-- When the next late message, hold and reservation are due, whether a day is over that is not stated, the day that is open, and the clock.
select (select min(due_at) from deferred_messages) as message_at, (select min(hold_until) from payments where state = 'HELD') as hold_at,
    (select min(hold_until) from reservations where state = 'RESERVED') as reservation_at,
    exists (select from closed_days where stated_at is null) as unstated, (select day from bank_day) as day, clock_timestamp() as now
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
class NewPayment:
    """A payment that was judged, to be kept."""

    order: PaymentOrder
    message_id: str
    state: PaymentState
    reason: str | None
    credited_account: str | None
    hold_until: datetime | None
    status_message: int
    status_code: str
    booking_message: int | None
    drawn: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A payment whose hold ends by its booking."""

    uetr: UUID
    key: bytes
    status_message: int
    booking_message: int | None


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
class Look:
    """What the bank has to do by itself, and when; None where there is nothing of the kind."""

    message_at: datetime | None
    hold_at: datetime | None
    reservation_at: datetime | None
    #: Whether a day is over that is not stated yet.
    unstated: bool
    #: The booking day that is open; None before the bank's first.
    day: date | None
    now: datetime

    def is_due(self, at: datetime | None) -> bool:
        """Whether a time has come."""
        return at is not None and at <= self.now


@dataclass(frozen=True, slots=True)
class Posted:
    """A posting in the books."""

    posting_id: int
    booked_at: datetime
    booking_date: date


async def lock_names(tx: Connection, names: Collection[str]) -> None:
    """Waits until nobody else works on the same messages and payments."""
    await tx.execute(_LOCK_NAMES, list(names))


async def now(tx: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await tx.fetchval(_NOW)
    return instant


async def find_payments(tx: Connection, uetrs: Collection[UUID]) -> dict[UUID, Payment]:
    """What is known about payments, by UETR."""
    rows = await tx.fetch(_FIND_PAYMENTS, list(uetrs)) if uetrs else ()
    return {row["uetr"]: _payment(row) for row in rows}


async def find_payments_of_messages(tx: Connection, counterparty: str, message_ids: Sequence[str]) -> list[Payment]:
    """The payments that came with messages of a counterparty."""
    return [_payment(row) for row in await tx.fetch(_FIND_PAYMENTS_OF_MESSAGES, counterparty, list(message_ids))]


async def find_used_instructions(tx: Connection, counterparty: str, instruction_ids: Collection[str]) -> set[str]:
    """Which of these instruction ids were used before."""
    return {row["instruction_id"] for row in await tx.fetch(_FIND_USED_INSTRUCTIONS, counterparty, list(instruction_ids))}


async def accounts(tx: Connection, account_ids: Collection[str], *, lock: bool) -> dict[str, Account]:
    """Accounts by their identification; what is not there is left out."""
    rows = await tx.fetch(_LOCK_ACCOUNTS if lock else _READ_ACCOUNTS, sorted(set(account_ids))) if account_ids else ()
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
    return {row["reference"]: Posted(row["posting_id"], row["booked_at"], row["booking_date"]) for row in rows}


async def find_booked(tx: Connection, uetrs: Collection[UUID]) -> dict[UUID, Posted]:
    """The postings that booked payments, by their UETRs."""
    rows = await tx.fetch(_FIND_BOOKED, list(uetrs)) if uetrs else ()
    return {row["uetr"]: Posted(row["posting_id"], row["booked_at"], row["booking_date"]) for row in rows}


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


async def add_payments(tx: Connection, counterparty: str, judged: Sequence[NewPayment]) -> None:
    """Keeps payments that were judged."""
    if not judged:
        return
    rows = [
        (
            each.order.uetr, each.state, each.reason, each.order.content_sha256, each.message_id,
            # A second use of an instruction id is what such a payment was refused for: it stays with the first.
            None if each.reason == "DU05" else each.order.instruction_id,
            each.order.end_to_end_id, each.order.transaction_id, each.order.amount, each.order.currency, each.order.scale,
            each.order.debtor_account, each.order.creditor_account, each.credited_account, each.order.lock, each.order.expires_at,
            each.hold_until, each.status_message, each.status_code, each.booking_message, each.drawn, each.order.message_kind,
        )
        for each in judged
    ]  # fmt: skip
    await tx.execute(_ADD_PAYMENTS, counterparty, *(list(column) for column in zip(*rows, strict=True)))


async def add_tombstone(tx: Connection, counterparty: str, uetr: UUID) -> None:
    """A payment with this UETR will never be taken."""
    await tx.execute(_ADD_TOMBSTONE, uetr, counterparty)


async def settle(tx: Connection, settled: Sequence[Settled]) -> None:
    """Holds end by bookings."""
    done = await tx.execute(
        _SETTLE, [each.uetr for each in settled], [each.key for each in settled], [each.status_message for each in settled],
        [each.booking_message for each in settled],
    )  # fmt: skip
    if done != f"UPDATE {len(settled)}":
        raise AssertionError("the payments are locked and were held")


async def close_hold(tx: Connection, uetr: UUID, state: PaymentState, *, reason: str | None) -> None:
    """A hold ends in this state, without a booking."""
    done = await tx.execute(_CLOSE_HOLD, uetr, state, reason)
    if done != "UPDATE 1":
        raise AssertionError("the payment is locked and was held")


async def set_status(tx: Connection, uetr: UUID, status: int, code: str, booking: int | None) -> None:
    """Remembers what was last said about a payment, and of its booking, if that is another message now."""
    await tx.execute(_SET_STATUS, uetr, status, code, booking)


async def due_holds(tx: Connection, limit: int) -> list[UUID]:
    """Holds whose time is over."""
    return [row["uetr"] for row in await tx.fetch(_DUE_HOLDS, limit)]


async def look(tx: Connection) -> Look:
    """When something is due."""
    row = await tx.fetchrow(_LOOK)
    if row is None:
        raise AssertionError("the statement returns one row")
    return Look(**dict(row))


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
