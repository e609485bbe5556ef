"""What each client takes up: its open plans, and how many more it may create now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId
from lockstep_kit.rpc.buckets import Bucket

#: What a client has left, made where it had none; others that create plans as this client wait for the transaction's end.
LOCK: Final = """
insert into client_quota (client, unspent, counted_at) values ($1, $2, $3)
on conflict (client) do update set unspent = client_quota.unspent returning unspent, counted_at
"""

#: How many plans of a client are open, up to a number.
COUNT_OPEN: Final = "select count(*) as plans from (select from open_plan where client = $1 limit $2) as few"

#: Keeps what a client has left.
SPEND: Final = "update client_quota set unspent = $2, counted_at = $3 where client = $1"

#: Counts a plan as its client's; the database itself lets it go once the plan is CLOSED.
ADD_OPEN: Final = "insert into open_plan (plan_id, client) values ($1, $2)"


async def lock(tx: Connection, client: str, unspent: Bucket) -> Bucket:
    """What a client has left; `unspent` is what one has that never created a plan."""
    row = await tx.fetchrow(LOCK, client, unspent.level, _time(unspent.at))
    if row is None:
        raise AssertionError("a client has a row now")
    return Bucket(float(row["unspent"]), row["counted_at"].timestamp())


async def count_open(tx: Connection, client: str, most: int) -> int:
    """Open plans of a client, up to `most`."""
    return int(await tx.fetchval(COUNT_OPEN, client, most))


async def spend(tx: Connection, client: str, left: Bucket) -> None:
    """Keep what a client has left."""
    await tx.execute(SPEND, client, left.level, _time(left.at))


async def add_open(tx: Connection, plan_id: PlanId, client: str) -> None:
    """Count a plan as its client's, until it is closed."""
    await tx.execute(ADD_OPEN, plan_id, client)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
