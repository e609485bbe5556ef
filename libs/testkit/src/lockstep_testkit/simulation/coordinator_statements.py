"""Twins of the coordinator's statements about plans: accepting, reading, saving, listing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from coordinator.store import plans, reading
from lockstep_testkit.simulation.leases_statements import free, locked_held
from lockstep_testkit.simulation.memory import INFINITY, LONG_AGO, Registry, Row, Rows, Statement
from lockstep_testkit.simulation.outboxes_statements import take_news
from lockstep_testkit.simulation.specs import among

STATEMENTS: Final = Registry()

_PLAN: Final = lambda row: row["plan_id"]  # noqa: E731 - a key of sorting
_IN_PLAN: Final = lambda row: (row["plan_id"], row["position"])  # noqa: E731
_ORDINAL: Final = lambda row: (row["plan_id"], row["ordinal"])  # noqa: E731


# -- plans ---------------------------------------------------------------------------------------------------------------


@STATEMENTS.on(plans.GLANCE)
def glance(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return _glances(s, [row for each in sorted(set(plan_ids)) if (row := s.get("plan", each)) is not None])


@STATEMENTS.on(plans.GLANCE_LOCKED)
async def glance_locked(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return _glances(s, await s.locking("plan", [row for each in sorted(set(plan_ids)) if (row := s.get("plan", each)) is not None]))


@STATEMENTS.on(plans.GLANCE_HELD)
async def glance_held(s: Statement, plan_ids: Sequence[str], owner: str, generation: int, left: timedelta) -> Rows:
    epochs = {row["resource_id"]: row for row in await locked_held(s, plan_ids, owner, generation, left)}
    rows = await s.locking("plan", [row for each in epochs if (row := s.get("plan", each)) is not None])
    return [{**each, **{name: epochs[each["plan_id"]][name] for name in ("generation", "counter")}} for each in _glances(s, rows)]


def _glances(s: Statement, rows: Sequence[Row]) -> Rows:
    ids = [row["plan_id"] for row in rows]
    tickets = Counter(row["plan_id"] for row in among(s, "escalation", ids))
    frozen = {row["plan_id"]: row["frozen"] for row in among(s, "journal_progress", ids)}
    return [
        {
            **{name: row[name] for name in ("plan_id", "version", "updated_at")},
            "read_at": s.now,
            "frozen": frozen.get(row["plan_id"], ""),
            "tickets": tickets[row["plan_id"]],
        }
        for row in rows
    ]


@STATEMENTS.on(plans.READ_PLANS)
def read_plans(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return [{**row, "read_at": s.now} for each in sorted(set(plan_ids)) if (row := s.get("plan", each)) is not None]


@STATEMENTS.on(plans.READ_LEGS)
def read_legs(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "plan_leg", plan_ids), key=_IN_PLAN)


@STATEMENTS.on(plans.READ_GATES)
def read_gates(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "gate_signature", plan_ids), key=_ORDINAL)


@STATEMENTS.on(plans.READ_TICKETS)
def read_tickets(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return sorted(among(s, "escalation", plan_ids), key=_ORDINAL)


@STATEMENTS.on(plans.READ_FROZEN)
def read_frozen(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return [row for row in among(s, "journal_progress", plan_ids) if row["frozen"]]


@STATEMENTS.on(reading.TRACEPARENTS)
def read_traceparents(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return [row for each in sorted(set(plan_ids)) if (row := s.get("plan", each)) is not None]


@STATEMENTS.on(plans.READ_KEYS)
def read_keys(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return among(s, "decision_key", plan_ids)


# -- what is asked -------------------------------------------------------------------------------------------------------


@STATEMENTS.on(reading.PAGE)
def page(s: Statement, before: int | None, states: Sequence[str], limit: int) -> Rows:
    rows = [row for row in s.all("plan") if (before is None or row["seq"] < before) and (not states or row["state"] in states)]
    return sorted(rows, key=lambda row: -row["seq"])[:limit]


@STATEMENTS.on(reading.PAGE_OF)
def page_of(s: Statement, before: int | None, states: Sequence[str], limit: int, parties: Sequence[str], client: str) -> Rows:
    own = {row["seq"] for row in s.all("plan_party") if row["party_id"] in parties}
    rows = [row for row in s.all("plan") if row["seq"] in own or (client and row["created_by"] == client)]
    fits = [row for row in rows if (before is None or row["seq"] < before) and (not states or row["state"] in states)]
    return sorted(fits, key=lambda row: -row["seq"])[:limit]


@STATEMENTS.on(reading.PLACE)
def place(s: Statement, plan_id: str) -> Rows:
    row = s.get("plan", plan_id)
    return [] if row is None else [row]


@STATEMENTS.on(reading.BELONGINGS)
def belongings(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return [row for each in sorted(set(plan_ids)) if (row := s.get("plan", each)) is not None]


@STATEMENTS.on(reading.TRANSITIONS)
def transitions(s: Statement, plan_id: str, after: int, limit: int) -> Rows:
    rows = [row for row in s.all("plan_transition") if row["plan_id"] == plan_id and row["transition_no"] > after]
    return sorted(rows, key=lambda row: row["transition_no"])[:limit]


@STATEMENTS.on(reading.KNOWN)
def known(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return [{"plan_id": each} for each in plan_ids if s.get("plan", each) is not None]


@STATEMENTS.on("select clock_timestamp()")
def clock(s: Statement) -> Rows:
    return [{"clock_timestamp": s.now}]


@STATEMENTS.on(reading.EXISTS)
def exists(s: Statement, plan_id: str) -> Rows:
    return [{"exists": s.get("plan", plan_id) is not None}]


@STATEMENTS.on(reading.PLAN_EVENT_HEAD)
def plan_event_head(s: Statement, plan_id: str) -> Rows:
    count = sum(row["plan_id"] == plan_id for row in s.all("plan_event"))
    return [{"number": count, "incarnation": row["incarnation"]} for row in s.all("plan_event_counter")]


@STATEMENTS.on(reading.EVENTS)
def events(s: Statement, plan_id: str, after: int, limit: int) -> Rows:
    own = sorted((row for row in s.all("plan_event") if row["plan_id"] == plan_id), key=lambda row: row["sequence"])
    return [{**row, "number": number} for number, row in enumerate(own, 1) if number > after][:limit]


@STATEMENTS.on(reading.STATE)
def state(s: Statement, plan_id: str) -> Rows:
    row = s.get("plan", plan_id)
    return [] if row is None else [{"state": row["state"], "clock": s.now}]


@STATEMENTS.on(reading.DUE)
def due(s: Statement, owner: str, limit: int) -> Rows:
    now = s.now

    def mine(row: Row) -> bool:
        held = s.get("lease", row["plan_id"])
        return held is not None and (held["owner"] == owner or free(held, now))

    rows = [row for row in s.all("plan") if row["due_at"] is not None and row["due_at"] <= now and mine(row)]
    return sorted(rows, key=lambda row: row["due_at"])[:limit]


@STATEMENTS.on(reading.ORPHANED)
def orphaned(s: Statement, owner: str, limit: int) -> Rows:
    now = s.now

    def left(plan_id: str) -> bool:
        held = s.get("lease", plan_id)
        return held is None or (held["owner"] != owner and free(held, now))

    return [{"plan_id": each} for each in sorted(_owed(s)) if left(each)][:limit]


def _owed(s: Statement) -> set[str]:
    owed = {row["plan_id"] for row in s.all("plan") if row["state"] in ("INITIATED", "PRECONDITIONS_PENDING")}
    owed |= {row["plan_id"] for row in s.all("leg_command") if not row["answered"] and row["due_at"] < INFINITY}
    return owed | {row["plan_id"] for row in s.all("journal_progress") if row["appended"] < row["recorded"] and not row["frozen"]}


def _ending(s: Statement, owner: str, generation: int, duration: timedelta) -> Callable[[Row], bool]:
    owed = _owed(s)

    def ends_soon(row: Row) -> bool:
        mine = row["owner"] == owner and row["generation"] == generation and row["resource_id"] in owed
        return bool(mine and LONG_AGO < row["expires_at"] < s.now + duration * 0.75)

    return ends_soon


@STATEMENTS.on(reading.RENEW)
async def renew(s: Statement, owner: str, generation: int, duration: timedelta) -> Rows:
    ends_soon = _ending(s, owner, generation, duration)
    for row in await s.locking("lease", [row for row in s.all("lease") if ends_soon(row)], ends_soon):
        s.update("lease", row, expires_at=s.now + duration)
    return []


@STATEMENTS.on(reading.SIGHTED)
def look(s: Statement, owner: str, generation: int, duration: timedelta) -> Rows:
    return [
        {
            "leases": any(map(_ending(s, owner, generation, duration), s.all("lease"))),
            "due": bool(due(s, owner, 1)),
            "news": bool(take_news(s, owner, 1)),
            "orphans": bool(orphaned(s, owner, 1)),
        }
    ]


def _owner(s: Statement, plan_id: str) -> str | None:
    held = s.get("lease", plan_id)
    return None if held is None else held["owner"]


@STATEMENTS.on(reading.CHECKING)
def checking(s: Statement, owner: str, limit: int) -> Rows:
    def mine(row: Row) -> bool:
        return row["state"] in ("INITIATED", "PRECONDITIONS_PENDING") and _owner(s, row["plan_id"]) == owner

    return sorted((row for row in s.all("plan") if mine(row)), key=lambda row: row["seq"])[:limit]


@STATEMENTS.on(reading.RELEASE_ALL)
async def release_all(s: Statement, owner: str) -> Rows:
    fits: Callable[[Row], bool] = lambda row: row["owner"] == owner and row["expires_at"] >= s.now  # noqa: E731
    for row in await s.locking("lease", [row for row in s.all("lease") if fits(row)], fits):
        s.update("lease", row, expires_at=LONG_AGO)
    return []
