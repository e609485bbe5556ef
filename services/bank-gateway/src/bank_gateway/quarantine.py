"""`python -m bank_gateway.quarantine --config FILE`: the messages of the bank that broke a rule, with field and rule. A person releases one; no timer does.

Without more it prints what is held, one JSON object a line, oldest first; `--all` also what was read since. `--octets NUMBER` writes one as it came.
`--release NUMBER --by NAME --reason TEXT` has one read again, as after a change of what is agreed with the bank: the gateway reads it as a whole and judges
it like any delivery, or refuses it once more. Who released it, when and why is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Final

from bank_gateway import quarantine_store
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.db import Database
from lockstep_kit.settings import load

SHOWN_MAX: Final = 10_000


async def run(settings: BankGatewaySettings, given: argparse.Namespace) -> int:
    """Do what was asked; returns the exit status."""
    db = await Database.connect(settings.database, application_name="bank-gateway-quarantine")
    try:
        async with db.transaction() as tx:
            if given.release is not None:
                if await quarantine_store.release(tx, given.release, given.by.strip(), given.reason.strip()):
                    return 0
                sys.stderr.write(f"message {given.release} is not held\n")
                return 1
            if given.octets is not None:
                octets = await quarantine_store.octets(tx, given.octets)
                if octets is None:
                    sys.stderr.write(f"there is no message {given.octets}\n")
                    return 1
                sys.stdout.buffer.write(octets)
                return 0
            shown = await quarantine_store.show(tx, SHOWN_MAX, whole=given.all)
        sys.stdout.writelines(f"{json.dumps(each, default=str)}\n" for each in shown)
        return 0
    finally:
        await db.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="bank_gateway.quarantine", description="Shows and releases messages that broke a rule.")
    parser.add_argument("--config", required=True, help="settings of the bank-gateway, YAML")
    parser.add_argument("--all", action="store_true", help="show what was read since, too")
    parser.add_argument("--octets", type=int, metavar="NUMBER", help="write a message as it came")
    parser.add_argument("--release", type=int, metavar="NUMBER", help="have a message read again")
    parser.add_argument("--by", default="", help="who releases it")
    parser.add_argument("--reason", default="", help="why")
    given = parser.parse_args(argv)
    if given.release is not None and not (given.by.strip() and given.reason.strip()):
        parser.error("--release needs --by and --reason")
    return asyncio.run(run(load(BankGatewaySettings, ["--config", given.config]), given))


if __name__ == "__main__":
    sys.exit(main())
