"""Twins of the coordinator's statements about what clients take up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from coordinator.store import quotas
from lockstep_testkit.simulation.memory import Registry, Rows, Statement
from lockstep_testkit.simulation.specs import columns, inserted, listed

STATEMENTS: Final = Registry()


@STATEMENTS.on(quotas.LOCK)
async def lock(s: Statement, clients: Sequence[str], unspent: float, counted_at: datetime) -> Rows:
    found: Rows = []
    for client in sorted(clients):
        made = await s.insert_new("client_quota", {"client": client, "unspent": unspent, "counted_at": counted_at})
        row = made if made is not None else await s.lock("client_quota", client)
        if row is not None:
            found.append(row)
    return found


@STATEMENTS.on(quotas.COUNT_OPEN)
def count_open(s: Statement, clients: Sequence[str], most: int) -> Rows:
    # The database lets a plan go as it is closed.
    closed = {row["plan_id"] for row in s.all("plan") if row["state"] == "CLOSED"}
    opened = Counter(row["client"] for row in s.all("open_plan") if row["plan_id"] not in closed)
    return [{"client": each, "plans": min(opened[each], most)} for each in clients]


@STATEMENTS.on(quotas.SPEND)
async def spend(s: Statement, *values: Sequence[Any]) -> Rows:
    for new in columns(listed(quotas.SPEND), values):
        row = await s.lock("client_quota", new["client"])
        if row is not None:
            s.update("client_quota", row, unspent=new["unspent"], counted_at=new["counted_at"])
    return []


@STATEMENTS.on(quotas.ADD_OPEN)
async def add_open(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(inserted(quotas.ADD_OPEN), values):
        await s.insert("open_plan", row)
    return []
