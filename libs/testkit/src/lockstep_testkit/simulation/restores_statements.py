"""Twins of the coordinator's statements about databases that were put back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from coordinator.store import restores
from lockstep_testkit.simulation.memory import INFINITY, LONG_AGO, Registry, Row, Rows, Statement
from lockstep_testkit.simulation.specs import among, columns, listed

STATEMENTS: Final = Registry()


def _open(s: Statement) -> list[str]:
    return sorted(row["plan_id"] for row in s.all("plan") if row["state"] != "CLOSED")


@STATEMENTS.on(restores.LOCK_GENERATION)
async def lock_generation(s: Statement) -> Rows:
    return [{"generation": row["generation"]} for row in await s.locking("installation", s.all("installation"))]


@STATEMENTS.on(restores.READ_GENERATION)
def read_generation(s: Statement) -> Rows:
    return [{"generation": row["generation"]} for row in s.all("installation")]


@STATEMENTS.on(restores.RAISE_GENERATION)
async def raise_generation(s: Statement, generation: int) -> Rows:
    for row in await s.locking("installation", s.all("installation")):
        s.update("installation", row, generation=generation)
    return []


@STATEMENTS.on(restores.MARK_PLANS)
async def mark_plans(s: Statement, generation: int) -> Rows:
    for plan_id in _open(s):
        if await s.insert_new("plan_restore", {"plan_id": plan_id, "generation": generation, "finding": ""}) is None:
            s.update("plan_restore", s.get("plan_restore", plan_id) or {}, generation=generation)
    return []


@STATEMENTS.on(restores.HOLD_PLANS)
async def hold_plans(s: Statement, generation: int, owner: str) -> Rows:
    for plan_id in _open(s):
        held: Row = {"resource_id": plan_id, "owner": owner, "generation": generation, "counter": 1, "expires_at": INFINITY}
        if await s.insert_new("lease", held) is None:
            s.update("lease", s.get("lease", plan_id) or {}, **held)
    return []


@STATEMENTS.on(restores.RENEW_CHANGES)
async def renew_changes(s: Statement) -> Rows:
    row = await s.lock("plan_event_counter", True) or {}
    s.update("plan_event_counter", row, incarnation=s.server.draw("incarnation"))
    return []


@STATEMENTS.on(restores.SWEEP)
async def sweep(s: Statement, participants: Sequence[str]) -> Rows:
    for name in participants:
        if await s.insert_new("sweep", {"participant": name, "number": 1, "page_token": ""}) is None:
            row = s.get("sweep", name) or {}
            s.update("sweep", row, number=row["number"] + 1, page_token="")
    return []


@STATEMENTS.on(restores.SWEEPS)
def sweeps(s: Statement) -> Rows:
    return sorted(s.all("sweep"), key=lambda row: row["participant"])


async def _swept(s: Statement, participant: str, number: int) -> Row | None:
    row = await s.lock("sweep", participant)
    return row if row is not None and row["number"] == number else None


@STATEMENTS.on(restores.SWEPT)
async def swept(s: Statement, participant: str, number: int, token: str) -> Rows:
    row = await _swept(s, participant, number)
    return [] if row is None else [{"participant": s.update("sweep", row, page_token=token)["participant"]}]


@STATEMENTS.on(restores.END_SWEEP)
async def end_sweep(s: Statement, participant: str, number: int) -> Rows:
    row = await _swept(s, participant, number)
    if row is None:
        return []
    s.delete("sweep", row)
    return [{"participant": participant}]


@STATEMENTS.on(restores.LIST_LEGS)
async def list_legs(s: Statement, participant: str, *values: Sequence[Any]) -> Rows:
    for new in columns(listed(restores.LIST_LEGS), values):
        if await s.insert_new("listed_leg", {"participant": participant, **new}) is None:
            row = s.get("listed_leg", participant, new["plan_id"], new["leg_id"]) or {}
            s.update("listed_leg", row, revision=new["revision"], phase=new["phase"])
    return []


@STATEMENTS.on(restores.FORGET_LISTED)
async def forget_listed(s: Statement, participant: str) -> Rows:
    for row in await s.locking("listed_leg", [row for row in s.all("listed_leg") if row["participant"] == participant]):
        s.delete("listed_leg", row)
    return []


async def _keep_orphan(s: Statement, row: Row, participant: str) -> None:
    found = {name: row[name] for name in ("plan_id", "leg_id", "phase")}
    await s.insert_new("orphan_leg", {**found, "participant": participant, "amount": "", "finding": ""})


@STATEMENTS.on(restores.LISTED_ORPHANS)
async def listed_orphans(s: Statement, participant: str) -> Rows:
    rows = [row for row in s.all("listed_leg") if row["participant"] == participant and s.get("plan", row["plan_id"]) is None]
    for row in sorted(rows, key=lambda row: (row["plan_id"], row["leg_id"])):
        await _keep_orphan(s, row, participant)
    return []


def _kept(s: Statement, leg: Row) -> int:
    """Revision of the report about the leg that is kept; 0: none is."""
    row = s.get("leg_news", leg["plan_id"], leg["leg_id"])
    return 0 if row is None else int(row["revision"])


def _forgotten(s: Statement, leg: Row) -> bool:
    """Whether the leg's participant may know less of it than was heard."""
    row = s.get("listed_leg", leg["participant"], leg["plan_id"], leg["leg_id"])
    listed, kept = (0 if row is None else row["revision"]), _kept(s, leg)
    if leg["revision"] > listed or (kept and kept >= listed):
        return True
    if row is None:
        return False
    final = row["phase"] in ("REFUSED", "COMMITTED", "RELEASED", "REVERSED")
    return leg["phase"] != row["phase"] and (leg["revision"] == row["revision"] or not final)


