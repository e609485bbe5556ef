"""What makes the log grow does not cost more as it grows: it reads what is new, and the newest of what there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from log_world import Log

from event_journal.log import reading, store
from event_journal.metrics import LOG
from lockstep_kit.db import Database
from lockstep_testkit.databases import TestDatabase

GROWN: Final = 20_000
ENTRIES: Final = f"""
insert into journal_entry (plan_id, sequence, position, event_id, type, actor, actor_role, event_time, payload, previous_hash, entry_hash,
    canonical_bytes, key_id, signature)
select 'plan-' || n / 15, n % 15 + 1, n, '', 'leg.prepared', 'alice', 'maker', now(), '', sha256('p'),
    sha256(n::text::bytea), n::text::bytea, 'key', sha512('s')
from generate_series(1, {GROWN + 1}) as n
"""
CHECKPOINTS: Final = f"""
insert into journal_checkpoint (tree_size, root_hash, signed_note, made_at)
select n, sha256(n::text::bytea), 'note', now() from generate_series(1, {GROWN}) as n
"""
#: Rows of log and checkpoints that one statement may read for the one entry that no checkpoint covers yet.
ROWS_MAX: Final = 4
READ: Final = """
select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables where relname in ('journal_entry', 'journal_checkpoint')
"""
LOOKS: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "standing": (store.STANDING, ()),
    "leaves": (store.NEXT_LEAVES, (GROWN, 100)),
    "published": (store.INSERT_CHECKPOINT, (GROWN + 1, bytes(32), b"note", datetime(2026, 11, 21, tzinfo=UTC))),
    "newest": (reading.NEWEST_CHECKPOINT, ()),
    "end": (reading.END, ()),
    "metrics": (LOG.statement, ()),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_the_log_grows_without_reading_itself(database_for: Callable[..., Awaitable[TestDatabase]], look: str) -> None:
    """Over 20,000 entries and as many checkpoints, as the service's own connections plan it; what triggers read counts, too."""
    statement, values = LOOKS[look]
    database = await database_for("event_journal")
    db = await Database.connect(database.settings, application_name="event-journal")
    try:
        grown = f"update journal_tree set tree_size = {GROWN + 1}", f"update journal_counter set next_position = {GROWN + 2}"
        await Log(db, database).tamper(ENTRIES, CHECKPOINTS, *grown)
        async with database.as_owner() as owner:
            await owner.execute("analyze journal_entry, journal_checkpoint")
        async with db.transaction() as tx:
            before = await tx.fetchval(READ)
            await tx.fetch(statement, *values)
            assert await tx.fetchval(READ) - before <= ROWS_MAX
    finally:
        await db.close()
