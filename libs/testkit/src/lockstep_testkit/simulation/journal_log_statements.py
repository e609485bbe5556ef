"""Twins of the statements by which the journal's log grows, with what its database itself sees to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

from event_journal.log import store
from event_journal.log.tiles import HASH_BYTES, TILE_BYTES, WIDTH
from lockstep_testkit.simulation.journal_statements import standing_keys
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, violation
from lockstep_testkit.simulation.specs import Triggers, columns, inserted

STATEMENTS: Final = Registry()
_TREE: Final = True


def _tile_grows(s: Statement, before: Row | None, after: Row) -> None:
    if before is None:
        left = s.get("journal_tile", after["level"], after["tile_index"] - 1)
        if after["tile_index"] and (left is None or len(left["hashes"]) != TILE_BYTES):
            raise violation(asyncpg.IntegrityConstraintViolationError, "journal_tile_grows", "a tile follows a full one")
    elif len(after["hashes"]) <= len(before["hashes"]) or not after["hashes"].startswith(before["hashes"]):
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_tile_grows", "a tile only grows")


def _tree_grows(s: Statement, before: Row | None, after: Row) -> None:
    if before is None or after["tree_size"] == before["tree_size"]:
        return
    last = after["tree_size"] - 1
    tile = s.get("journal_tile", 0, last // WIDTH)
    if last < before["tree_size"] or tile is None or len(tile["hashes"]) != (last % WIDTH + 1) * HASH_BYTES:
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_tree_grows", "the tree is as large as its tiles")


def _checkpoint_follows(s: Statement, before: Row | None, after: Row) -> None:
    tree = s.get("journal_tree", _TREE) or {"tree_size": 0}
    if before is not None or any(row["tree_size"] >= after["tree_size"] for row in s.all("journal_checkpoint")):
        raise violation(
            asyncpg.IntegrityConstraintViolationError, "journal_checkpoint_follows", "a checkpoint is larger than before"
        )
    if after["tree_size"] > tree["tree_size"]:
        raise violation(asyncpg.IntegrityConstraintViolationError, "journal_checkpoint_follows", "a checkpoint is of a tree")


TRIGGERS: Final = {
    "journal_tile": Triggers(_tile_grows),
    "journal_tree": Triggers(_tree_grows),
    "journal_checkpoint": Triggers(_checkpoint_follows),
}


def seeds(incarnation: str) -> tuple[tuple[str, Row], ...]:
    """The rows that the migration inserts."""
    return (("journal_tree", {"singleton": True, "tree_size": 0, "log_incarnation": incarnation}),)


@STATEMENTS.on(store.STANDING)
def standing(s: Statement) -> Rows:
    counter, tree = s.get("journal_counter", True) or {}, s.get("journal_tree", _TREE) or {}
    newest = max(s.all("journal_checkpoint"), key=lambda row: row["tree_size"], default={"tree_size": None, "made_at": None})
    return [
        {
            "entry_count": counter["next_position"] - 1,
            "incarnation": counter["incarnation"],
            "tree_size": tree["tree_size"],
            "log_incarnation": tree["log_incarnation"],
            "published": newest["tree_size"],
            "made_at": newest["made_at"],
        }
        | standing_keys(s)
    ]


@STATEMENTS.on(store.LOCK_TREE)
async def lock_tree(s: Statement) -> Rows:
    if s.server.locked(s.tx, ("journal_tree", (_TREE,))):
        return []
    row = await s.lock("journal_tree", _TREE) or {}
    return [{"tree_size": row["tree_size"]}]


@STATEMENTS.on(store.NEXT_LEAVES)
def next_leaves(s: Statement, tree_size: int, limit: int) -> Rows:
    rows = sorted((row for row in s.all("journal_entry") if row["position"] > tree_size), key=lambda row: row["position"])
    return [{"position": row["position"], "canonical_bytes": row["canonical_bytes"]} for row in rows[:limit]]


@STATEMENTS.on(store.TILES)
def tiles(s: Statement, levels: Sequence[int], indexes: Sequence[int]) -> Rows:
    return [row for place in zip(levels, indexes, strict=True) if (row := s.get("journal_tile", *place)) is not None]


@STATEMENTS.on(store.SAVE_TILES)
async def save_tiles(s: Statement, *values: Sequence[Any]) -> Rows:
    for new in sorted(columns(inserted(store.SAVE_TILES), values), key=lambda row: (row["level"], row["tile_index"])):
        if await s.insert_new("journal_tile", new) is None:
            before = s.get("journal_tile", new["level"], new["tile_index"]) or {}
            s.update("journal_tile", before, hashes=new["hashes"])
    return []


@STATEMENTS.on(store.MOVE_TREE)
async def move_tree(s: Statement, tree_size: int, incarnation: str) -> Rows:
    row = await s.lock("journal_tree", _TREE) or {}
    s.update("journal_tree", row, tree_size=tree_size, log_incarnation=incarnation)
    return []


@STATEMENTS.on(store.INSERT_CHECKPOINT)
async def insert_checkpoint(s: Statement, tree_size: int, root_hash: bytes, signed_note: bytes, made_at: datetime) -> Rows:
    row = {"tree_size": tree_size, "root_hash": root_hash, "signed_note": signed_note, "made_at": made_at}
    await s.insert("journal_checkpoint", row)
    return []
