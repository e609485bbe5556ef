"""`python -m bank_gateway.matters --config FILE`: what the bank said of money that fits no payment, or fits one badly. A person closes it; no timer does.

Without more it prints the open matters, one JSON object a line, oldest first. `--close NUMBER --finding TEXT` closes one with what was found out; a leg
that said nothing else than this matter then says nothing any more, or the next open matter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Final

from bank_gateway import store
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.db import Connection, Database
from lockstep_kit.participant import store as participant_store
from lockstep_kit.settings import load

SHOWN_MAX: Final = 10_000


async def show(db: Database) -> list[str]:
    """Open matters as lines of JSON."""
    async with db.connection() as connection:
        return [json.dumps(matter, default=str) for matter in await store.open_matters(connection, SHOWN_MAX)]


async def close(db: Database, number: int, finding: str) -> bool:
    """Close a matter; False when it is not open."""
    async with db.transaction() as tx:
        return await close_in(tx, number, finding)


async def close_in(tx: Connection, number: int, finding: str) -> bool:
    """Close a matter within a transaction; False when it is not open."""
    closed = await store.close_matter(tx, number, finding)
    if closed is None:
        return False
    leg, sentence = closed
    if leg is not None:
        records, _ = await participant_store.lock(tx, [leg])
        if leg in records and records[leg].trouble == sentence:
            await participant_store.set_trouble(tx, leg, await store.matter_of_leg(tx, *leg))
    return True


async def run(settings: BankGatewaySettings, number: int | None, finding: str) -> int:
    """Do what was asked; returns the exit status."""
    db = await Database.connect(settings.database, application_name="bank-gateway-matters")
    try:
        if number is None:
            sys.stdout.writelines(f"{line}\n" for line in await show(db))
            return 0
        if await close(db, number, finding):
            return 0
        sys.stderr.write(f"matter {number} is not open\n")
        return 1
    finally:
        await db.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="bank_gateway.matters", description="Shows and closes what a person must look into.")
    parser.add_argument("--config", required=True, help="settings of the bank-gateway, YAML")
    parser.add_argument("--close", type=int, metavar="NUMBER", help="matter to close")
    parser.add_argument("--finding", default="", help="what was found out about it")
    given = parser.parse_args(argv)
    if given.close is not None and not given.finding.strip():
        parser.error("--close needs --finding")
    return asyncio.run(run(load(BankGatewaySettings, ["--config", given.config]), given.close, given.finding.strip()))


if __name__ == "__main__":
    sys.exit(main())
