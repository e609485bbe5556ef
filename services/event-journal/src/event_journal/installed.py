"""What the journal tells of its installation: how far its log and its checkpoints reach, and whether its key may sign."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from event_journal.log.store import STANDING
from event_journal.signing_keys import SigningKeys
from lockstep.installation.v1.installation_service_pb2 import JournalState
from lockstep_kit.convert import time_to_pb
from lockstep_kit.db import Database

#: When the entry at a place was stored.
STORED_AT: Final = "select recorded_at from journal_entry where position = $1"


async def read_state(db: Database, keys: SigningKeys) -> JournalState:
    """What is told of the journal now."""
    async with db.connection() as connection:
        row = await connection.fetchrow(STANDING)
        if row is None:
            raise AssertionError("a journal has a tree and a counter")
        covered = row["published"] or 0
        since: datetime | None = await connection.fetchval(STORED_AT, covered + 1)
    state = JournalState(entry_count=row["entry_count"], checkpoint_size=covered, key_counts=await keys.counts(db))
    if since is not None:
        state.uncovered_since.CopyFrom(time_to_pb(since))
    return state