@STATEMENTS.on(restores.BEHIND)
def behind(s: Statement, participant: str, plan_id: str, leg_id: str, limit: int) -> Rows:
    found: Rows = []
    for leg in s.all("plan_leg"):
        place, lease = (leg["plan_id"], leg["leg_id"]), s.get("lease", leg["plan_id"])
        if leg["participant"] == participant and lease is not None and _forgotten(s, leg) and place > (plan_id, leg_id):
            heard = max(leg["revision"], _kept(s, leg))
            found.append({**leg, "revision": heard, "generation": lease["generation"], "counter": lease["counter"]})
    return sorted(found, key=lambda row: (row["plan_id"], row["leg_id"]))[:limit]


@STATEMENTS.on(restores.REVIVE)
async def revive(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str]) -> Rows:
    for plan_id, leg_id in zip(plan_ids, leg_ids, strict=True):
        leg = s.get("plan_leg", plan_id, leg_id)
        if leg is None or leg["last_order"] == "PREPARE":
            continue
        row = await s.lock("leg_command", plan_id, leg_id, leg["last_order"])
        if row is not None:
            s.update("leg_command", row, answered=False, due_at=s.now)
    return []


@STATEMENTS.on(restores.REFILL)
async def refill(s: Statement, participant: str) -> Rows:
    still_open = set(_open(s))
    wanted = {row["plan_id"] for row in s.all("journal_progress") if row["plan_id"] in still_open and not row["frozen"]}
    wanted |= {leg["plan_id"] for leg in s.all("plan_leg") if leg["participant"] == participant and _forgotten(s, leg)}
    for plan_id in sorted(wanted):
        await s.insert_new("journal_refill", {"plan_id": plan_id})
    return []


def _not_closed(s: Statement, attempts: int) -> list[str]:
    """Plans whose chains the journal was told to close so often, and does not."""

    def waits(row: Row) -> bool:
        leg = s.get("plan_leg", row["plan_id"], row["leg_id"])
        told = row["behind_journal"] and not row["answered"] and row["attempts"] >= attempts
        return bool(told and leg is not None and leg["phase"] in ("COMMITTING", "ABORTING"))

    return sorted(row["plan_id"] for row in s.all("leg_command") if waits(row))


@STATEMENTS.on(restores.REFILL_WAITING)
async def refill_waiting(s: Statement, attempts: int) -> Rows:
    for plan_id in _not_closed(s, attempts):
        await s.insert_new("journal_refill", {"plan_id": plan_id})
    return []


