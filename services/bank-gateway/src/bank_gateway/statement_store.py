"""Every statement of the reconciliation: account statements as they came, what was found by them, and the breaks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final

from bank_gateway.messages import StatementPage
from bank_gateway.operations import Known
from bank_gateway.reconciliation import Break, BreakKind, DayStatement, Reconciled
from lockstep_kit.db import Connection
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass

#: Notes a statement of which a page came, and locks it; its number.
NOTE_STATEMENT: Final = """
insert into bank_statement (counterparty, account, booking_date, number, statement_id) values ($1, $2, $3, $4, $5)
on conflict on constraint bank_statement_once do update set whole_at = bank_statement.whole_at returning id, whole_at
"""

#: Keeps a page of a statement, unless the page is there.
ADD_PAGE: Final = """
insert into bank_statement_page (statement, page, last, message_id, message_sha256) values ($1, $2, $3, $4, $5)
on conflict on constraint bank_statement_page_pkey do nothing
"""

#: The pages of a statement with the messages that hold them, in order.
PAGES: Final = """
select page.page, page.last, message.octets from bank_statement_page as page
join bank_message as message on message.direction = 'IN' and message.message_id = page.message_id and message.sha256 = page.message_sha256
where page.statement = $1 order by page.page
"""

#: A statement is whole.
SET_WHOLE: Final = """
update bank_statement set whole_at = clock_timestamp(), opening = $2, closing = $3 where id = $1 and whole_at is null
"""

#: The next statement that is whole and was not reconciled, kept from other replicas until the end of the transaction; of corrections the last.
CLAIM_STATEMENT: Final = """
select id, counterparty, account, statement_id, booking_date, number,
    not exists (select from bank_reconciliation as done where done.statement = here.id) as first
from bank_statement as here
where whole_at is not null and reconciled_at is null and not exists (
    select from bank_statement as later
    where later.counterparty = here.counterparty and later.account = here.account and later.number = here.number
      and later.id > here.id and later.whole_at is not null)
order by number, id limit 1 for update skip locked
"""

#: The number and closing balance of the last whole statement before a number.
STATEMENT_BEFORE: Final = """
select number, closing from bank_statement
where counterparty = $1 and account = $2 and number < $3 and whole_at is not null order by number desc, id desc limit 1
"""

#: The ledger's entries that are compared with a statement beside those that it names: after those of the statements before it, and up to the last that is
#: there, or was there when it was first reconciled. So each entry is compared with one statement.
LEDGER_WINDOW: Final = """
select coalesce((
        select max(ledger_to) from bank_statement where counterparty = $1 and account = $2 and number < $3), 0) as after,
    coalesce((
        select min(ledger_to) from bank_statement where counterparty = $1 and account = $2 and number = $3),
        (select sequence from ledger_head where ledger = $4), 0) as upto
"""

#: A statement is reconciled; the one after it, if it is here, is looked at again, since it follows this one.
SET_RECONCILED: Final = """
with done as (
    update bank_statement set reconciled_at = clock_timestamp(), ledger_to = $3 where id = $1 returning counterparty, account, number
)
update bank_statement as next set reconciled_at = null from done
where next.counterparty = done.counterparty and next.account = done.account and next.number = done.number + 1
    and next.whole_at is not null and next.reconciled_at is not null and $2
"""

#: Notes what was found of an account and day, the last time last.
NOTE_RECONCILIATION: Final = """
insert into bank_reconciliation (counterparty, account, booking_date, statement, entries, matched, settled, others, breaks)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict on constraint bank_reconciliation_pkey do update set statement = excluded.statement, times = bank_reconciliation.times + 1,
    reconciled_at = clock_timestamp(), entries = excluded.entries, matched = excluded.matched,
    settled = bank_reconciliation.settled + excluded.settled, others = excluded.others, breaks = excluded.breaks
