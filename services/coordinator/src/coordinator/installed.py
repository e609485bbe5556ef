"""What the coordinator tells of its installation: the generation, and what waits in its database."""

from __future__ import annotations

from typing import Final

from lockstep.installation.v1.installation_service_pb2 import CoordinatorState
from lockstep_kit.db import Database

#: What waits, and the generation that the database is at.
STATE: Final = """
select (select generation from installation) as generation,
    (select coalesce(sum(recorded - appended), 0) from journal_progress where appended < recorded and frozen = '') as unappended,
    (select count(*) from dead_letter where replayed_at is null) as dead_letters,
    (select count(*) from escalation where resolved_at is null) as escalations
"""


async def read_state(db: Database, generation: int) -> CoordinatorState:
    """What is told of a coordinator that was started with a generation."""
    async with db.connection() as connection:
        row = await connection.fetchrow(STATE)
    if row is None:
        raise AssertionError("a select without a table gives one row")
    return CoordinatorState(
        generation=generation,
        database_generation=row["generation"] or 0,
        unappended_count=int(row["unappended"]),
        dead_letter_count=row["dead_letters"],
        escalation_count=row["escalations"],
    )
