"""Every statement by which the log is read: checkpoints, places of entries, and proofs over the tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Final

import asyncpg

from event_journal.chain import Finding
from event_journal.log import tiles
from event_journal.log.auditing import LogAudit, LogEnd, LogFinding, plan_findings
from event_journal.log.records import StoredCheckpoint, StoredLeaf
from event_journal.log.store import read_tiles
from lockstep_kit.db import Connection
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.registry import Registry

#: Positions that an audit reads at once, and how many checkpoints behind the end it names.
STRETCH: Final = 4_096
BEHIND_MAX: Final = 1_000

#: The newest checkpoint.
NEWEST_CHECKPOINT: Final = "select * from journal_checkpoint order by tree_size desc limit 1"

#: The smallest checkpoint of at least a size.
CHECKPOINT_FROM: Final = """
select * from journal_checkpoint where tree_size >= $1 order by tree_size limit 1
"""

#: How many leaves the tree has.
TREE_SIZE: Final = "select tree_size from journal_tree"

#: How many leaves the tree has, beside each of some tiles that there is; a row without one where there is none of them.
SIZE_AND_TILES: Final = """
select tree.tree_size, tile.level, tile.tile_index, tile.hashes
from journal_tree as tree
left join (
    unnest($1::integer[], $2::bigint[]) as wanted (level, tile_index) join journal_tile as tile using (level, tile_index)
) on true
"""

#: Where an entry stands in the journal's one order, beside the tree's size.
PLACE: Final = """
select tree.tree_size, entry.position
from journal_tree as tree left join journal_entry as entry on entry.plan_id = $1 and entry.sequence = $2
"""

#: How far journal and tree reach.
END: Final = "select counter.next_position - 1 as entry_count, tree.tree_size from journal_tree as tree, journal_counter as counter"

#: A stretch of entries with what their leaves are made of.
LEAVES: Final = """
select sequence, position, canonical_bytes from journal_entry where position > $1 and position <= $2 order by position
"""

#: Entries behind a position.
LEAVES_BEHIND: Final = (
    "select sequence, position, canonical_bytes from journal_entry where position > $1 order by position limit $2"
)

#: Checkpoints of a stretch.
CHECKPOINTS: Final = "select * from journal_checkpoint where tree_size > $1 and tree_size <= $2 order by tree_size"

#: Checkpoints behind a size.
CHECKPOINTS_BEHIND: Final = "select * from journal_checkpoint where tree_size > $1 order by tree_size limit $2"

#: Every tile above the first level.
UPPER_TILES: Final = "select level, tile_index, hashes from journal_tile where level > 0"

#: A plan's entries with what their leaves are made of.
PLAN_LEAVES: Final = "select sequence, position, canonical_bytes from journal_entry where plan_id = $1 order by sequence"


async def newest_checkpoint(connection: Connection) -> StoredCheckpoint | None:
    """The newest checkpoint; None while there is none."""
    return _checkpoint(await connection.fetchrow(NEWEST_CHECKPOINT))


async def checkpoint_from(connection: Connection, tree_size_min: int) -> StoredCheckpoint | None:
    """The smallest checkpoint of at least a size; None while there is none."""
    return _checkpoint(await connection.fetchrow(CHECKPOINT_FROM, tree_size_min))


def _checkpoint(row: asyncpg.Record | None) -> StoredCheckpoint | None:
    return _stored(row) if row is not None else None


def _stored(row: asyncpg.Record) -> StoredCheckpoint:
    return StoredCheckpoint(row["tree_size"], Digest(row["root_hash"]), row["signed_note"], row["made_at"])


async def tree_size(connection: Connection) -> int:
    """How many leaves the tree has."""
    size: int = await connection.fetchval(TREE_SIZE)
    return size


async def place(connection: Connection, plan_id: PlanId, sequence: int) -> tuple[int, int | None]:
    """The tree's size, and the leaf's place of an entry; None where there is no such entry."""
    row = await connection.fetchrow(PLACE, plan_id, sequence)
    if row is None:
        raise AssertionError("the journal's tree has no row: the migration did not run to its end")
    return row["tree_size"], row["position"] - 1 if row["position"] is not None else None


async def inclusion_paths(connection: Connection, indexes: Sequence[int], size: int) -> list[tuple[Digest, ...]]:
    """Audit paths of leaves in the tree of a size, which it has reached; one read for all of them.

    Raises:
        IndexError: a leaf is not in it.
        TileMissing: somebody has changed the tree.
    """
    wanted = [tiles.inclusion(index, size) for index in indexes]
    # Neighbours share most of their paths.
    distinct = tuple(dict.fromkeys(chain.from_iterable(wanted)))
    roots = dict(zip(distinct, tiles.roots(distinct, await read_tiles(connection, tiles.tiles_of(distinct))), strict=True))
    return [tuple(roots[each] for each in path) for path in wanted]


async def consistency_path(connection: Connection, before: int, after: int) -> tuple[Digest, ...] | None:
    """How the tree of a size begins with a smaller one; None while it has not reached that size.

    Raises:
        IndexError: the first is the larger.
        TileMissing: somebody has changed the tree.
    """
    wanted = tiles.consistency(before, after)
    names = sorted(tiles.tiles_of(wanted))
    rows = await connection.fetch(SIZE_AND_TILES, [each.level for each in names], [each.index for each in names])
    if after > rows[0]["tree_size"]:
        return None
    found = {tiles.TileId(row["level"], row["tile_index"]): row["hashes"] for row in rows if row["hashes"] is not None}
    return tiles.roots(wanted, found)


# -- Audits ------------------------------------------------------------------------------------------------------------


def _leaf(row: asyncpg.Record) -> StoredLeaf:
    return StoredLeaf(row["sequence"], row["position"], row["canonical_bytes"])


async def audit_plan(connection: Connection, plan_id: PlanId, registry: Registry) -> list[Finding]:
    """What is wrong with the place that a plan's entries have in the log, and with its newest checkpoint."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        leaves = [_leaf(row) for row in await connection.fetch(PLAN_LEAVES, plan_id)]
        newest, size = await newest_checkpoint(connection), await tree_size(connection)
        wanted = {tiles.tile_of_leaf(each.index) for each in leaves}
        if newest is not None:
            wanted |= tiles.tiles_of(tiles.whole(newest.tree_size))
        return plan_findings(leaves, size, await read_tiles(connection, wanted), newest, registry)


