"""Twins of the event journal's statements, with what its database itself sees to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Final

import asyncpg

from event_journal import key_store, payload_store, store
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, violation
from lockstep_testkit.simulation.specs import Triggers, columns, copied, inserted, listed

STATEMENTS: Final = Registry()

_NOTHING: Final = bytes(32)


def _grows(_: Statement, before: Row | None, after: Row) -> None:
    if before is None:
        return
    if after["entry_count"] < before["entry_count"] or (before["sealed"] and after != before):
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_chain_grows", "a chain only grows")
    if (after["epoch_generation"], after["epoch_counter"]) < (before["epoch_generation"], before["epoch_counter"]):
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_chain_grows", "a chain's fence is never lowered")


def _linked(s: Statement, before: Row | None, after: Row) -> None:
    if before is not None:
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_entry_stays", "the journal is append-only")
    if after["sequence"] == 1:
        stands = after["previous_hash"] == _NOTHING
    else:
        earlier = s.get("journal_entry", after["plan_id"], after["sequence"] - 1)
        stands = earlier is not None and earlier["entry_hash"] == after["previous_hash"] and earlier["type"] != "plan.closed"
    if not stands:
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_entry_linked", "an entry follows the one before it")


TRIGGERS: Final = {"journal_chain": Triggers(_grows), "journal_entry": Triggers(_linked)}


def seeds(incarnation: str) -> tuple[tuple[str, Row], ...]:
    """The rows that the migration inserts."""
    return (("journal_counter", {"singleton": True, "next_position": 1, "incarnation": incarnation}),)


@STATEMENTS.on(store.OPEN_CHAINS)
async def open_chains(s: Statement, plan_ids: Sequence[str]) -> Rows:
    for plan_id in sorted(plan_ids):
        empty: Row = {"plan_id": plan_id, "entry_count": 0, "head_hash": _NOTHING, "sealed": False, "frozen": ""}
        await s.insert_new("journal_chain", empty | {"epoch_generation": 0, "epoch_counter": 0})
    return []


@STATEMENTS.on(store.LOCK_CHAINS)
async def lock_chains(s: Statement, plan_ids: Sequence[str]) -> Rows:
    return await _locked_chains(s, plan_ids)


async def _locked_chains(s: Statement, plan_ids: Sequence[str]) -> Rows:
    rows = [row for each in sorted(set(plan_ids)) if (row := s.get("journal_chain", each)) is not None]
    absent = {"wrapped_key": None, "wrapping_key_id": None}
    keys = {row["plan_id"]: s.get("journal_payload_key", row["plan_id"]) or absent for row in rows}
    standing = standing_keys(s)
    locked = await s.locking("journal_chain", rows)
    return [row | {name: keys[row["plan_id"]][name] for name in absent} | standing for row in locked]


@STATEMENTS.on(store.LOCK_LEGS_AND_CHAINS)
async def lock_legs_and_chains(s: Statement, plan_ids: Sequence[str]) -> Rows:
    legs = await _locked_legs(s, plan_ids)
    return [
        row | {"leg_id": leg_id}
        for row in await _locked_chains(s, plan_ids)
        for leg_id in [each["leg_id"] for each in legs if each["plan_id"] == row["plan_id"]] or [None]
    ]


@STATEMENTS.on(store.MOVE_HEADS)
async def move_heads(s: Statement, *values: Sequence[Any]) -> Rows:
    await _move(s, values)
    return []


async def _move(s: Statement, values: Sequence[Sequence[Any]]) -> None:
    for new in columns(listed(store.MOVE_HEADS), values):
        row = await s.lock("journal_chain", new["plan_id"])
        if row is not None:
            s.update("journal_chain", row, **new)


@STATEMENTS.on(store.KNOWN_ENTRIES)
def known_entries(s: Statement, plan_ids: Sequence[str], sequences: Sequence[int]) -> Rows:
    places = set(zip(plan_ids, sequences, strict=True))
    return [row for row in s.all("journal_entry") if (row["plan_id"], row["sequence"]) in places]


@STATEMENTS.on(payload_store.PAYLOAD_KEYS)
def payload_keys(s: Statement, plan_ids: Sequence[str]) -> Rows:
    absent = {"wrapped_key": None, "wrapping_key_id": None}
    found = {each: s.get("journal_payload_key", each) or absent for each in plan_ids}
    return [
        {"plan_id": plan_id, "wrapped_key": key["wrapped_key"], "wrapping_key_id": key["wrapping_key_id"]}
        | {"erased": s.get("journal_erasure", plan_id) is not None}
        for plan_id, key in found.items()
    ]


@STATEMENTS.on(payload_store.INSERT_PAYLOAD_KEYS)
async def insert_payload_keys(s: Statement, *values: Sequence[Any]) -> Rows:
    for row in columns(inserted(payload_store.INSERT_PAYLOAD_KEYS), values):
        await s.insert("journal_payload_key", row)
    return []


@STATEMENTS.on(payload_store.WRAPPING_KEYS)
def wrapping_keys(s: Statement) -> Rows:
    return [{"wrapping_key_id": each} for each in sorted({row["wrapping_key_id"] for row in s.all("journal_payload_key")})]


@STATEMENTS.on(store.TAKE_POSITIONS)
async def take_positions(s: Statement, *values: Any) -> Rows:
    await _move(s, values[:-1])
    row = await s.lock("journal_counter", True) or {}
    s.update("journal_counter", row, next_position=row["next_position"] + values[-1])
    s.notify(store.CHANNEL)
    return [{"first": row["next_position"], "incarnation": row["incarnation"]}]


@STATEMENTS.on(store.COUNTER)
def counter(s: Statement) -> Rows:
    return list(s.all("journal_counter"))


@STATEMENTS.on(copied(store.COPY_ENTRIES))
async def copy_entries(s: Statement, *records: Sequence[Any]) -> Rows:
    for record in records:
        await s.insert(store.COPY_ENTRIES.table, dict(zip(store.COPY_ENTRIES.columns, record, strict=True)))
    return []


@STATEMENTS.on(store.WHOLE_CHAINS)
def whole_chains(s: Statement, plan_ids: Sequence[str]) -> Rows:
    absent = dict.fromkeys((*store.COPY_ENTRIES.columns, "entry_count", "head_hash", "sealed", "frozen"))
    chains: dict[str, list[Row]] = {plan_id: [] for plan_id in sorted(plan_ids)}
    for row in _chained(s, chains):
        chains[row["plan_id"]].append(row)
    found: list[Row] = []
    for plan_id, entries in chains.items():
        head = {name: value for name, value in (s.get("journal_chain", plan_id) or absent).items() if name in absent}
        found += [{**absent, **head, **row, "asked": plan_id} for row in entries or [{"plan_id": None}]]
    return found


def _chained(s: Statement, plan_ids: Collection[str]) -> list[Row]:
    rows = (row for row in s.all("journal_entry") if row["plan_id"] in plan_ids)
    return sorted(rows, key=lambda row: (row["plan_id"], row["sequence"]))


@STATEMENTS.on(key_store.KEY_HISTORY)
def key_history(s: Statement) -> Rows:
    return sorted(s.all("journal_key"), key=lambda row: row["number"])


@STATEMENTS.on(key_store.STANDING)
def key_standing(s: Statement) -> Rows:
    return [standing_keys(s)]


def standing_keys(s: Statement) -> Row:
    """What is told of the history of the journal's keys."""
    whole = b""
    for row in sorted(s.all("journal_key"), key=lambda row: row["number"]):
        number, statement = row["number"].to_bytes(8), hashlib.sha256(row["statement"]).digest()
        whole += number + row["key_id"].encode() + statement + (row["previous_signature"] or b"") + row["own_signature"]
    return {"moment": s.now, "mark": hashlib.sha256(whole).digest()}


