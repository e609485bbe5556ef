"""`python -m event_journal.rewrap`: wrap every plan's payload key by another key, as the database's owner.

The first key file wraps, the others open what was wrapped before. The service may run meanwhile, once every replica was given the new key too.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from event_journal.erasing import wrap_again
from event_journal.payload_keys import PayloadVault, read_vault
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.owner_login import add_owner_arguments, owner_connection


def main(argv: Sequence[str] | None = None) -> int:
    """Wrap the keys again; the exit code."""
    parser = argparse.ArgumentParser(description="Wrap every plan's payload key by the first of the keys.")
    add_owner_arguments(parser)
    parser.add_argument(
        "--key-file", type=Path, action="append", required=True, help="the new key's file first, then the older ones'"
    )
    told = parser.parse_args(argv)
    try:
        vault = read_vault(told.key_file)
        count, left = asyncio.run(_run(told, vault))
    except (FieldInvalid, OSError, asyncpg.PostgresError) as error:
        sys.stderr.write(f"not every key is under the new one: {error}\n")
        return 2
    sys.stdout.write(f"{count} keys were wrapped again by {vault.current_id}\n")
    for each in left:
        sys.stderr.write(f"left as it was: {each}\n")
    return 1 if left else 0


async def _run(told: argparse.Namespace, vault: PayloadVault) -> tuple[int, list[str]]:
    async with owner_connection(told) as owner:
        return await wrap_again(owner, vault)


if __name__ == "__main__":
    sys.exit(main())
