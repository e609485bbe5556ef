"""Every statement that reads the journal as a whole."""

from __future__ import annotations

from typing import Final

from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId

#: Plans with entries or a head, behind a place.
PLANS: Final = """
select plan_id from (
    (select plan_id from journal_chain where plan_id > $1 order by plan_id limit $2)
    union
    (select distinct plan_id from journal_entry where plan_id > $1 order by plan_id limit $2)
) as known order by plan_id limit $2
"""

#: Plans of which the journal has said that their chains stand, and which have none.
WITHOUT_CHAIN: Final = """
select distinct plan_id from participant_leg as leg
where phase in ('PREPARED', 'COMMITTED')
  and not exists (select from journal_entry as entry where entry.plan_id = leg.plan_id and entry.sequence = 1)
  and not exists (select from journal_chain as chain where chain.plan_id = leg.plan_id)
order by plan_id
"""


async def plans(tx: Connection, after: str, limit: int) -> list[PlanId]:
    """Plans with entries or a head, behind a place, in order."""
    return [PlanId(row["plan_id"]) for row in await tx.fetch(PLANS, after, limit)]


async def without_chain(tx: Connection) -> list[PlanId]:
    """Plans of which the journal has said that their chains stand, and which have neither entries nor head."""
    return [PlanId(row["plan_id"]) for row in await tx.fetch(WITHOUT_CHAIN)]
