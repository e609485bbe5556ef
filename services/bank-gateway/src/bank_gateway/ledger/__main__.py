"""`python -m bank_gateway.ledger --config FILE`: shows the ledgers' accounts, and says whether every entry, link, balance and leg is right.

Prints one JSON object a line: first the accounts, then what is wrong. Exits with 1 if anything is. The chain is computed anew from the entries, by code that
shares nothing with the database's; what the database's own audit finds is told beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from bank_gateway.ledger import rules, store, upkeep
from bank_gateway.ledger.chain import Audit
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.db import Database
from lockstep_kit.settings import load

FOUND_MAX: Final = 1_000


async def audit(db: Database) -> tuple[list[dict[str, Any]], list[str]]:
    """The accounts, and a sentence for each thing that is wrong with them. What is read is of one moment."""
    accounts: list[dict[str, Any]] = []
    wrong: list[str] = []
    async with db.transaction() as tx:
        await tx.execute("set transaction isolation level repeatable read, read only")
        for ledger, head in (await upkeep.heads(tx)).items():
            reading = Audit(ledger)
            async for page in upkeep.pages(tx, ledger):
                wrong += reading.read(page)
            found = await upkeep.accounts(tx, ledger)
            wrong += reading.close(head, found)
            accounts += [
                {"ledger": ledger, "account": name, "balance_minor": each.balance, "limit_minor": each.limit}
                for name, each in found.items()
            ]
        async for legs in upkeep.leg_pages(tx):
            histories = await store.histories(tx, [uetr for uetr, *_ in legs])
            wrong += [
                f"payment {uetr} is {phase}, and the ledger has {now.place or 'nothing'} of it"
                for uetr, phase, known, footing in legs
                if not rules.in_place(now := rules.standing(histories[uetr]), phase, known, footing)
            ]
        wrong += [f"the database finds: {row}" for row in await upkeep.audit(tx, FOUND_MAX)]
    return accounts, wrong


async def run(settings: BankGatewaySettings) -> int:
    """Do what was asked; returns the exit status."""
    db = await Database.connect(settings.database, application_name="bank-gateway-ledger")
    try:
        accounts, wrong = await audit(db)
    finally:
        await db.close()
    sys.stdout.writelines(f"{json.dumps(account)}\n" for account in accounts)
    sys.stdout.writelines(f"{json.dumps({'wrong': sentence})}\n" for sentence in wrong)
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="bank_gateway.ledger", description="Shows the ledger, and says whether it is right.")
    parser.add_argument("--config", required=True, help="settings of the bank-gateway, YAML")
    given = parser.parse_args(argv)
    return asyncio.run(run(load(BankGatewaySettings, ["--config", given.config])))


if __name__ == "__main__":
    sys.exit(main())
