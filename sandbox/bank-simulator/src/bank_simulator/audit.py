"""Whether the books are right, computed from the entries and not from anything that was kept beside them."""

from __future__ import annotations

from typing import Any, Final

from bank_simulator.database import Connection

_CURRENCIES = """
-- The sum of everything, and what the parts of it are, by currency.
select accounts.currency, coalesce(sum(entries.amount), 0)::bigint as sum_minor, count(entries.entry_id) as entries,
    coalesce(sum(entries.amount) filter (where accounts.kind = 'HOLD'), 0)::bigint as held_minor,
    coalesce(sum(entries.amount) filter (where accounts.kind in ('CUSTOMER', 'VOSTRO')), 0)::bigint as owed_minor,
    -coalesce(sum(entries.amount) filter (where accounts.kind = 'CREDIT'), 0)::bigint as lent_minor
from accounts left join entries using (account_id) group by accounts.currency order by accounts.currency
"""

#: Each finds violations of one rule: a sentence and what is wrong, row by row.
_RULES: Final = (
    ("the entries of a posting sum to zero in each currency", """
        -- Postings that are not balanced.
        select posting_id::text as subject from entries group by posting_id, currency having sum(amount) <> 0
    """),
    ("an account's balance is the sum of its entries", """
        -- Accounts whose balance is another.
        select account_id as subject from accounts left join entries using (account_id)
        group by account_id having accounts.balance <> coalesce(sum(entries.amount), 0)
    """),
    ("each entry states the balance that its account then has", """
        -- Entries whose running balance is another.
        select entry_id::text as subject from (
            select entry_id, balance_after, sum(amount) over (partition by account_id order by entry_id) as running from entries
        ) as walked where balance_after <> running
    """),
    ("money on the hold accounts is the money of payments that are held, and of reservations that stand", """
        -- Currencies in which the two differ.
        select currency as subject from accounts where kind = 'HOLD' and balance <> coalesce(
            (select sum(amount) from payments where state = 'HELD' and payments.currency = accounts.currency), 0
        ) + coalesce(
            (select sum(amount) from reservations where state = 'RESERVED' and reservations.currency = accounts.currency), 0
        )
    """),
    ("a payment is held, booked and given back as its state says, once and with its amount", """
        -- Payments whose postings are others.
        select payments.uetr::text as subject from payments left join lateral (
            select coalesce(string_agg(kind, ' ' order by posting_id), '') as kinds,
                coalesce(bool_and(moved.amount = payments.amount), true) as right_amount
            from postings cross join lateral (select max(amount) as amount from entries where posting_id = postings.posting_id) as moved
            where postings.uetr = payments.uetr and kind <> 'RETURN' and not (
                kind in ('HOLD', 'RELEASE') and exists (select from reservations where reservations.uetr = payments.uetr))
        ) as booked on true
        where not booked.right_amount or booked.kinds <> all (case payments.state
            when 'TOMBSTONED' then array['']
            when 'REJECTED' then array['', 'HOLD RELEASE']
            when 'HELD' then array['HOLD']
            when 'SETTLED' then case when exists (select from reservations where reservations.uetr = payments.uetr and state = 'PAID')
                then array['SETTLE'] else array['HOLD SETTLE', 'PAYMENT'] end
            else array['HOLD RELEASE'] end)
    """),
    ("a reservation is held, paid out of and given back as its state says, once and with its amount", """
        -- Reservations whose postings are others.
        select reservations.uetr::text as subject from reservations left join lateral (
            select coalesce(string_agg(kind, ' ' order by posting_id), '') as kinds,
                coalesce(bool_and(moved.amount = reservations.amount), true) as right_amount
            from postings cross join lateral (select max(amount) as amount from entries where posting_id = postings.posting_id) as moved
            where postings.uetr = reservations.uetr and kind in ('HOLD', 'SETTLE', 'RELEASE')
        ) as booked on true
        where not booked.right_amount or booked.kinds <> (case reservations.state
            when 'RESERVED' then 'HOLD' when 'PAID' then 'HOLD SETTLE' when 'DELETED' then 'HOLD RELEASE'
            when 'EXPIRED' then 'HOLD RELEASE' else '' end)
    """),
    ("what came back of a payment is what its returns moved, from its creditor to its debtor, and no more than its amount", """
        -- Payments whose returns moved otherwise.
        select payments.uetr::text as subject from payments where (returned <> 0 or exists (
            select from postings where postings.uetr = payments.uetr and kind = 'RETURN'
        )) and (
            (select coalesce(sum(amount), 0) from entries join postings using (posting_id)
                where postings.uetr = payments.uetr and kind = 'RETURN' and account_id = debtor_account) <> returned
            or (select coalesce(sum(amount), 0) from entries join postings using (posting_id)
                where postings.uetr = payments.uetr and kind = 'RETURN' and account_id = credited_account) <> -returned
        )
    """),
    ("what was drawn for a hold is lent by the debtor's line with it, and given back whole and at once when it ends without a booking", """
        -- Payments whose credit moved otherwise.
        select payments.uetr::text as subject from payments left join lateral (
            select coalesce(string_agg(kind || ' ' || account_id || ' ' || amount, ', ' order by posting_id, account_id), '') as moved
            from postings join entries using (posting_id) where credit_for = payments.uetr and kind in ('DRAW', 'REPAY')
        ) as credit on true
        where credit.moved <> case when drawn = 0 then ''
            else 'DRAW ' || debtor_account || ' ' || drawn || ', DRAW ~credit:' || debtor_account || ' ' || -drawn
                || case when state in ('HELD', 'SETTLED') then ''
                    else ', REPAY ' || debtor_account || ' ' || -drawn || ', REPAY ~credit:' || debtor_account || ' ' || drawn end
            end
    """),
    ("a credit line's balance is the debt of the holds and of the booked payments that it was drawn for, less what was repaid", """
        -- Lines with another balance.
        select line.account_id as subject from accounts as line where line.kind = 'CREDIT' and line.balance <>
            coalesce((select sum(amount) from entries join postings using (posting_id)
                where account_id = line.account_id and kind = 'SWEEP'), 0)
            - coalesce((select sum(drawn) from payments where state in ('HELD', 'SETTLED')
                and '~credit:' || debtor_account = line.account_id), 0)
    """),
    ("nothing is lent beyond the limit, and nothing is repaid that was not drawn", """
        -- Lines out of bounds at any time.
        select entry_id::text as subject from entries join accounts using (account_id)
        where kind = 'CREDIT' and (balance_after < -overdraft_limit or balance_after > 0)
    """),
    ("what is due is repaid as soon as money is free", """
        -- Accounts that have money and a debt of booked payments.
        select account.account_id as subject from accounts as account
        join accounts as line on line.kind = 'CREDIT' and line.account_id = '~credit:' || account.account_id
        where account.balance > 0 and -line.balance > coalesce(
            (select sum(drawn) from payments where state = 'HELD' and debtor_account = account.account_id), 0
        )
    """),
    ("a UETR is booked once at the most", """
        -- Payments with two bookings.
        select uetr::text as subject from postings where kind in ('SETTLE', 'PAYMENT') group by uetr having count(*) > 1
    """),
    ("money moves only for a payment that is known, or to open an account", """
        -- Postings for a payment that nobody knows.
        select reference as subject from postings where kind <> 'OPENING' and not exists (
            select from payments where payments.uetr = coalesce(postings.uetr, credit_for)
        ) and not exists (select from reservations where reservations.uetr = postings.uetr and state <> 'TOMBSTONED')
    """),
    ("an undertaking is issued once, as its state says, and by the issuance that its draft named", """
        -- Undertakings whose issue is another.
        select uetr::text as subject from undertakings left join undertaking_issues as issued using (uetr)
        where (undertakings.state = 'ISSUED') <> (issued.uetr is not null)
            or issued.number <> undertakings.number or sha256(issued.document) <> undertakings.issuance_sha256
    """),
    ("what is lodged and in force of a facility lies within its limit", """
        -- Facilities that are exceeded.
        select account_id as subject from facilities where limit_minor < (
            select coalesce(sum(amount), 0) from undertakings where undertakings.account_id = facilities.account_id
                and (state = 'LODGED' or state = 'ISSUED' and expires_on > current_date))
    """),
    ("a settled payment debits its debtor and credits its creditor", """
        -- Settled payments whose accounts moved otherwise.
        select payments.uetr::text as subject from payments where state = 'SETTLED' and (
            (select coalesce(sum(amount), 0) from entries join postings using (posting_id)
                where uetr = payments.uetr and kind <> 'RETURN' and account_id = debtor_account) <> -payments.amount
            or (select coalesce(sum(amount), 0) from entries join postings using (posting_id)
                where uetr = payments.uetr and kind <> 'RETURN' and account_id = credited_account) <> payments.amount
        )
    """),
)  # fmt: skip


