"""Statements beside those that legs post by: limits, repayment, and what an audit reads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from bank_gateway.ledger.chain import Account, Head, PostedEntry
from bank_gateway.ledger.rules import Entry
from bank_gateway.ledger.store import entry_of
from bank_gateway.messages import Footing
from bank_gateway.operations import Known
from bank_gateway.profiles import PROFILES, ProfileName
from lockstep_kit.db import Connection
from lockstep_kit.fence import Phase

#: What the operator allows at a bank, instead of what it allowed before.
LIMITS: Final = "select ledger_limits($1, $2, $3, $4)"

#: Of each limited line of a bank, what was settled before a moment and is not repaid: what is drawn, less what is still asked for or held, less what was
#: settled since. Nothing of a line that was repaid under the day's name.
REPAYABLE: Final = """
with drawn as (
    select line.ledger, split_part(line.account, '/', 1) as holder, -line.balance - coalesce(sum(open.balance), 0) as amount
    from ledger_account as line
    left join ledger_account as open on open.ledger = line.ledger
        and open.account in (split_part(line.account, '/', 1) || '/INSTRUCTED', split_part(line.account, '/', 1) || '/HELD')
    where line.credit_limit is not null and split_part(line.ledger, '/', 1) = $1
    group by line.ledger, line.account, line.balance
), due as (
    select drawn.ledger, drawn.holder, drawn.amount - coalesce((
        select sum(entry.amount) from ledger_entry as entry
        where entry.ledger = drawn.ledger and entry.kind = 'SETTLED' and entry.credit = drawn.holder || '/SETTLED' and entry.recorded_at >= $2
    ), 0) as amount
    from drawn
    where drawn.amount > 0 and not exists (
        select from ledger_entry as entry where entry.ledger = drawn.ledger and entry.reference = drawn.holder || '/REPAID/' || $3)
)
select ledger, holder, amount::bigint as amount from due where amount > 0 order by ledger, holder
"""

#: Ledgers with their heads.
HEADS: Final = "select ledger, sequence, hash from ledger_head order by ledger"

#: Accounts of a ledger.
ACCOUNTS: Final = "select account, balance, credit_limit from ledger_account where ledger = $1 order by account"

#: A page of a ledger's entries, after one of them.
ENTRIES: Final = """
select ledger, sequence, reference, kind, uetr, debit, credit, amount, recorded_at, previous, content, hash
from ledger_entry where ledger = $1 and sequence > $2 order by sequence limit $3
"""

#: A page of the legs whose payments are on the books, after one of them: where they stand, and what the bank has said.
LEGS: Final = """
select payment.plan_id, payment.leg_id, payment.uetr, payment.status, payment.profile, leg.phase
from bank_payment as payment join participant_leg as leg using (plan_id, leg_id)
where leg.phase is not null and payment.on_books and (payment.plan_id, payment.leg_id) > ($1, $2) order by payment.plan_id, payment.leg_id limit $3
"""

#: Postings on a holder's account that a bank's statement shows, after one entry of the ledger and up to another.
RECENT: Final = """
select ledger, reference, kind, uetr, debit, credit, amount, sequence from ledger_entry
where kind = 'SETTLED' and ledger = $1 and credit = $2 and sequence > $3 and sequence <= $4
union all
select ledger, reference, kind, uetr, debit, credit, amount, sequence from ledger_entry
where kind = 'RETURNED' and ledger = $1 and debit = $2 and sequence > $3 and sequence <= $4
order by sequence
"""

#: By what the postings of a day moved a holder's account, out of it; no row where the ledger does not know the account. Of the day is what the bank told
#: for it, and what its statement has.
MOVED: Final = """
with concerned as (
    select uetr, status from bank_payment where uetr = any ($4::text[])
    union
    select uetr, status from bank_payment where status ->> 'booked_on' = $3 and status ->> 'booking_account' = split_part($2, '/', 1)
    union
    select uetr, status from bank_payment where status ? 'returned_on'
), moved as (
    select sum(case entry.kind when 'SETTLED' then entry.amount else -entry.amount end) as amount
    from concerned join ledger_entry as entry using (uetr)
    where entry.ledger = $1 and (
        entry.kind = 'SETTLED' and entry.credit = $2 and (uetr = any ($4) or status ->> 'booked_on' = $3)
        or entry.kind = 'RETURNED' and entry.debit = $2
            and (right(entry.reference, 16) = any ($5::text[]) or status -> 'returned_on' ->> right(entry.reference, 16) = $3))
)
select coalesce(moved.amount, 0)::bigint as moved from ledger_account, moved where ledger = $1 and account = $2
"""

#: What the database's own audit finds.
AUDIT: Final = "select ledger, sequence, account, wrong from ledger_audit order by ledger, sequence, account limit $1"


async def limit(connection: Connection, bank_bic: str, limits: Mapping[tuple[str, str], int]) -> None:
    """Set the limits of a bank's lines, by ledger and account; lines that are not named have none."""
    names = sorted(limits)
    await connection.execute(
        LIMITS, bank_bic, [ledger for ledger, _ in names], [account for _, account in names], [limits[name] for name in names]
    )