"""

#: Payments that a statement names, or that were told as booked on its account and day, or as booked back on that day.
PAYMENTS_OF_DAY: Final = """
select plan_id, leg_id, status from bank_payment where uetr = any ($1::text[])
union
select plan_id, leg_id, status from bank_payment where end_to_end_id = any ($2::text[])
union
select plan_id, leg_id, status from bank_payment where status ->> 'booked_on' = $4 and status ->> 'booking_account' = $3
union
select plan_id, leg_id, status from bank_payment where status ->> 'booked_on' = $4 and status ->> 'credited_account' = $3
union
select plan_id, leg_id, status from bank_payment
where status ? 'returned_on' and exists (select from jsonb_each_text(status -> 'returned_on') as back where back.value = $4)
"""

#: What is known of legs' payments.
KNOWN: Final = """
select plan_id, leg_id, status from bank_payment join unnest($1::text[], $2::text[]) as wanted (plan_id, leg_id) using (plan_id, leg_id)
"""

#: Payments whose bookings a statement has as our books have them.
SET_STATED: Final = "update bank_payment set stated_by = $1 where uetr = any ($2::text[]) and stated_by is distinct from $1"

#: Opens a break, as a matter with figures.
ADD_BREAK: Final = """
with opened as (
    insert into bank_matter (counterparty, message_id, message_sha256, place, kind, uetr, end_to_end_id, plan_id, leg_id, sentence)
    values ($1, $2, $3, nextval('bank_break_place'), 'BREAK', $4, $5, $6, $7, $8) returning id
)
insert into bank_break (matter, kind, account, booking_date, subject, asset, minor_units, scale)
select id, $9, $10, $11, $12, $13, $14, $15 from opened returning matter
"""

#: Breaks of an account that are open, or that a person closed; what a statement resolved may come up again.
BREAKS_OF_ACCOUNT: Final = """
select matter, broken.kind, account, booking_date, subject, asset, minor_units::bigint, scale, plan_id, leg_id, closed_at is null as open
from bank_break as broken join bank_matter as matter on matter.id = broken.matter
where account = $1 and resolved_by is null and (closed_at is null or booking_date = $2) order by matter
"""

#: A statement resolves breaks.
RESOLVE: Final = "update bank_break set resolved_by = $2 where matter = any ($1::bigint[])"

#: Open breaks of payments in doubt that are in doubt no more.
NO_LONGER_IN_DOUBT: Final = """
select broken.matter, leg.phase from bank_break as broken join bank_matter as matter on matter.id = broken.matter
join participant_leg as leg using (plan_id, leg_id)
where broken.kind = 'IN_DOUBT' and matter.closed_at is null and leg.phase <> 'COMMITTING' order by broken.matter
"""

#: Accounts and days that the bank told bookings of and whose statement is not here, as far back as is looked; those that are known as overdue left out.
WITHOUT_STATEMENT: Final = """
select told.account, told.booked_on, array_agg(plan_id order by plan_id, leg_id) as plans, array_agg(leg_id order by plan_id, leg_id) as legs
from (
    select plan_id, leg_id, status ->> 'booking_account' as account, (status ->> 'booked_on')::date as booked_on from bank_payment
    where status ->> 'booked_on' between $1 and $2 and status ->> 'booking_account' <> ''
) as told
where not exists (
    select from bank_statement as here where here.account = told.account and here.booking_date = told.booked_on and here.whole_at is not null
) and not exists (
    select from bank_break as broken where broken.account = told.account and broken.booking_date = told.booked_on
      and broken.kind = 'STATEMENT_OVERDUE' and broken.resolved_by is null)
group by told.account, told.booked_on order by told.booked_on, told.account
"""

#: What was reconciled of a day.
DAY: Final = """
select done.account, done.booking_date, statement_id, number, times, done.reconciled_at, entries, matched, settled, others, breaks
from bank_reconciliation as done join bank_statement as here on here.id = done.statement
where done.booking_date = $1 order by done.account
"""

#: Open breaks of all days, oldest first.
OPEN_BREAKS: Final = """
select broken.matter, broken.kind, broken.account, broken.booking_date, broken.subject, broken.asset, broken.minor_units::text as minor_units,
    broken.scale, matter.plan_id, matter.leg_id, matter.uetr, matter.sentence, matter.recorded_at, clock_timestamp() - matter.recorded_at as age
