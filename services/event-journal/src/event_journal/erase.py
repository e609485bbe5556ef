"""`python -m event_journal.erase`: erase the payloads of sealed plans for good, as the database's owner.

    --plan ID --by WHO --reason TEXT    one plan's
    --from-file FILE                    those of a log of erasures, as after a restore
    --list                              print the log of the erasures that the database has

Each erasure is printed as a line of the log, which is kept outside the database. Exits 1 when the payloads of a plan that was named are not gone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from event_journal.erasing import Erasure, erase_all, erasures, read_log
from lockstep_kit import ids
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.owner_login import add_owner_arguments, owner_connection

NOT_DONE = {
    "not sealed": "its chain is not sealed yet; only a sealed plan's payloads are erased",
    "unknown": "the journal has no chain of it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Erase, or list; the exit code."""
    parser = argparse.ArgumentParser(description="Erase the payloads of sealed plans for good.")
    add_owner_arguments(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", help="the plan whose payloads go")
    what.add_argument("--from-file", type=Path, help="log of erasures, whose payloads go again")
    what.add_argument("--list", action="store_true", help="print the log of erasures")
    parser.add_argument("--by", help="who erases; with --plan")
    parser.add_argument("--reason", help="why; with --plan")
    told = parser.parse_args(argv)
    if (told.plan is None) != (told.by is None) or (told.plan is None) != (told.reason is None):
        parser.error("--plan goes with --by and --reason, and they with it")
    try:
        wanted = _wanted(told)
        return asyncio.run(_list(told) if told.list else _erase(told, wanted))
    except (FieldInvalid, OSError, asyncpg.PostgresError) as error:
        sys.stderr.write(f"nothing more was erased: {error}\n")
        return 2


def _wanted(told: argparse.Namespace) -> list[Erasure]:
    if told.from_file is not None:
        return read_log(told.from_file)
    if told.plan is None:
        return []
    wanted = Erasure(ids.plan_id(told.plan, "--plan"), told.by, told.reason)
    wanted.check()
    return [wanted]


async def _list(told: argparse.Namespace) -> int:
    async with owner_connection(told) as owner:
        for each in await erasures(owner):
            sys.stdout.write(each.line() + "\n")
    return 0


async def _erase(told: argparse.Namespace, wanted: list[Erasure]) -> int:
    async with owner_connection(told) as owner:
        done = await erase_all(owner, wanted)
    for erasure, found in done:
        if found.gone:
            sys.stdout.write(erasure.line() + "\n")
        else:
            sys.stderr.write(f"the payloads of {erasure.plan_id} are not erased: {NOT_DONE[found]}\n")
    return 0 if all(found.gone for _, found in done) else 1


if __name__ == "__main__":
    sys.exit(main())
