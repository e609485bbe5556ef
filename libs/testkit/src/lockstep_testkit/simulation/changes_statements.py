"""Twins of the statements that read the log of changes of all plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from coordinator.store import changes
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement

STATEMENTS: Final = Registry()


def _sequence(row: Row) -> int:
    number: int = row["sequence"]
    return number


@STATEMENTS.on(changes.LOG)
def log(s: Statement, after: int, limit: int) -> Rows:
    found: list[Row] = []
    for row in sorted(s.all("plan_event"), key=_sequence):
        plan = s.get("plan", row["plan_id"])
        if row["sequence"] > after and plan is not None:
            found.append({**{name: row[name] for name in ("sequence", "plan_id", "event")}, "state": plan["state"]})
    return found[:limit]


@STATEMENTS.on(changes.BEFORE)
def before(s: Statement, plan_ids: Sequence[str], until: int) -> Rows:
    told = [row for row in s.all("plan_event") if row["plan_id"] in set(plan_ids) and row["sequence"] <= until]
    return [{"plan_id": plan_id, "number": count} for plan_id, count in Counter(row["plan_id"] for row in told).items()]


@STATEMENTS.on(changes.HEAD)
def head(s: Statement) -> Rows:
    return [{"sequence": row["next_sequence"] - 1, "incarnation": row["incarnation"]} for row in s.all("plan_event_counter")]


@STATEMENTS.on(changes.BELONGINGS)
def belongings(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return [row for each in plan_ids if (row := s.get("plan", each)) is not None]


@STATEMENTS.on(changes.NUMBERS)
def numbers(s: Statement, plan_ids: Sequence[str]) -> Rows:
    counted = Counter(row["plan_id"] for row in s.all("plan_event") if row["plan_id"] in set(plan_ids))
    return [{"plan_id": plan_id, "number": count} for plan_id, count in counted.items()]


@STATEMENTS.on(changes.STANDING)
def standing(s: Statement, states: Sequence[str], sees_all: bool, client: str, parties: Sequence[str], party: str) -> Rows:
    listed = {(row["seq"], row["party_id"]) for row in s.all("plan_party")}
    return [
        {"plan_id": row["plan_id"]}
        for row in sorted(s.all("plan"), key=lambda row: -row["seq"])
        if row["state"] in states
        and (sees_all or row["created_by"] == client or any((row["seq"], each) in listed for each in parties))
        and (not party or (row["seq"], party) in listed)
    ]
