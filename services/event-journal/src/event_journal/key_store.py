"""Every statement on the history of the journal's keys. The service's role may read it; its owner adds to it."""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeAlias

import asyncpg

from event_journal.chain import JOURNAL_ACTOR
from lockstep_kit.db import Connection
from lockstep_kit.ids import KeyId
from lockstep_kit.key_history import HistoryFinding, KeyHistory, SignedKey, verify
from lockstep_kit.signing import Signature
from lockstep_kit.values import dataclass

#: The history.
KEY_HISTORY: Final = "select number, key_id, statement, previous_signature, own_signature from journal_key order by number"

#: By which one sees that no row of the history is another than before; and the database's clock.
STANDING: Final = """
select clock_timestamp() as moment, sha256(coalesce((
    select string_agg(int8send(number) || convert_to(key_id, 'UTF8') || sha256(statement)
        || coalesce(previous_signature, '') || own_signature, ''::bytea order by number)
    from journal_key
), '')) as mark
"""

#: Nobody else adds to the history until the transaction ends.
LOCK_KEYS: Final = "lock table journal_key in exclusive mode"

#: Adds a key.
INSERT_KEY: Final = """
insert into journal_key (number, key_id, statement, previous_signature, own_signature) values ($1, $2, $3, $4, $5)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Which history there is, and when that was."""

    #: A digest of its rows.
    mark: bytes
    #: By the database's clock.
    moment: datetime


AnyConnection: TypeAlias = "Connection | asyncpg.Connection[asyncpg.Record]"


async def statements(connection: AnyConnection) -> list[SignedKey]:
    """The history as it is stored; empty where none is kept."""
    found: list[SignedKey] = []
    before: KeyId | None = None
    for row in await connection.fetch(KEY_HISTORY):
        own = Signature(KeyId(row["key_id"]), row["own_signature"])
        handed = (Signature(before, row["previous_signature"]),) if before is not None else ()
        found.append(SignedKey(row["statement"], (*handed, own)))
        before = own.key_id
    return found


async def history(connection: AnyConnection) -> KeyHistory | HistoryFinding:
    """The history, verified; without keys where none is kept."""
    return verify(await statements(connection), JOURNAL_ACTOR)


async def standing(connection: AnyConnection) -> Standing:
    """How the history stands now."""
    row = await connection.fetchrow(STANDING)
    if row is None:
        raise AssertionError("a select without a table has one row")
    return Standing(row["mark"], row["moment"])


async def add(tx: AnyConnection, number: int, signed: SignedKey) -> None:
    """Add a key at its place."""
    handed = signed.signatures[0].octets if len(signed.signatures) > 1 else None
    own = signed.signatures[-1]
    await tx.execute(INSERT_KEY, number, own.key_id, signed.statement, handed, own.octets)