_BALANCES = """
-- Every account's balance as the sum of its entries.
select accounts.account_id, kind, accounts.currency, status, coalesce(sum(entries.amount), 0)::bigint as balance_minor,
    overdraft_limit as limit_minor
from accounts left join entries using (account_id) group by accounts.account_id order by accounts.account_id
"""

_HOLDS = """
-- Money on hold, and what was drawn for it.
select uetr::text, debtor_account, currency, amount as amount_minor, drawn as drawn_minor, hold_until from payments where state = 'HELD'
union all select uetr::text, account_id, currency, amount, 0, hold_until from reservations where state = 'RESERVED' order by uetr
"""

_LINES = """
-- Credit lines: their provider, what is drawn of them, and of that what is due because its payment is booked.
select substr(line.account_id, length('~credit:') + 1) as account, owner_name as provider, owner_bic as provider_bic, currency, status,
    overdraft_limit as limit_minor, -balance as drawn_minor, (-balance - coalesce(
        (select sum(drawn) from payments where state = 'HELD' and '~credit:' || debtor_account = line.account_id), 0
    ))::bigint as due_minor
from accounts as line where kind = 'CREDIT' order by account_id
"""

_BOOKINGS = """
-- How often each UETR was booked, for how much, from whom to whom.
select uetr::text, count(distinct posting_id) as bookings, max(entries.amount) as amount_minor, min(entries.currency) as currency,
    payments.debtor_account, payments.credited_account
from postings join entries using (posting_id) left join payments using (uetr)
where kind in ('SETTLE', 'PAYMENT') group by uetr, payments.debtor_account, payments.credited_account order by uetr
"""


