"""Every statement that the gateway runs on its ledger. What writes is a function of the database; the tables are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from bank_gateway.ledger.rules import Entry, EntryKind
from lockstep_kit.db import Connection

#: Posts entries, all or none; what was posted before is told by its sequence and not repeated.
POST: Final = "select place, sequence, posted from ledger_post($1, $2, $3, $4, $5, $6, $7) order by place"

#: Which of the amounts the lines' limits deny, by their places from 1; what the others draw is kept free until the end of the transaction.
DENIED: Final = "select place from ledger_denied($1, $2, $3) order by place"

#: Entries about some payments, in their order.
OF_PAYMENTS: Final = """
select ledger, reference, kind, uetr, debit, credit, amount from ledger_entry where uetr = any($1) order by ledger, sequence
"""


async def post(tx: Connection, entries: Sequence[Entry]) -> list[tuple[int, bool]]:
    """Post entries in the caller's transaction, as one: of each its sequence, and whether it is new. To be called last, once for each transaction.

    Raises:
        asyncpg.UniqueViolationError: a reference is that of another entry; nothing is posted.
        asyncpg.CheckViolationError: an account would be drawn beyond what it may be; nothing is posted.
    """
    if not entries:
        return []
    rows = await tx.fetch(
        POST,
        [each.ledger for each in entries],
        [each.reference for each in entries],
        [each.kind.value for each in entries],
        [each.uetr for each in entries],
        [each.debit for each in entries],
        [each.credit for each in entries],
        [each.amount for each in entries],
    )
    return [(row["sequence"], row["posted"]) for row in rows]


async def denied(tx: Connection, drawn: Sequence[Entry]) -> set[str]:
    """References of the entries that would draw more than their lines allow, taken in their order; the lines are kept until the transaction ends."""
    if not drawn:
        return set()
    rows = await tx.fetch(DENIED, [each.ledger for each in drawn], [each.debit for each in drawn], [each.amount for each in drawn])
    return {drawn[row["place"] - 1].reference for row in rows}


async def histories(tx: Connection, uetrs: Sequence[str]) -> dict[str, list[Entry]]:
    """Entries about payments, by UETR, in their order."""
    found: dict[str, list[Entry]] = {uetr: [] for uetr in uetrs}
    for row in await tx.fetch(OF_PAYMENTS, list(found)) if found else ():
        found[row["uetr"]].append(entry_of(row))
    return found


def entry_of(row: asyncpg.Record) -> Entry:
    """An entry from its row."""
    return Entry(row["ledger"], row["reference"], EntryKind(row["kind"]), row["uetr"], row["debit"], row["credit"], row["amount"])
