"""Opens the accounts that the seed names, with their balances. Doing it again changes nothing."""

from __future__ import annotations

from bank_simulator import store
from bank_simulator.amounts import minor_units, scale_of
from bank_simulator.books import capital_account, hold_account, line_account
from bank_simulator.checks import certain
from bank_simulator.database import Connection, Database
from bank_simulator.settings import AccountSeed, BankSeed

_OPEN_ACCOUNT = """
-- An account of the bank; one that is there stays as it is.
insert into accounts (account_id, kind, owner_name, owner_bic, currency, scale, status, overdraft_limit) values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (account_id) do nothing
"""

_READ_ACCOUNT = """
-- What an account is.
select kind, owner_name, owner_bic, currency from accounts where account_id = $1
"""

_OPEN_FACILITY = """
-- A facility for undertakings; its limit is what the seed says now.
insert into facilities (account_id, limit_minor) values ($1, $2) on conflict (account_id) do update set limit_minor = excluded.limit_minor
"""

_LINES = """
-- Accounts that credit is lent to.
select substr(account_id, $1) as account_id from accounts where kind = 'CREDIT'
"""

_STRANGERS = """
-- Counterparties that the bank deals with and the seed does not name.
select counterparty from mailboxes where counterparty <> all ($1::text[])
"""

_OPEN_MAILBOX = """
-- A mailbox for a counterparty.
insert into mailboxes (counterparty) values ($1) on conflict do nothing
"""

_OPEN_DAY = """
-- The bank's first booking day; one that is open stays open.
insert into bank_day (day) values ((clock_timestamp() at time zone $1)::date) on conflict do nothing
"""


class SeedMismatch(Exception):
    """The database holds another bank than the seed describes; the message says where."""


async def seed(database: Database, bank: BankSeed) -> None:
    """Brings the database to what the seed says, where it is not there yet.

    Raises:
        SeedMismatch: An account is there with another owner, kind or currency; or a counterparty is gone, whose holds would never end; or
            a credit line is gone, whose debt would never be repaid.
        asyncpg.UniqueViolationError: An account was opened with another balance.
    """
    async with database.transaction() as tx:
        await store.lock_names(tx, {"seed"})
        await tx.execute(_OPEN_DAY, bank.time_zone)
        for currency in sorted({account.currency for account in bank.accounts}):
            scale = scale_of(currency)
            await tx.execute(_OPEN_ACCOUNT, capital_account(currency), "CAPITAL", bank.name, None, currency, scale, "OPEN", None)
            await tx.execute(_OPEN_ACCOUNT, hold_account(currency), "HOLD", bank.name, None, currency, scale, "OPEN", 0)
        for account in bank.accounts:
            await _open(tx, account)
        lent = {row["account_id"] for row in await tx.fetch(_LINES, len(line_account("")) + 1)}
        if lent - bank.borrowers:
            raise SeedMismatch(f"the credit line of {min(lent - bank.borrowers)} is in the database and not in the seed")
        strangers = await tx.fetch(_STRANGERS, [counterparty.name for counterparty in bank.counterparties])
        if strangers:
            raise SeedMismatch(f"counterparty {strangers[0]['counterparty']} is in the database and not in the seed")
        for counterparty in bank.counterparties:
            await tx.execute(_OPEN_MAILBOX, counterparty.name)


async def _open(tx: Connection, account: AccountSeed) -> None:
    kind = "VOSTRO" if account.correspondent_bic else "CUSTOMER"
    limit = minor_units(account.overdraft_limit, account.currency, zero=True)
    await _keep(tx, account.account, kind, account.owner, account.correspondent_bic, account, account.status, limit)
    balance = minor_units(account.opening_balance, account.currency, zero=True)
    if balance:
        item = store.Item(
            f"opening:{account.account}", "OPENING", None, capital_account(account.currency), account.account, balance
        )
        await store.post(tx, [item])
    if account.facility is not None:
        await tx.execute(_OPEN_FACILITY, account.account, minor_units(account.facility, account.currency))
    if account.credit_line is not None:
        line = account.credit_line
        most = minor_units(line.limit, account.currency)
        await _keep(tx, line_account(account.account), "CREDIT", line.provider, line.provider_bic, account, "OPEN", most)


async def _keep(
    tx: Connection, name: str, kind: str, owner: str, owner_bic: str | None, seeded: AccountSeed, status: str, limit: int
) -> None:  # fmt: skip
    await tx.execute(_OPEN_ACCOUNT, name, kind, owner, owner_bic, seeded.currency, scale_of(seeded.currency), status, limit)
    found = certain(await tx.fetchrow(_READ_ACCOUNT, name))
    if tuple(found) != (kind, owner, owner_bic, seeded.currency):
        raise SeedMismatch(f"account {name} is there with another owner, kind or currency")