async def audit_log(connection: Connection, registry: Registry) -> AsyncIterator[LogFinding]:
    """What is wrong with the whole log, computed anew from every entry; what is read is of one moment, the caller's where it has begun one."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(END)
        if row is None:
            yield LogFinding(0, "TREE_MISSING", "the journal's counter or its tree has no row")
            return
        end = LogEnd(row["entry_count"], row["tree_size"])
        audit = LogAudit(end, registry)
        for each in audit.begin():
            yield each
        upper = {tiles.TileId(row["level"], row["tile_index"]): row["hashes"] for row in await connection.fetch(UPPER_TILES)}
        while audit.position < end.tree_size:
            after, until = audit.position, min(audit.position + STRETCH, end.tree_size)
            leaves = [_leaf(row) for row in await connection.fetch(LEAVES, after, until)]
            checkpoints = [_stored(row) for row in await connection.fetch(CHECKPOINTS, after, until)]
            lower = await read_tiles(connection, {tiles.tile_of_leaf(index) for index in range(after, until, tiles.WIDTH)})
            for each in audit.read(until, leaves, upper | lower, checkpoints):
                yield each
        after = end.tree_size
        while True:
            rest = [_leaf(row) for row in await connection.fetch(LEAVES_BEHIND, after, STRETCH)]
            for each in audit.rest(rest, last=len(rest) < STRETCH):
                yield each
            if len(rest) < STRETCH:
                break
            after = rest[-1].position
        for row in await connection.fetch(CHECKPOINTS_BEHIND, end.tree_size, BEHIND_MAX):
            for each in audit.checkpoint(_stored(row), None):
                yield each