from bank_break as broken join bank_matter as matter on matter.id = broken.matter
where matter.closed_at is null order by broken.matter limit $1
"""

#: A page of the bookings that the bank told, of a day or of plans, and whether a statement has them.
BOOKINGS: Final = """
select plan_id, leg_id, uetr, status, stated_by is not null as stated from bank_payment
where ($1 = '' or status ->> 'booked_on' = $1) and (cardinality($2::text[]) = 0 or plan_id = any ($2)) and status ->> 'booking_reference' <> ''
    and (plan_id, leg_id) > ($3, $4) order by plan_id, leg_id limit $5
"""


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A statement that is to be reconciled."""

    #: Row.
    id: int
    #: Bank.
    counterparty: str
    #: Account.
    account: str
    #: The bank's name of it.
    statement_id: str
    #: Booking day.
    booking_date: date
    #: Electronic sequence number.
    number: int
    #: Whether it is reconciled for the first time.
    first: bool


@dataclass(frozen=True, slots=True)
class KnownBreak:
    """A break that was found before."""

    #: Its matter.
    matter: int
    #: What it is, as it was found; its sentence is in the matter.
    difference: Break
    #: Whether it is open; else a person closed it.
    open: bool


async def note_statement(tx: Connection, counterparty: str, page: StatementPage) -> tuple[int, bool]:
    """The row of the statement that a page belongs to, locked, and whether the statement is whole."""
    row = await tx.fetchrow(NOTE_STATEMENT, counterparty, page.account, page.day, page.number, page.statement_id)
    if row is None:
        raise AssertionError("the statement returns one row")
    return row["id"], row["whole_at"] is not None


async def add_page(tx: Connection, statement: int, page: StatementPage, message_id: str, sha256: bytes) -> None:
    """Keep a page."""
    await tx.execute(ADD_PAGE, statement, page.page, page.last, message_id, sha256)


async def page_octets(tx: Connection, statement: int) -> list[tuple[int, bool, bytes]]:
    """(Page, whether it is the last, the message that holds it) of a statement, in order."""
    return [(row["page"], row["last"], row["octets"]) for row in await tx.fetch(PAGES, statement)]


async def set_whole(tx: Connection, statement: int, whole: DayStatement) -> None:
    """All pages of a statement are here, and make a whole."""
    await tx.execute(SET_WHOLE, statement, whole.opening, whole.closing)


async def claim_statement(tx: Connection) -> StatementRow | None:
    """The next statement to reconcile, locked; None where there is none."""
    row = await tx.fetchrow(CLAIM_STATEMENT)
    return None if row is None else StatementRow(**dict(row))


async def statement_before(tx: Connection, row: StatementRow) -> tuple[int, int] | None:
    """Number and closing balance of the last statement before one."""
    found = await tx.fetchrow(STATEMENT_BEFORE, row.counterparty, row.account, row.number)
    return None if found is None else (found["number"], int(found["closing"]))


async def ledger_window(tx: Connection, row: StatementRow, ledger: str) -> tuple[int, int]:
    """(After, up to) which entries of the ledger are compared with a statement beside those that it names."""
    found = await tx.fetchrow(LEDGER_WINDOW, row.counterparty, row.account, row.number, ledger)
    if found is None:
        raise AssertionError("the statement returns one row")
    return found["after"], found["upto"]


async def set_reconciled(
    tx: Connection, row: StatementRow, found: Reconciled, *, entries: int, breaks: int, ledger_to: int
) -> None:  # fmt: skip
    """Note what was found by a statement. The one after it is looked at again, should it have come before this one."""
    await tx.execute(
        NOTE_RECONCILIATION, row.counterparty, row.account, row.booking_date, row.id, entries, len(found.matched), len(found.settles),
        found.others, breaks,
    )  # fmt: skip
    await tx.execute(SET_RECONCILED, row.id, row.first, ledger_to)


