"""Twins of the statements about what is said on chain of escalations: the coordinator's, and those by which the notary takes and shows it.

The simulated notary puts plans on chain and nothing else, so that what it takes of escalations waits there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from coordinator.store import escalation_documents
from lockstep_testkit.simulation.memory import Registry, Rows, Statement
from notary.escalations import store

COORDINATOR_STATEMENTS: Final = Registry()
NOTARY_STATEMENTS: Final = Registry()

_TABLE: Final = "escalation_document"
_RECORD: Final = "escalation_record"
_SAID: Final = ("escalation_id", "kind", "plan_id", "plan_digest", "document_hash")
_SHOWN: Final = (*_SAID, "recorded_at", "trouble", "raw_transaction", "block_number", "block_hash")


@COORDINATOR_STATEMENTS.on(escalation_documents.INSERT)
async def insert(
    s: Statement,
    escalation_ids: Sequence[str],
    kinds: Sequence[str],
    plan_ids: Sequence[str],
    documents: Sequence[bytes],
    written_at: datetime,
) -> Rows:
    for escalation_id, kind, plan_id, document in zip(escalation_ids, kinds, plan_ids, documents, strict=True):
        if kind == "OPENED" or s.get(_TABLE, escalation_id, "OPENED") is not None:
            row = {"escalation_id": escalation_id, "kind": kind, "plan_id": plan_id, "document": document, "written_at": written_at}
            await s.insert(_TABLE, row)
    return []


@COORDINATOR_STATEMENTS.on(escalation_documents.UNTOLD)
def untold(s: Statement, limit: int) -> Rows:
    rows = [row for row in s.all(_TABLE) if row["told_at"] is None]
    found = sorted(rows, key=lambda row: (row["written_at"], row["escalation_id"], row["kind"]))[:limit]
    plans = {row["plan_id"]: s.get("plan", row["plan_id"]) for row in found}
    return [
        {name: row[name] for name in ("escalation_id", "kind", "plan_id", "document")} | {"plan_digest": plan["digest"]}
        for row in found
        if (plan := plans[row["plan_id"]]) is not None
    ]


@COORDINATOR_STATEMENTS.on(escalation_documents.TOLD)
async def told(s: Statement, escalation_ids: Sequence[str], kinds: Sequence[str], refusals: Sequence[str]) -> Rows:
    for escalation_id, kind, refusal in zip(escalation_ids, kinds, refusals, strict=True):
        row = await s.lock(_TABLE, escalation_id, kind)
        if row is not None and row["told_at"] is None:
            s.update(_TABLE, row, told_at=s.now, refusal=refusal)
    return []


@COORDINATOR_STATEMENTS.on(escalation_documents.TELL_AGAIN)
async def tell_again(s: Statement) -> Rows:
    for key in [(row["escalation_id"], row["kind"]) for row in s.all(_TABLE) if row["told_at"] is not None]:
        row = await s.lock(_TABLE, *key)
        if row is not None and row["told_at"] is not None:
            s.update(_TABLE, row, told_at=None, refusal="")
    return []


@COORDINATOR_STATEMENTS.on(escalation_documents.READ)
def read(s: Statement, escalation_ids: Sequence[str]) -> Rows:
    rows = [row for row in s.all(_TABLE) if row["escalation_id"] in set(escalation_ids)]
    names = ("escalation_id", "kind", "document", "told_at", "refusal")
    return [{name: row[name] for name in names} for row in sorted(rows, key=lambda row: (row["escalation_id"], row["kind"]))]


@NOTARY_STATEMENTS.on(store.KNOWN)
def known(s: Statement, escalation_ids: Sequence[str]) -> Rows:
    return [{name: row[name] for name in _SAID} for row in s.all(_RECORD) if row["escalation_id"] in set(escalation_ids)]


@NOTARY_STATEMENTS.on(store.OF_PLAN)
def of_plan(s: Statement, plan_id: str) -> Rows:
    rows = sorted((row for row in s.all(_RECORD) if row["plan_id"] == plan_id), key=lambda row: row["seq"])
    return [{name: row[name] for name in _SHOWN} for row in rows]


@NOTARY_STATEMENTS.on(store.KEEP)
async def keep(s: Statement, *values: Sequence[Any]) -> Rows:
    names = ("escalation_id", "kind", "plan_id", "plan_digest", "document_hash", "record_key")
    fresh = False
    for row in (dict(zip(names, each, strict=True)) for each in zip(*values, strict=True)):
        fresh = await s.insert_new(_RECORD, row) is not None or fresh
    if fresh:
        s.notify(store.CHANNEL)
    return [{"pg_notify": ""}] if fresh else []
