"""Account statements: a booking day ends, and each account is stated to whoever may instruct for it. What was booked comes from the entries alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from bank_simulator.checks import CheckError, certain, require_iban
from bank_simulator.correspondence import Correspondence, return_name
from bank_simulator.database import Connection
from bank_simulator.domain import AccountDay, Original, StatedEntry
from bank_simulator.misbehaviour import MISSTATEMENTS, Kind, Subject, misstated
from bank_simulator.settings import BankSeed, Counterparty

_LOCK_DAY = """
-- The day that is open, kept open by everybody who posts until they are done.
select day from bank_day for update
"""

_DAY = """
-- The day that is open, and the clock.
select day, clock_timestamp() as now from bank_day
"""

_NEXT_DAY = """
-- The next day opens.
update bank_day set day = day + 1
"""

_CLOSE_DAY = """
-- A day is over.
insert into closed_days (day) values ($1)
"""

_UNSTATED = """
-- Days that are over and not stated yet, oldest first.
select day from closed_days where stated_at is null order by day
"""

_STATED = """
-- All accounts' statements of a day were made.
update closed_days set stated_at = clock_timestamp() where day = $1 and stated_at is null
"""

_IS_CLOSED = """
-- Whether a day is over.
select exists (select from closed_days where day = $1)
"""

_ACCOUNTS = """
-- Accounts that are stated to a counterparty: those that it may instruct for; correspondents' only where the agreement names them.
select account_id, currency, scale from accounts
where (kind = 'CUSTOMER' and $1::text[] is null or kind in ('CUSTOMER', 'VOSTRO') and account_id = any ($1)) order by account_id
"""

_MADE = """
-- The number of an account's statement of a day, if one was made.
select min(number) from statements where counterparty = $1 and account_id = $2 and day = $3
"""

_NEXT_NUMBER = """
-- The next number of an account's statements.
select coalesce(max(number), 0) + 1 from statements where counterparty = $1 and account_id = $2
"""

_OPENING = """
-- What an account had before a day.
select coalesce(sum(amount), 0)::bigint from booked_movements where account_id = $1 and booking_date < $2
"""

_MOVEMENTS = """
-- What was booked on an account on a day, in order, with the names of its payments.
select moved.amount, moved.kind, moved.posting_id, moved.uetr, message_id, instruction_id, end_to_end_id, transaction_id
from booked_movements as moved left join payments using (uetr)
where moved.account_id = $1 and moved.booking_date = $2 order by moved.posting_id
"""

_ADD_STATEMENT = """
-- A statement that was made.
insert into statements (statement_id, counterparty, account_id, day, number, entries, messages) values ($1, $2, $3, $4, $5, $6, $7)
"""


class UnknownDay(Exception):
    """The day is not over yet, or never was, or the account is not stated to anybody."""


async def close_day(tx: Connection) -> date:
    """Ends the booking day that is open; returns it. What is posted from now on bears the next one."""
    day: date = await tx.fetchval(_LOCK_DAY)
    await tx.execute(_NEXT_DAY)
    await tx.execute(_CLOSE_DAY, day)
    return day


def is_over(bank: BankSeed, day: date | None, now: datetime) -> bool:
    """Whether the open day has lasted until its end by the bank's terms; False where it is ended by command alone."""
    if bank.terms.end_of_day is None or day is None:
        return False
    return now >= datetime.combine(day, bank.terms.end_of_day, ZoneInfo(bank.time_zone))


async def day_is_over(tx: Connection, bank: BankSeed) -> bool:
    """Whether the open day has."""
    row = certain(await tx.fetchrow(_DAY))
    return is_over(bank, row["day"], row["now"])


async def unstated_days(tx: Connection) -> list[date]:
    """Days that are over and whose statements are not all made."""
    return [row["day"] for row in await tx.fetch(_UNSTATED)]


async def day_is_stated(tx: Connection, day: date) -> None:
    """All statements of a day are made."""
    await tx.execute(_STATED, day)


async def stated_accounts(tx: Connection, counterparty: Counterparty) -> list[asyncpg.Record]:
    """Accounts whose statements a counterparty gets."""
    return await tx.fetch(_ACCOUNTS, None if counterparty.may_debit is None else list(counterparty.may_debit))


def lock_name(counterparty: Counterparty, account: str) -> str:
    """The name that is locked while an account is stated."""
    return f"statement:{counterparty.name}:{account}"


async def state(desk: Correspondence, account: asyncpg.Record, day: date, *, anew: bool) -> int:
    """Makes and sends one account's statement of a day that is over; returns how many messages it has.

    A statement that was made before is not made again, unless it is asked for `anew`: it then has the same number, and an identification of its own.

    Nobody else makes it meanwhile: see `lock_name`.

    Raises:
        UnknownDay: The day is not over.
    """
    name, to = account["account_id"], desk.counterparty.name
    if not await desk.tx.fetchval(_IS_CLOSED, day):
        raise UnknownDay(day.isoformat())
    number = await desk.tx.fetchval(_MADE, to, name, day)
    if number is not None and not anew:
        return 0
    if number is None:
        number = await desk.tx.fetchval(_NEXT_NUMBER, to, name)
    opening = await desk.tx.fetchval(_OPENING, name, day)
    entries = tuple(_entry(row) for row in await desk.tx.fetch(_MOVEMENTS, name, day))
    closing = opening + sum(entry.amount for entry in entries)
    stated = AccountDay(
        desk.new_id("A"), name, _is_iban(name), account["currency"], account["scale"], day, number, opening, closing, entries
    )
    subject = Subject(frozenset(_uetrs(entries)), frozenset([name]))
    kinds = MISSTATEMENTS if subject.uetrs else {Kind.ADD_ENTRY, Kind.MISSTATE_BALANCE}
    script = desk.mischief.take(kinds, subject, message="camt.053")
    if script is not None:
        stated = misstated(stated, script)
    most = desk.bank.terms.statement_entries_max
    pages = [stated.entries[begin : begin + most] for begin in range(0, len(stated.entries), most)] or [()]
    messages = [
        await desk.statement(stated, page, number, last=number == len(pages), uetrs=_uetrs(page))
        for number, page in enumerate(pages, 1)
    ]
    await desk.tx.execute(_ADD_STATEMENT, stated.statement_id, to, name, day, stated.number, len(stated.entries), messages)
    return len(messages)


def _entry(row: asyncpg.Record) -> StatedEntry:
    original = None
    if row["uetr"] is not None:
        original = Original(row["message_id"], row["instruction_id"], row["end_to_end_id"], row["transaction_id"], row["uetr"])
    # The reference by which the booking was notified.
    reference = f"B{row['posting_id']:011d}{'C' if row['amount'] > 0 else 'D'}"
    return_id = return_name(row["posting_id"]) if row["kind"] == "RETURN" else None
    return StatedEntry(row["amount"], row["kind"], reference, original, return_id)


def _uetrs(entries: Sequence[StatedEntry]) -> list[UUID]:
    return [entry.original.uetr for entry in entries if entry.original and entry.original.uetr]


def _is_iban(account: str) -> bool:
    try:
        require_iban("", account)
    except CheckError:
        return False
    return True
