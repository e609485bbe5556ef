"""Twins of what NotaryService reads of anchors and of plans in batches. The simulated notary makes records of their own alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep_testkit.simulation.memory import Registry, Rows, Statement
from notary.anchors import plan_store, queue

STATEMENTS: Final = Registry()

_ANCHORED: Final = ("root", "kind", "tree_size", "raw_transaction", "block_number", "block_hash")


@STATEMENTS.on(queue.ANCHORED)
def anchored(s: Statement, roots: Sequence[bytes]) -> Rows:
    rows = [row for row in s.all("anchor") if row["root"] in roots and row["block_hash"] is not None]
    return [{name: row[name] for name in _ANCHORED} for row in rows]


@STATEMENTS.on(plan_store.PLACED)
def placed(s: Statement, plan_id: str) -> Rows:
    batches = {row["id"]: row for row in s.all("plan_batch")}
    return [
        {name: row[name] for name in ("kind", "outcome", "leaf_data", "leaf_index")}
        | {name: batches[row["batch_id"]][name] for name in ("id", "root", "tree_size")}
        for row in s.all("plan_leaf")
        if row["plan_id"] == plan_id and row["batch_id"] is not None
    ]


@STATEMENTS.on(plan_store.OUTCOME)
def outcome(s: Statement, plan_id: str) -> Rows:
    return [{"outcome": row["outcome"]} for row in s.all("plan_leaf") if row["plan_id"] == plan_id and row["kind"] == 3]
