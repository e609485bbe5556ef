"""`python -m event_journal.keys`: the history of the journal's keys: begun, a key added, shown. Run as the database's owner.

    keys init   --owner-url URL --key-file FILE --not-after TIME
    keys rotate --owner-url URL --previous-key-file FILE --key-file FILE --not-after TIME
    keys show   --owner-url URL

A rotation: the new key goes into every registry; `rotate`; then the journal is started again with the new key. While both count, replicas may sign by either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg

from event_journal import key_store, store
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.key_history import HistoryFinding, KeyHistory, introduce
from lockstep_kit.owner_login import add_owner_arguments, owner_connection

#: A key counts from so long before it is added, unless it is told from when: an event that still waits to be appended is older than its signature.
OVERLAP: Final = timedelta(hours=1)


def moment(text: str) -> datetime:
    """A time with its offset.

    Raises:
        argparse.ArgumentTypeError: another form, or no offset.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError("must be an RFC 3339 time with an offset")
    return found.astimezone(UTC)


async def standing(connection: asyncpg.Connection[asyncpg.Record]) -> KeyHistory:
    """The history as it stands.

    Raises:
        FieldInvalid: it does not hold; nothing may be added to it.
    """
    found = await key_store.history(connection)
    if isinstance(found, HistoryFinding):
        raise FieldInvalid("journal_key", f"must be a history that holds: statement {found.number}: {found.rule}: {found.message}")
    return found


async def add(told: argparse.Namespace) -> None:
    """Add a key, in one transaction.

    Raises:
        FieldInvalid: a file, a time or the history breaks a rule; nothing was changed.
    """
    key = read_signing_key(told.key_file)
    before = read_signing_key(told.previous_key_file) if told.verb == "rotate" else None
    async with owner_connection(told) as connection, connection.transaction():
        await connection.execute(key_store.LOCK_KEYS)
        history = await standing(connection)
        if (before is None) != (not history.keys):
            raise FieldInvalid(told.verb, f"must be {'rotate: there is' if history.keys else 'init: there is no'} history")
        not_before = told.not_before or await connection.fetchval(store.NOW) - OVERLAP
        if history.keys:
            not_before = max(not_before, history.keys[-1].not_before)
        signed = introduce(history, key, not_before, told.not_after, before)
        await key_store.add(connection, len(history.keys) + 1, signed)


async def show(told: argparse.Namespace) -> list[str]:
    """A line for each key; none where no history is kept.

    Raises:
        FieldInvalid: the history does not hold.
    """
    async with owner_connection(told) as connection:
        history = await standing(connection)
    return [
        json.dumps(
            {
                "number": number,
                "key_id": key.public.key_id,
                "public_key": key.public.octets.hex(),
                "not_before": key.not_before.isoformat(),
                "not_after": key.not_after.isoformat(),
            }
        )
        for number, key in enumerate(history.keys, start=1)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; the history is printed in the end. 1 where a rule is broken."""
    parser = argparse.ArgumentParser(
        prog="event_journal.keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("init", "rotate", "show"):
        own = verbs.add_parser(verb)
        add_owner_arguments(own)
        if verb != "show":
            own.add_argument("--key-file", type=Path, required=True, help="the new key, PKCS8 PEM, mode 0600")
            own.add_argument("--not-before", type=moment, help="from when its signatures count; absent: from an hour ago")
            own.add_argument("--not-after", type=moment, required=True, help="until when")
        if verb == "rotate":
            own.add_argument(
                "--previous-key-file", type=Path, required=True, help="the newest key of the history, which hands over"
            )
    told = parser.parse_args(argv)
    try:
        if told.verb != "show":
            asyncio.run(add(told))
        lines = asyncio.run(show(told))
    except FieldInvalid as finding:
        sys.stderr.write(f"{finding}\n")
        return 1
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
