"""Opens the accounts that the seed names, with their balances. Doing it again changes nothing."""

from __future__ import annotations

from bank_simulator import store
from bank_simulator.amounts import minor_units, scale_of
from bank_simulator.checks import certain
from bank_simulator.database import Connection, Database
from bank_simulator.holds import hold_account
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

_STRANGERS = """
-- Counterparties that the bank deals with and the seed does not name.
select counterparty from mailboxes where counterparty <> all ($1::text[])
"""

_OPEN_MAILBOX = """
-- A mailbox for a counterparty.
insert into mailboxes (counterparty) values ($1) on conflict do nothing
"""


class SeedMismatch(Exception):
    """The database holds another bank than the seed describes; the message says where."""


async def seed(database: Database, bank: BankSeed) -> None:
    """Brings the database to what the seed says, where it is not there yet.

    Raises:
        SeedMismatch: An account is there with another owner, kind or currency; or a counterparty is gone, whose holds would never end.
        asyncpg.UniqueViolationError: An account was opened with another balance.
    """
    async with database.transaction() as tx:
        await store.lock_names(tx, {"seed"})
        for currency in sorted({account.currency for account in bank.accounts}):
            scale = scale_of(currency)
            await tx.execute(_OPEN_ACCOUNT, capital_account(currency), "CAPITAL", bank.name, None, currency, scale, "OPEN", None)
            await tx.execute(_OPEN_ACCOUNT, hold_account(currency), "HOLD", bank.name, None, currency, scale, "OPEN", 0)
        for account in bank.accounts:
            await _open(tx, account)
        strangers = await tx.fetch(_STRANGERS, [counterparty.name for counterparty in bank.counterparties])
        if strangers:
            raise SeedMismatch(f"counterparty {strangers[0]['counterparty']} is in the database and not in the seed")
        for counterparty in bank.counterparties:
            await tx.execute(_OPEN_MAILBOX, counterparty.name)


def capital_account(currency: str) -> str:
    """The bank's own money, out of which opening balances come."""
    return f"~capital:{currency}"


async def _open(tx: Connection, account: AccountSeed) -> None:
    kind = "VOSTRO" if account.correspondent_bic else "CUSTOMER"
    limit = minor_units(account.overdraft_limit, account.currency, zero=True)
    await tx.execute(
        _OPEN_ACCOUNT, account.account, kind, account.owner, account.correspondent_bic, account.currency, scale_of(account.currency),
        account.status, limit,
    )  # fmt: skip
    found = certain(await tx.fetchrow(_READ_ACCOUNT, account.account))
    if tuple(found) != (kind, account.owner, account.correspondent_bic, account.currency):
        raise SeedMismatch(f"account {account.account} is there with another owner, kind or currency")
    balance = minor_units(account.opening_balance, account.currency, zero=True)
    if balance:
        item = store.Item(
            f"opening:{account.account}", "OPENING", None, capital_account(account.currency), account.account, balance
        )
        await store.post(tx, [item])