async def payments_of_day(
    tx: Connection, uetrs: Collection[str], references: Collection[str], account: str, day: date
) -> dict[tuple[PlanId, LegId], Known]:
    """What is known of every payment that a statement names, or that was told as booked on its account and day."""
    rows = await tx.fetch(PAYMENTS_OF_DAY, list(uetrs), list(references), account, day.isoformat())
    return {(PlanId(row["plan_id"]), LegId(row["leg_id"])): Known(**json.loads(row["status"])) for row in rows}


async def known_of(tx: Connection, legs: Sequence[tuple[PlanId, LegId]]) -> dict[tuple[PlanId, LegId], Known]:
    """What is known of legs' payments."""
    rows = await tx.fetch(KNOWN, [plan_id for plan_id, _ in legs], [leg_id for _, leg_id in legs])
    return {(PlanId(row["plan_id"]), LegId(row["leg_id"])): Known(**json.loads(row["status"])) for row in rows}


async def set_stated(tx: Connection, statement: int, uetrs: Sequence[str]) -> None:
    """A statement has these payments as our books have them."""
    await tx.execute(SET_STATED, statement, list(uetrs))


async def add_break(tx: Connection, counterparty: str, difference: Break, message_id: str, sha256: bytes) -> int:
    """Open a break; returns its matter. The message is the one that shows it, or none."""
    leg = difference.leg or (None, None)
    matter: int = await tx.fetchval(
        ADD_BREAK, counterparty, message_id, sha256, difference.uetr, difference.end_to_end_id, *leg, difference.sentence,
        difference.kind.value, difference.account, difference.day, difference.subject, difference.asset, difference.minor_units,
        difference.scale,
    )  # fmt: skip
    return matter


async def breaks_of_account(tx: Connection, account: str, day: date) -> list[KnownBreak]:
    """The open breaks of an account, and those of a day that a person closed."""
    rows = [dict(row) for row in await tx.fetch(BREAKS_OF_ACCOUNT, account, day)]
    return [KnownBreak(row["matter"], _difference(row), row["open"]) for row in rows]


def _difference(row: Mapping[str, Any]) -> Break:
    leg = None if row["plan_id"] is None else (PlanId(row["plan_id"]), LegId(row["leg_id"]))
    return Break(
        BreakKind(row["kind"]), row["account"], row["booking_date"], row["subject"], row["asset"], row["minor_units"], row["scale"], leg, ""
    )  # fmt: skip


async def resolve(tx: Connection, matters: Sequence[int], statement: int) -> None:
    """A statement resolves breaks, whose matters are closed beside it."""
    await tx.execute(RESOLVE, list(matters), statement)


async def no_longer_in_doubt(tx: Connection) -> list[tuple[int, str]]:
    """(Matter, phase of the leg) of breaks of payments in doubt that are in doubt no more."""
    return [(row["matter"], row["phase"]) for row in await tx.fetch(NO_LONGER_IN_DOUBT)]


async def without_statement(tx: Connection, begin: date, end: date) -> list[tuple[str, date, list[tuple[PlanId, LegId]]]]:
    """(Account, day, legs) that the bank told bookings of and whose statement is not here."""
    rows = await tx.fetch(WITHOUT_STATEMENT, begin.isoformat(), end.isoformat())
    return [
        (row["account"], row["booked_on"], [(PlanId(p), LegId(leg)) for p, leg in zip(row["plans"], row["legs"], strict=True)])
        for row in rows
    ]


async def day(connection: Connection, booking_date: date) -> list[dict[str, Any]]:
    """What was reconciled of a day, account by account."""
    return [dict(row) for row in await connection.fetch(DAY, booking_date)]


async def open_breaks(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Open breaks of all days, oldest first."""
    return [dict(row) for row in await connection.fetch(OPEN_BREAKS, limit)]


async def bookings(
    connection: Connection, booking_date: date | None, plan_ids: Collection[str], after: tuple[str, str], limit: int
) -> list[dict[str, Any]]:  # fmt: skip
    """A page of the bookings of a day, or of plans, in the order (plan, leg)."""
    day = "" if booking_date is None else booking_date.isoformat()
    return [dict(row) for row in await connection.fetch(BOOKINGS, day, list(plan_ids), *after, limit)]
