"""Twins of the statements about the transactions that carry legs, and of the notary's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import asyncpg

from lockstep_chain import leg_store
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, violation
from lockstep_testkit.simulation.specs import Triggers, columns, inserted, listed
from notary import store as notary_store

STATEMENTS: Final = Registry()
NOTARY_STATEMENTS: Final = Registry()

_ORDER: Final = "chain_order"
_PHASES: Final = ("PREPARING", "COMMITTING", "ABORTING", "REVERSING")


def _sound(_: Statement, before: Row | None, after: Row) -> None:
    """The table's checks."""
    del before
    rules = {"phase": after["phase"] in _PHASES, "attempt": after["attempt"] >= 1, "order_no": after["order_no"] >= 1}
    for name, holds in rules.items():
        if not holds:
            raise violation(asyncpg.CheckViolationError, f"chain_order_{name}_check", str(after[name]))


TRIGGERS: Final = {_ORDER: Triggers(_sound)}


@STATEMENTS.on(leg_store.INSERT_ORDERS)
async def insert_orders(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(inserted(leg_store.INSERT_ORDERS), values):
        await s.insert(_ORDER, row)
    return []


@STATEMENTS.on(leg_store.SETTLE_ORDERS)
async def settle_orders(s: Statement, intent_key: str, transaction_hash: bytes, *values: Any) -> Rows:
    *lists, code, detail = values
    skips = {skip["entry_key"]: skip for skip in columns(listed(leg_store.SETTLE_ORDERS), lists)}
    otherwise = {"code": code, "detail": detail}
    settled: Rows = []
    for row in await s.locking(_ORDER, [row for row in s.all(_ORDER) if row["intent_key"] == intent_key]):
        skip = skips.get(row["entry_key"], otherwise)
        told = {"transaction_hash": transaction_hash, "skip_code": skip["code"], "skip_detail": skip["detail"]}
        s.update(_ORDER, row, settled=True, **told)
        settled.append({name: row[name] for name in _ENDED} | {"skip_code": skip["code"], "skip_detail": skip["detail"]})
    return settled


_ENDED: Final = ("plan_id", "leg_id", "phase", "order_no", "attempt", "entry_key")


@STATEMENTS.on(leg_store.ENTRIES)
def entries(s: Statement, intent_keys: Sequence[str]) -> Rows:
    names = ("entry_key", "plan_id", "leg_id", "phase")
    found = {tuple(row[name] for name in names) for row in s.all(_ORDER) if row["intent_key"] in intent_keys}
    return [dict(zip(names, each, strict=True)) for each in sorted(found)]


@STATEMENTS.on(leg_store.LAST_ORDERS)
def last_orders(s: Statement, *values: Sequence[Any]) -> Rows:
    wanted = set(zip(*values, strict=True))
    last: dict[tuple[str, str, str], Row] = {}
    for row in s.all(_ORDER):
        leg = row["plan_id"], row["leg_id"], row["phase"]
        if (*leg, row["order_no"]) in wanted and (leg not in last or row["attempt"] > last[leg]["attempt"]):
            last[leg] = row
    return [{name: row[name] for name in _LAST} for row in last.values()]


_LAST: Final = ("plan_id", "leg_id", "phase", "attempt", "settled", "transaction_hash", "skip_code", "skip_detail")


def _open(s: Statement, plan_id: str, leg_id: str) -> Iterator[tuple[Row, Row | None]]:
    """Legs that are in a phase that takes a transaction, in order, each with the last one that carried it there."""
    legs = [
        row for row in s.all("participant_leg") if row["phase"] in _PHASES and (row["plan_id"], row["leg_id"]) > (plan_id, leg_id)
    ]
    orders: dict[tuple[str, str, str, int], Row] = {}
    for row in s.all(_ORDER):
        key = row["plan_id"], row["leg_id"], row["phase"], row["order_no"]
        if key not in orders or row["attempt"] > orders[key]["attempt"]:
            orders[key] = row
    for leg in sorted(legs, key=lambda row: (row["plan_id"], row["leg_id"])):
        order_no = len(leg["reversals"]) if leg["phase"] == "REVERSING" else 1
        yield leg, orders.get((leg["plan_id"], leg["leg_id"], leg["phase"], order_no))


@STATEMENTS.on(leg_store.UNCARRIED)
def uncarried(s: Statement, plan_id: str, leg_id: str, limit: int) -> Rows:
    found = [leg for leg, order in _open(s, plan_id, leg_id) if order is None]
    return [{name: leg[name] for name in ("plan_id", "leg_id")} for leg in found[:limit]]


@STATEMENTS.on(leg_store.UNANSWERED)
def unanswered(s: Statement, plan_id: str, leg_id: str, limit: int) -> Rows:
    found = [leg for leg, order in _open(s, plan_id, leg_id) if order is not None and order["settled"]]
    return [{name: leg[name] for name in ("plan_id", "leg_id")} for leg in found[:limit]]


@STATEMENTS.on(leg_store.NOTIFY)
def notify(s: Statement) -> Rows:
    s.notify(leg_store.CHANNEL)
    return []


@NOTARY_STATEMENTS.on(notary_store.NOTARISATION)
def notarisation(s: Statement, plan_id: str) -> Rows:
    rows = [row for row in s.all("participant_leg") if row["plan_id"] == plan_id and row["phase"] is not None]
    rows.sort(key=lambda row: row["seq"])
    return [{name: row[name] for name in ("plan_digest", "vote", "outcome")} for row in rows[:1]]
