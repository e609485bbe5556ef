"""What each client takes up: its open plans, and how many more it may create now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId
from lockstep_kit.rpc.buckets import Bucket

#: What clients have left, made where they had none; others that create plans as these clients wait for the transaction's end.
LOCK: Final = """
insert into client_quota (client, unspent, counted_at) select client, $2::double precision, $3::timestamptz from unnest($1::text[]) as client order by client
on conflict (client) do update set unspent = client_quota.unspent returning client, unspent, counted_at
"""

#: How many plans of each client are open, up to a number.
COUNT_OPEN: Final = """
select client, (select count(*) from (select from open_plan where open_plan.client = asked.client limit $2) as few) as plans
from unnest($1::text[]) as asked (client)
"""

#: Keeps what clients have left.
SPEND: Final = """
update client_quota set unspent = new.unspent, counted_at = new.counted_at
from unnest($1::text[], $2::double precision[], $3::timestamptz[]) as new (client, unspent, counted_at)
where client_quota.client = new.client
"""

#: Counts plans as their clients'; the database itself lets each go once it is CLOSED.
ADD_OPEN: Final = "insert into open_plan (plan_id, client) select * from unnest($1::text[], $2::text[])"


async def lock(tx: Connection, clients: Iterable[str], unspent: Bucket) -> dict[str, Bucket]:
    """What clients have left; `unspent` is what one has that never created a plan."""
    rows = await tx.fetch(LOCK, sorted(set(clients)), unspent.level, _time(unspent.at))
    return {row["client"]: Bucket(float(row["unspent"]), row["counted_at"].timestamp()) for row in rows}


async def count_open(tx: Connection, clients: Iterable[str], most: int) -> dict[str, int]:
    """Open plans of each client, up to `most`."""
    return {row["client"]: int(row["plans"]) for row in await tx.fetch(COUNT_OPEN, sorted(set(clients)), most)}


async def spend(tx: Connection, left: Mapping[str, Bucket]) -> None:
    """Keep what clients have left."""
    await tx.execute(SPEND, list(left), [each.level for each in left.values()], [_time(each.at) for each in left.values()])


async def add_open(tx: Connection, plans: Mapping[PlanId, str]) -> None:
    """Count plans as their clients', until each is closed."""
    await tx.execute(ADD_OPEN, list(plans), list(plans.values()))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