@STATEMENTS.on(restores.ANYTHING)
def anything(s: Statement, attempts: int) -> Rows:
    kept = any(s.all(table) for table in ("plan_restore", "sweep", "journal_refill"))
    return [{"exists": bool(kept or orphans(s, "", 1) or _not_closed(s, attempts))}]


@STATEMENTS.on(restores.TO_REFILL)
def to_refill(s: Statement, limit: int) -> Rows:
    return sorted(s.all("journal_refill"), key=lambda row: row["plan_id"])[:limit]


async def _drop(s: Statement, table: str, plan_id: str) -> Rows:
    row = await s.lock(table, plan_id)
    if row is not None:
        s.delete(table, row)
    return []


@STATEMENTS.on(restores.REFILLED)
async def refilled(s: Statement, plan_id: str) -> Rows:
    return await _drop(s, "journal_refill", plan_id)


@STATEMENTS.on(restores.UNRESTORED)
def unrestored(s: Statement, after: str, limit: int) -> Rows:
    return sorted((row for row in s.all("plan_restore") if row["plan_id"] > after), key=lambda row: row["plan_id"])[:limit]


@STATEMENTS.on(restores.LOCK_RESTORE)
async def lock_restore(s: Statement, plan_id: str, generation: int) -> Rows:
    row = s.get("plan_restore", plan_id)
    if row is None or row["generation"] != generation or s.server.locked(s.tx, ("plan_restore", (plan_id,))):
        return []
    return [{"plan_id": found["plan_id"]} for found in await s.locking("plan_restore", [row])]


@STATEMENTS.on(restores.NOTE_FINDING)
async def note_finding(s: Statement, plan_id: str, finding: str) -> Rows:
    row = await s.lock("plan_restore", plan_id)
    if row is None or row["finding"] == finding:
        return []
    return [{"plan_id": s.update("plan_restore", row, finding=finding)["plan_id"]}]


@STATEMENTS.on(restores.END_RESTORE)
async def end_restore(s: Statement, plan_id: str) -> Rows:
    return await _drop(s, "plan_restore", plan_id)


@STATEMENTS.on(restores.FREE)
async def free(s: Statement, plan_id: str, owner: str) -> Rows:
    row = await s.lock("lease", plan_id)
    if row is not None and row["owner"] == owner:
        s.update("lease", row, expires_at=LONG_AGO)
    return []


@STATEMENTS.on(restores.END_COMMANDS)
async def end_commands(s: Statement, plan_id: str, sealing: bool) -> Rows:
    def fits(row: Row) -> bool:
        return row["plan_id"] == plan_id and not row["answered"] and not (row["behind_journal"] and sealing)

    for row in await s.locking("leg_command", [row for row in s.all("leg_command") if fits(row)], fits):
        s.update("leg_command", row, answered=True)
    return []


@STATEMENTS.on(restores.KEEP_ORPHANS)
async def keep_orphans(s: Statement, participant: str, *values: Sequence[Any]) -> Rows:
    for row in sorted(columns(listed(restores.KEEP_ORPHANS), values), key=lambda row: (row["plan_id"], row["leg_id"])):
        await _keep_orphan(s, row, participant)
    return []


@STATEMENTS.on(restores.ORPHANS)
def orphans(s: Statement, after: str, limit: int) -> Rows:
    names = {row["plan_id"] for row in s.all("orphan_leg") if row["settled_at"] is None and row["plan_id"] > after}
    return [{"plan_id": each} for each in sorted(names)[:limit]]


@STATEMENTS.on(restores.ORPHAN_LEGS)
def orphan_legs(s: Statement, plan_id: str) -> Rows:
    return sorted(among(s, "orphan_leg", [plan_id]), key=lambda row: row["leg_id"])


@STATEMENTS.on(restores.NOTE_ORPHAN)
async def note_orphan(
    s: Statement, plan_id: str, leg_id: str, phase: str, deadline: datetime, amount: str, finding: str, settled: bool
) -> Rows:
    row = await s.lock("orphan_leg", plan_id, leg_id)
    if row is not None:
        settled_at = (row["settled_at"] or s.now) if settled else None
        s.update("orphan_leg", row, phase=phase, deadline=deadline, amount=amount, finding=finding, settled_at=settled_at)
    return []
