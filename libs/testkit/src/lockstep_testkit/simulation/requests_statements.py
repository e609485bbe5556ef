"""Twins of the coordinator's statements about what clients bring: requests, plans, payers' consents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coordinator.store import accepting, requests
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement
from lockstep_testkit.simulation.specs import among, columns, inserted, listed

STATEMENTS: Final = Registry()


# -- plans ---------------------------------------------------------------------------------------------------------------


@STATEMENTS.on(accepting.TAKEN)
def taken(s: Statement, plan_ids: Sequence[str]) -> Rows:
    found = [{"plan_id": each, "orphaned": False} for each in plan_ids if s.get("plan", each) is not None]
    orphans = sorted({row["plan_id"] for row in among(s, "orphan_leg", plan_ids)})
    return [*found, *({"plan_id": each, "orphaned": True} for each in orphans)]


@STATEMENTS.on(accepting.USED)
def used(s: Statement, key_ids: Sequence[str], nonces: Sequence[bytes]) -> Rows:
    asked = set(zip(key_ids, nonces, strict=True))
    return [row for row in s.all("gate_signature") if (row["key_id"], row["nonce"]) in asked]


@STATEMENTS.on(accepting.INSERT_PLANS)
async def insert_plans(s: Statement, *values: Sequence[Any]) -> Rows:
    *rows, party_plans, party_ids = values
    fresh = {
        "state": "DRAFT",
        "transition_no": 1,
        "journal_sequence": 1,
        "version": 1,
        "sealing": False,
        "unwound_by_policy": False,
    }
    made: dict[str, Row] = {}
    for new in columns(listed(accepting.INSERT_PLANS)[:-1], rows):
        row: Row = {
            **dict.fromkeys(("delegate", "reason", "reason_leg", "reason_detail"), ""),
            **dict.fromkeys(("since", "updated_at"), new["created_at"]),
            **fresh,
            **{name: new[name] for name in ("plan_id", "digest", "header", "created_at", "due_at", "traceparent", "created_by")},
            "epoch_generation": new["generation"],
            "epoch_counter": new["counter"],
            "approvals_needed": new["approvals"],
            "releases_needed": new["releases"],
            "validations_needed": new["validations"],
        }
        written = await s.insert_new("plan", row)
        if written is not None:
            made[new["plan_id"]] = written
    for plan_id, party_id in zip(party_plans, party_ids, strict=True):
        if plan_id in made:
            await s.insert("plan_party", {"party_id": party_id, "seq": made[plan_id]["seq"], "plan_id": plan_id})
    return [{"plan_id": each} for each in made]


@STATEMENTS.on(accepting.INSERT_LEGS)
async def insert_legs(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(listed(accepting.INSERT_LEGS), values):
        await s.insert("plan_leg", {**row, "last_order": "NONE", "revision": 0, "trouble": "", "reversed": False})
    return []


@STATEMENTS.on(accepting.INSERT_KEYS)
async def insert_keys(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(inserted(accepting.INSERT_KEYS), values):
        await s.insert("decision_key", row)
    return []


@STATEMENTS.on(accepting.SAVE_PAYERS)
async def save_payers(s: Statement, *values: Sequence[Any]) -> Rows:
    for new in columns(listed(accepting.SAVE_PAYERS), values):
        row = await s.lock("plan_leg", new["plan_id"], new["leg_id"])
        if row is not None:
            s.update("plan_leg", row, payer_signature=new["signature"], permit=new["permit"])
    return []


# -- requests ------------------------------------------------------------------------------------------------------------


@STATEMENTS.on(requests.READ)
def read(s: Statement, ids: Sequence[str]) -> Rows:
    nothing = dict.fromkeys(("method", "digest", "client", "response"))
    return [{**(s.get("request", each) or nothing), "id": each, "now": s.now} for each in ids]


@STATEMENTS.on(requests.KEEP)
async def keep(s: Statement, *values: Sequence[Any]) -> Rows:
    rows = sorted(columns(listed(requests.KEEP), values), key=lambda row: row["request_id"])
    return [
        {"request_id": row["request_id"]} for row in rows if await s.insert_new("request", {**row, "asked_at": s.now}) is not None
    ]