@STATEMENTS.on(store.NOW)
def now(s: Statement) -> Rows:
    return [{"date_trunc": s.now}]


def _stretch(s: Statement, after: int, limit: int, plan_id: str | None) -> Rows:
    rows = [row for row in s.all("journal_entry") if row["position"] > after and plan_id in (None, row["plan_id"])]
    return sorted(rows, key=lambda row: row["position"])[:limit]


@STATEMENTS.on(store.PLANS_ENTRIES)
def plans_entries(s: Statement, plan_ids: Sequence[str], plan_id: str, sequence: int, limit: int) -> Rows:
    return [row for row in _chained(s, set(plan_ids)) if (row["plan_id"], row["sequence"]) > (plan_id, sequence)][:limit]


@STATEMENTS.on(store.ALL_ENTRIES)
def all_entries(s: Statement, after: int, limit: int) -> Rows:
    return _stretch(s, after, limit, None)


@STATEMENTS.on(store.PLAN_ENTRIES_BY_POSITION)
def plan_entries_by_position(s: Statement, plan_id: str, after: int, limit: int) -> Rows:
    return _stretch(s, after, limit, plan_id)


async def _locked_legs(s: Statement, plan_ids: Sequence[str]) -> Rows:
    wanted = set(plan_ids)

    def waits(row: Row) -> bool:
        return row["plan_id"] in wanted and row["phase"] in ("PREPARING", "COMMITTING", "ABORTING")

    rows = sorted((row for row in s.all("participant_leg") if waits(row)), key=lambda row: (row["plan_id"], row["leg_id"]))
    return await s.locking("participant_leg", rows, waits)
