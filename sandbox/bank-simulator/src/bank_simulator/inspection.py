"""What the bank shows to those who may look into it: accounts, payments, entries, messages, quarantine. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from bank_simulator.amounts import decimal_text
from bank_simulator.database import Connection

_ACCOUNTS = """
-- Accounts with what is held on them.
select account_id, kind, owner_name, owner_bic, currency, scale, status, balance, overdraft_limit, coalesce((
    select sum(amount) from payments where state = 'HELD' and debtor_account = accounts.account_id
), 0)::bigint + coalesce((
    select sum(amount) from reservations where state = 'RESERVED' and reservations.account_id = accounts.account_id
), 0)::bigint as held, coalesce((
    select -line.balance from accounts as line where line.kind = 'CREDIT' and line.account_id = '~credit:' || accounts.account_id
), 0)::bigint as drawn
from accounts where $1::text is null or account_id = $1 order by account_id
"""

_PAYMENTS = """
-- Payments, newest first.
select uetr, counterparty, state, reason, message_kind, message_id, instruction_id, end_to_end_id, transaction_id, amount, currency, scale,
    debtor_account, returned, drawn, credited_account, expires_at, hold_until, status_code, status_message, booking_message, created_at, changed_at
from payments where ($1::uuid is null or uetr = $1) and ($2::text is null or state = $2) order by created_at desc, uetr limit $3
"""

_ENTRIES = """
-- Entries of payments, of the credit that goes with one, or of an account, in order.
select entry_id, posting_id, reference, kind, uetr, credit_for, account_id, currency, amount, balance_after, booked_at
from entries join postings using (posting_id)
where ($1::uuid[] = '{}' or uetr = any($1)) and ($2::text is null or account_id = $2) and ($3::uuid is null or credit_for = $3)
order by entry_id limit $4
"""

_UNDERTAKINGS = """
-- Undertakings, newest first.
select undertakings.uetr, counterparty, state, reason, undertakings.number, account_id, amount, currency, scale, applicant_name, beneficiary_name,
    advising_bic, expires_on::text, encode(issuance_sha256, 'hex') as issuance_sha256, issued_on::text, advised_to, created_at, changed_at
from undertakings left join undertaking_issues as issued using (uetr)
where ($1::uuid is null or undertakings.uetr = $1) and ($2::text is null or state = $2) order by created_at desc, undertakings.uetr limit $3
"""

_MESSAGES_IN = """
-- What was received, newest first.
select message_id, counterparty, idempotency_key, kind, repeat_of, encode(sha256, 'hex') as sha256, convert_from(body, 'UTF8') as body,
    received_at from messages_in where $1::uuid is null or position($1::text::bytea in body) > 0 order by message_id desc limit $2
"""

_MESSAGES_OUT = """
-- What was made, newest first, and how often it went into a mailbox.
select message_id, counterparty, kind, business_message_id, in_reply_to, uetrs, encode(sha256, 'hex') as sha256,
    convert_from(body, 'UTF8') as body, created_at,
    array(select cursor from mailbox_items where mailbox_items.message_id = messages_out.message_id order by cursor) as cursors
from messages_out where $1::uuid is null or $1 = any (uetrs) order by message_id desc limit $2
"""

_QUARANTINE = """
-- What was not valid, newest first.
select quarantine_id, counterparty, idempotency_key, field, rule, error, encode(sha256, 'hex') as sha256, encode(body, 'base64') as body_base64,
    received_at from quarantine order by quarantine_id desc limit $1
"""

_MISBEHAVIOURS = """
-- What the bank was told to do wrong.
select misbehaviour_id, script, remaining, created_at from misbehaviours order by misbehaviour_id
"""


async def accounts(tx: Connection, account_id: str | None) -> list[dict[str, Any]]:
    """Accounts: what is booked, of that held, what is left of it, and what is drawn from the credit line. Minor units, and decimal text."""
    return [_account(row) for row in await tx.fetch(_ACCOUNTS, account_id)]


def _account(row: asyncpg.Record) -> dict[str, Any]:
    sums = {
        "booked": row["balance"] + row["held"],
        "held": row["held"],
        "available": row["balance"] + (row["overdraft_limit"] or 0),
        "drawn": row["drawn"],
    }
    shown = {
        name: row[name]
        for name in ("account_id", "kind", "owner_name", "owner_bic", "currency", "scale", "status", "overdraft_limit")
    }
    texts = {name: decimal_text(minor, row["scale"]) for name, minor in sums.items()}
    return shown | texts | {f"{name}_minor": minor for name, minor in sums.items()}


async def payments(tx: Connection, uetr: UUID | None, state: str | None, limit: int) -> list[dict[str, Any]]:
    """Payments and tombstones."""
    return [dict(row) for row in await tx.fetch(_PAYMENTS, uetr, state, limit)]


async def undertakings(tx: Connection, uetr: UUID | None, state: str | None, limit: int) -> list[dict[str, Any]]:
    """Undertakings, drafts and tombstones."""
    return [dict(row) for row in await tx.fetch(_UNDERTAKINGS, uetr, state, limit)]


async def entries(
    tx: Connection, uetrs: Sequence[UUID], account_id: str | None, credit_for: UUID | None, limit: int
) -> list[dict[str, Any]]:  # fmt: skip
    """Entries, in minor units: positive credits the account's holder."""
    return [dict(row) for row in await tx.fetch(_ENTRIES, uetrs, account_id, credit_for, limit)]


async def messages(tx: Connection, uetr: UUID | None, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Messages, byte for byte, in both directions."""
    received = [dict(row) for row in await tx.fetch(_MESSAGES_IN, uetr, limit)]
    return {"received": received, "sent": [dict(row) for row in await tx.fetch(_MESSAGES_OUT, uetr, limit)]}


async def quarantine(tx: Connection, limit: int) -> list[dict[str, Any]]:
    """What was not valid."""
    return [dict(row) for row in await tx.fetch(_QUARANTINE, limit)]


async def misbehaviours(tx: Connection) -> list[dict[str, Any]]:
    """Scripts, used up or not."""
    return [dict(row) for row in await tx.fetch(_MISBEHAVIOURS)]
