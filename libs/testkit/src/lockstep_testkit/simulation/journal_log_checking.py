"""I4 of the journal's log: one tree over all entries, every checkpoint signed and a beginning of it, and nothing old that is in none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from event_journal.log.auditing import LogAudit, LogEnd
from event_journal.log.records import StoredCheckpoint, StoredLeaf
from event_journal.log.tiles import TileId
from lockstep_kit.registry import Registry

#: Longest that an entry may wait for its checkpoint, also when the database was slow for a while.
PUBLISHED_SECONDS_MAX: Final = timedelta(seconds=15)


def findings(tables: Any, registry: Registry, now: datetime) -> Iterator[str]:
    """Everything about the log that does not hold, from the journal's committed tables and its clock."""
    entries = sorted(tables["journal_entry"].values(), key=lambda row: row["position"])
    (counter,), (tree,) = tables["journal_counter"].values(), tables["journal_tree"].values()
    checkpoints = sorted(tables["journal_checkpoint"].values(), key=lambda row: row["tree_size"])
    tiles = {TileId(*place): row["hashes"] for place, row in tables["journal_tile"].items()}
    leaves = [StoredLeaf(row["sequence"], row["position"], row["canonical_bytes"]) for row in entries]
    stored = [StoredCheckpoint(row["tree_size"], row["root_hash"], row["signed_note"], row["made_at"]) for row in checkpoints]
    size = tree["tree_size"]
    audit = LogAudit(LogEnd(counter["next_position"] - 1, size), registry)
    found = [
        *audit.begin(),
        *audit.read(size, leaves[:size], tiles, [each for each in stored if each.tree_size <= size]),
        *audit.rest(leaves[size:], last=True),
        *(wrong for each in stored if each.tree_size > size for wrong in audit.checkpoint(each, None)),
    ]
    yield from (f"I4: position {each.position} of the log: {each.rule}: {each.message}" for each in found)
    covered = stored[-1].tree_size if stored else 0
    late = [row["position"] for row in entries if row["position"] > covered and row["recorded_at"] < now - PUBLISHED_SECONDS_MAX]
    if late:
        yield f"I4: the entries from position {late[0]} on are in no checkpoint, {len(late)} of them for too long"
