"""Reports of participants that wait for the replica that holds their plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep_kit import leases
from lockstep_kit.db import Connection
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass

#: Keeps news of plans that another replica holds.
KEEP: Final = """
insert into leg_news (plan_id, leg_id, participant, revision, report)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])
    as new (plan_id, leg_id, participant, revision, report) order by plan_id, leg_id
on conflict (plan_id, leg_id) do update set revision = excluded.revision, report = excluded.report
where leg_news.revision < excluded.revision
"""

#: News of plans that this owner holds, or nobody any more.
WAITING: Final = f"""from leg_news as news
join lease on lease.resource_id = news.plan_id and (lease.owner = $1 or {leases.FREE})"""
READ: Final = f"""
select news.* {WAITING}
order by news.plan_id, news.leg_id limit $2
"""

#: Forgets news that their plans' holder heard by itself.
DROP_HEARD: Final = """
delete from leg_news using plan_leg
where plan_leg.plan_id = leg_news.plan_id and plan_leg.leg_id = leg_news.leg_id and plan_leg.revision >= leg_news.revision
"""

#: Forgets news that were taken.
DROP: Final = """
delete from leg_news using unnest($1::text[], $2::text[], $3::bigint[]) as taken (plan_id, leg_id, revision)
where leg_news.plan_id = taken.plan_id and leg_news.leg_id = taken.leg_id and leg_news.revision <= taken.revision
"""


@dataclass(frozen=True, slots=True)
class KeptNews:
    """A report that waits for the replica that holds its plan."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: Who reported.
    participant: str
    #: Its revision.
    revision: int
    #: The report as it was received.
    report: bytes


async def keep(tx: Connection, news: Sequence[KeptNews]) -> None:
    """Keep reports for the replica that holds their plans."""
    if news:
        await tx.execute(
            KEEP,
            [each.plan_id for each in news],
            [each.leg_id for each in news],
            [each.participant for each in news],
            [each.revision for each in news],
            [each.report for each in news],
        )


async def read(connection: Connection, owner: str, limit: int) -> list[KeptNews]:
    """Kept reports of plans that this owner holds, or nobody any more; what was heard otherwise meanwhile is forgotten."""
    await connection.execute(DROP_HEARD)
    rows = await connection.fetch(READ, owner, limit)
    return [
        KeptNews(PlanId(row["plan_id"]), LegId(row["leg_id"]), row["participant"], row["revision"], row["report"]) for row in rows
    ]


async def drop(tx: Connection, news: Sequence[KeptNews]) -> None:
    """Forget reports that were taken, unless newer ones came since."""
    if news:
        await tx.execute(
            DROP,
            [each.plan_id for each in news],
            [each.leg_id for each in news],
            [each.revision for each in news],
        )
