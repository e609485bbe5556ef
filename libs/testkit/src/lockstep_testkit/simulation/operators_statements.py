"""Twins of the coordinator's statements about escalations and what operators sign."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from coordinator.store import operators
from lockstep_testkit.simulation.memory import Registry, Rows, Statement
from lockstep_testkit.simulation.specs import among, columns, inserted

STATEMENTS: Final = Registry()


@STATEMENTS.on(operators.INSERT_TICKETS)
async def insert_tickets(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(inserted(operators.INSERT_TICKETS), values):
        await s.insert("escalation", row)
    return []


@STATEMENTS.on(operators.CLOSE_TICKETS)
async def close_tickets(s: Statement, escalation_ids: Sequence[str], digests: Sequence[bytes], resolved_at: datetime) -> Rows:
    for escalation_id, digest in zip(escalation_ids, digests, strict=True):
        row = await s.lock("escalation", escalation_id)
        if row is not None:
            s.update("escalation", row, resolved_at=resolved_at, resolution_digest=digest)
    return []


@STATEMENTS.on(operators.PLAN_OF)
def plan_of(s: Statement, escalation_id: str) -> Rows:
    row = s.get("escalation", escalation_id)
    return [] if row is None else [{"plan_id": row["plan_id"]}]


@STATEMENTS.on(operators.PAGE)
def page(
    s: Statement, moment: datetime | None, escalation_id: str, is_open: bool | None, plan_id: str, reason: str, limit: int
) -> Rows:
    rows = [
        row
        for row in s.all("escalation")
        if (moment is None or (row["raised_at"], row["escalation_id"]) < (moment, escalation_id))
        and (is_open is None or (row["resolved_at"] is None) == is_open)
        and plan_id in ("", row["plan_id"])
        and reason in ("", row["reason"])
    ]
    return sorted(rows, key=lambda row: (row["raised_at"], row["escalation_id"]), reverse=True)[:limit]


@STATEMENTS.on(operators.READ_UNWINDS)
def read_unwinds(s: Statement, plan_ids: Sequence[str]) -> Rows:
    rows = [row for row in among(s, "resolution", plan_ids) if row["verb"] == "REVERSE"]
    last = {row["plan_id"]: row for row in sorted(rows, key=lambda row: row["effective_at"])}
    return [last[each] for each in sorted(last)]


@STATEMENTS.on(operators.INSERT_SIGNATURE)
async def insert_signature(s: Statement, *values: Any) -> Rows:
    await s.insert("resolution_signature", dict(zip(inserted(operators.INSERT_SIGNATURE), values, strict=True)))
    return []


@STATEMENTS.on(operators.READ_SIGNATURES)
def read_signatures(s: Statement, escalation_ids: Sequence[str]) -> Rows:
    wanted = set(escalation_ids)
    rows = [row for row in s.all("resolution_signature") if row["escalation_id"] in wanted]
    return sorted(rows, key=lambda row: (row["escalation_id"], row["signed_at"]))


@STATEMENTS.on(operators.INSERT_RESOLUTION)
async def insert_resolution(s: Statement, *values: Any) -> Rows:
    await s.insert("resolution", dict(zip(inserted(operators.INSERT_RESOLUTION), values, strict=True)))
    return []


@STATEMENTS.on(operators.READ_EFFECTS)
def read_effects(s: Statement, escalation_ids: Sequence[str]) -> Rows:
    wanted = set(escalation_ids)
    return [row for row in s.all("resolution") if row["escalation_id"] in wanted]


@STATEMENTS.on(operators.AT_RISK)
def at_risk(s: Statement, after: str, limit: int) -> Rows:
    troubled = {row["plan_id"] for row in s.all("escalation") if row["resolved_at"] is None}
    moving = ("EXECUTING", "ABORTED", "PARTIALLY_EXECUTED", "UNWIND_PENDING")
    names = [row["plan_id"] for row in s.all("plan") if row["state"] in moving or row["plan_id"] in troubled]
    return [{"plan_id": each} for each in sorted(names) if each > after][:limit]
