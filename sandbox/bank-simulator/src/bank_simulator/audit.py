"""Whether the books are right, computed from the entries and not from anything that was kept beside them."""

from __future__ import annotations

from typing import Any, Final

from bank_simulator.database import Connection

_CURRENCIES = """
-- The sum of everything, and what the parts of it are, by currency.
select accounts.currency, coalesce(sum(entries.amount), 0)::bigint as sum_minor, count(entries.entry_id) as entries,
    coalesce(sum(entries.amount) filter (where accounts.kind = 'HOLD'), 0)::bigint as held_minor,
    coalesce(sum(entries.amount) filter (where accounts.kind in ('CUSTOMER', 'VOSTRO')), 0)::bigint as owed_minor
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
    ("money on the hold accounts is the money of payments that are held", """
        -- Currencies in which the two differ.
        select currency as subject from accounts where kind = 'HOLD' and balance <> coalesce(
            (select sum(amount) from payments where state = 'HELD' and payments.currency = accounts.currency), 0
        )
    """),
    ("a payment is held, booked and given back as its state says, once and with its amount", """
        -- Payments whose postings are others.
        select payments.uetr::text as subject from payments left join lateral (
            select coalesce(string_agg(kind, ' ' order by posting_id), '') as kinds,
                coalesce(bool_and(moved.amount = payments.amount), true) as right_amount
            from postings cross join lateral (select max(amount) as amount from entries where posting_id = postings.posting_id) as moved
            where postings.uetr = payments.uetr
        ) as booked on true
        where not booked.right_amount or booked.kinds <> all (case payments.state
            when 'TOMBSTONED' then array['']
            when 'REJECTED' then array['', 'HOLD RELEASE']
            when 'HELD' then array['HOLD']
            when 'SETTLED' then array['HOLD SETTLE', 'PAYMENT']
            else array['HOLD RELEASE'] end)
    """),
    ("money moves only for a payment that is known, or to open an account", """
        -- Postings for a payment that nobody knows.
        select reference as subject from postings where uetr is not null and not exists (
            select from payments where payments.uetr = postings.uetr
        )
    """),
    ("a settled payment debits its debtor and credits its creditor", """
        -- Settled payments whose accounts moved otherwise.
        select payments.uetr::text as subject from payments where state = 'SETTLED' and (
            (select coalesce(sum(amount), 0) from entries join postings using (posting_id)
                where uetr = payments.uetr and account_id = debtor_account) <> -payments.amount
            or (select coalesce(sum(amount), 0) from entries join postings using (posting_id)
                where uetr = payments.uetr and account_id = credited_account) <> payments.amount
        )
    """),
)  # fmt: skip


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