_UNDERTAKINGS = """
-- Undertakings, how often each was issued, and to whom it was advised.
select undertakings.uetr::text, state, undertakings.number, account_id as account, currency, amount as amount_minor, reason,
    (issued.uetr is not null)::int as issues, issued.advised_to
from undertakings left join undertaking_issues as issued using (uetr) order by undertakings.uetr
"""


async def book(tx: Connection) -> dict[str, Any]:
    """The audit, and beside it the whole book as a checker needs it: accounts, lines, open holds, bookings. One repeatable-read transaction."""
    parts = {"accounts": _BALANCES, "credit_lines": _LINES, "holds": _HOLDS, "bookings": _BOOKINGS, "undertakings": _UNDERTAKINGS}
    shown = {name: [dict(row) for row in await tx.fetch(query)] for name, query in parts.items()}
    return {**await audit(tx), **shown}


async def audit(tx: Connection) -> dict[str, Any]:
    """The verdict, its violations, and the sums by currency. Read in one repeatable-read transaction."""
    currencies = {row["currency"]: dict(row) for row in await tx.fetch(_CURRENCIES)}
    violations = [
        {"rule": "the sum of all entries is zero in each currency", "subject": currency}
        for currency, sums in currencies.items()
        if sums["sum_minor"] != 0
    ]
    for rule, query in _RULES:
        violations += [{"rule": rule, "subject": row["subject"]} for row in await tx.fetch(query)]
    return {"conserved": not violations, "violations": violations, "currencies": currencies}
