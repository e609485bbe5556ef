"""Twins of the coordinator's statements about abort audit logs and notices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from coordinator.store import audits, notices
from lockstep_testkit.simulation.leases_statements import free
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement
from lockstep_testkit.simulation.specs import among, columns, inserted, listed

STATEMENTS: Final = Registry()


@STATEMENTS.on(audits.EARLIER)
def earlier(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "audit_log", plan_ids), key=lambda row: (row["plan_id"], row["ordinal"]))


@STATEMENTS.on(audits.TRANSITIONS)
def transitions(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "plan_transition", plan_ids), key=lambda row: (row["plan_id"], row["transition_no"]))


@STATEMENTS.on(audits.COMMANDS)
def commands(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "leg_command", plan_ids), key=lambda row: (row["plan_id"], row["given_at"]))


@STATEMENTS.on(audits.EVENTS)
def events(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "plan_event", plan_ids), key=lambda row: row["sequence"])


@STATEMENTS.on(audits.RESOLUTIONS)
def resolutions(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "resolution", plan_ids), key=lambda row: (row["plan_id"], row["effective_at"]))


@STATEMENTS.on(audits.INSERT)
async def insert_logs(s: Statement, *values: Any) -> Rows:
    *lists, written_at = values
    for row in columns(listed(audits.INSERT), lists):
        ordinal = 1 + len(among(s, "audit_log", [row["plan_id"]]))
        await s.insert("audit_log", {**row, "ordinal": ordinal, "written_at": written_at})
    return []


@STATEMENTS.on(audits.PENDING)
def pending(s: Statement, owner: str, limit: int) -> Rows:
    now = s.now
    found: Rows = []
    for plan in s.all("plan"):
        if plan["auditing_since"] is None:
            continue
        held = s.get("lease", plan["plan_id"])
        logs = among(s, "audit_log", [plan["plan_id"]])
        if logs and held is not None and (held["owner"] == owner or free(held, now)):
            last = max(logs, key=lambda row: row["ordinal"])
            found.append({**last, "auditing_since": plan["auditing_since"], "traceparent": plan["traceparent"]})
    return sorted(found, key=lambda row: row["plan_id"])[:limit]


@STATEMENTS.on(audits.LOGS)
def logs(s: Statement, plan_id: str) -> Rows:
    return sorted(among(s, "audit_log", [plan_id]), key=lambda row: row["ordinal"])


# -- notices -------------------------------------------------------------------------------------------------------------


@STATEMENTS.on(notices.INSERT)
async def insert_notices(s: Statement, *values: Sequence[Any]) -> Rows:
    rows = columns(inserted(notices.INSERT), values)
    return [{"notice_id": row["notice_id"]} for row in rows if await s.insert_new("notice", row) is not None]


@STATEMENTS.on(notices.STRAY)
async def stray(s: Statement, webhooks: Sequence[str], age: timedelta) -> Rows:
    before = s.now - age

    def left(row: Row) -> bool:
        return row["done_at"] is None and row["destination"] not in webhooks and row["created_at"] < before

    rows = await s.locking("notice_outbox", [row for row in s.all("notice_outbox") if left(row)], left)
    return [s.update("notice_outbox", row, done_at=s.now) for row in rows]


@STATEMENTS.on(notices.BURY)
async def bury(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(listed(notices.BURY), values):
        place = (row["notice_id"], row["webhook"])
        if any(
            (each["notice_id"], each["webhook"]) == place and each["replayed_at"] is None for each in s.all("notice_dead_letter")
        ):
            continue
        await s.insert("notice_dead_letter", {**row, "dead_letter_id": s.server.draw("notice_dead_letter"), "dead_at": s.now})
    return []


def _told(s: Statement, row: Row) -> Row:
    notice = s.get("notice", row["notice_id"]) or {}
    return {**row, "plan_id": notice["plan_id"]}


@STATEMENTS.on(notices.PAGE)
def page(s: Statement, moment: datetime | None, letter_id: str, replayed: bool, limit: int) -> Rows:
    rows = [
        _told(s, row)
        for row in s.all("notice_dead_letter")
        if (moment is None or (row["dead_at"], row["dead_letter_id"]) < (moment, letter_id))
        and (replayed or row["replayed_at"] is None)
    ]
    return sorted(rows, key=lambda row: (row["dead_at"], row["dead_letter_id"]), reverse=True)[:limit]


@STATEMENTS.on(notices.ONE)
def one(s: Statement, letter_id: str) -> Rows:
    row = s.get("notice_dead_letter", letter_id)
    return [] if row is None else [_told(s, row)]


@STATEMENTS.on(notices.REPLAYED)
async def replayed_letter(s: Statement, letter_id: str, who: str) -> Rows:
    row = await s.lock("notice_dead_letter", letter_id)
    if row is None or row["replayed_at"] is not None:
        return []
    s.update("notice_dead_letter", row, replayed_at=s.now, replayed_by=who)
    notice = s.get("notice", row["notice_id"]) or {}
    plan = s.get("plan", notice["plan_id"]) or {}
    return [
        {"notice_id": row["notice_id"], "webhook": row["webhook"], "event": notice["event"], "traceparent": plan["traceparent"]}
    ]
