"""Twins of the coordinator's statements about what clients take up."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from coordinator.store import quotas
from lockstep_testkit.simulation.memory import Registry, Rows, Statement

STATEMENTS: Final = Registry()


@STATEMENTS.on(quotas.LOCK)
async def lock(s: Statement, client: str, unspent: float, counted_at: datetime) -> Rows:
    made = await s.insert_new("client_quota", {"client": client, "unspent": unspent, "counted_at": counted_at})
    row = made if made is not None else await s.lock("client_quota", client)
    return [] if row is None else [row]


@STATEMENTS.on(quotas.COUNT_OPEN)
def count_open(s: Statement, client: str, most: int) -> Rows:
    # The database lets a plan go as it is closed.
    closed = {row["plan_id"] for row in s.all("plan") if row["state"] == "CLOSED"}
    found = [row for row in s.all("open_plan") if row["client"] == client and row["plan_id"] not in closed]
    return [{"plans": min(len(found), most)}]


@STATEMENTS.on(quotas.SPEND)
async def spend(s: Statement, client: str, unspent: float, counted_at: datetime) -> Rows:
    row = await s.lock("client_quota", client)
    if row is not None:
        s.update("client_quota", row, unspent=unspent, counted_at=counted_at)
    return []


@STATEMENTS.on(quotas.ADD_OPEN)
async def add_open(s: Statement, plan_id: str, client: str) -> Rows:
    await s.insert("open_plan", {"plan_id": plan_id, "client": client})
    return []