async def repayable(tx: Connection, bank_bic: str, since: datetime, day: str) -> list[tuple[str, str, int]]:
    """Ledger, debtor and amount of what is to be repaid for the days before a day, which begins at a moment."""
    return [(row["ledger"], row["holder"], row["amount"]) for row in await tx.fetch(REPAYABLE, bank_bic, since, day)]


async def recent(tx: Connection, ledger: str, account: str, after: int, upto: int) -> list[Entry]:
    """Postings on a holder's account that a bank's statement shows, after one entry of the ledger and up to another."""
    return [entry_of(row) for row in await tx.fetch(RECENT, ledger, account, after, upto)]


async def moved(
    tx: Connection, ledger: str, account: str, day: date, stated: tuple[Sequence[str], Sequence[str]]
) -> int | None:  # fmt: skip
    """By what the postings of a day moved a holder's account, out of it; None where the ledger does not know the account.

    `stated` are the payments (UETRs) and returns (names) that the day's statement has.
    """
    found: int | None = await tx.fetchval(MOVED, ledger, account, day.isoformat(), list(stated[0]), list(stated[1]))
    return found


async def heads(connection: Connection) -> dict[str, Head]:
    """The end of each ledger."""
    return {row["ledger"]: Head(row["sequence"], row["hash"]) for row in await connection.fetch(HEADS)}


async def accounts(connection: Connection, ledger: str) -> dict[str, Account]:
    """The accounts of a ledger."""
    rows = await connection.fetch(ACCOUNTS, ledger)
    return {row["account"]: Account(row["balance"], row["credit_limit"]) for row in rows}


async def pages(connection: Connection, ledger: str, size: int = 5_000) -> AsyncIterator[list[PostedEntry]]:
    """The entries of a ledger in their order, some at a time."""
    after = 0
    while rows := await connection.fetch(ENTRIES, ledger, after, size):
        yield [
            PostedEntry(row["sequence"], entry_of(row), row["recorded_at"], row["previous"], row["content"], row["hash"])
            for row in rows
        ]
        after = rows[-1]["sequence"]


async def leg_pages(connection: Connection, size: int = 1_000) -> AsyncIterator[list[tuple[str, Phase, Known, Footing]]]:
    """UETR, phase, what the bank has said, and the payment's footing, of every leg, some at a time."""
    after = "", ""
    while rows := await connection.fetch(LEGS, *after, size):
        yield [
            (row["uetr"], Phase(row["phase"]), Known(**json.loads(row["status"])), PROFILES[ProfileName(row["profile"])].footing)
            for row in rows
        ]
        after = rows[-1]["plan_id"], rows[-1]["leg_id"]


async def audit(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """What the database's own audit finds wrong; nothing, of a ledger that is right."""
    return [dict(row) for row in await connection.fetch(AUDIT, limit)]
