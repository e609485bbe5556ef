"""Every statement by which the log grows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from event_journal import key_store
from event_journal.log.publishing import Published
from event_journal.log.tiles import TileId
from lockstep_kit.db import Connection
from lockstep_kit.notes import SignedCheckpoint
from lockstep_kit.values import dataclass

#: How far the journal, its tree and its checkpoints reach, and by which clock; and how the journal's own keys stand.
STANDING: Final = f"""
select counter.next_position - 1 as entry_count, counter.incarnation, tree.tree_size, tree.log_incarnation, newest.tree_size as published,
    newest.made_at, keys.moment, keys.mark
from journal_tree as tree
cross join journal_counter as counter
cross join ({key_store.STANDING}) as keys
left join lateral (select tree_size, made_at from journal_checkpoint order by tree_size desc limit 1) as newest on true
"""

#: Takes the tree, unless another replica has it; whoever has it is the only one that makes it grow until its transaction ends.
LOCK_TREE: Final = "select tree_size from journal_tree for update skip locked"

#: What the next leaves are made of.
NEXT_LEAVES: Final = "select position, canonical_bytes from journal_entry where position > $1 order by position limit $2"

#: Tiles by level and place.
TILES: Final = """
select tile.level, tile.tile_index, tile.hashes
from unnest($1::integer[], $2::bigint[]) as wanted (level, tile_index) join journal_tile as tile using (level, tile_index)
"""

#: Writes tiles that are new or longer; the database holds that what a tile held stays.
SAVE_TILES: Final = """
insert into journal_tile (level, tile_index, hashes)
select * from unnest($1::integer[], $2::bigint[], $3::bytea[]) as tile (level, tile_index, hashes) order by tile.level, tile.tile_index
on conflict (level, tile_index) do update set hashes = excluded.hashes
"""

#: Moves the tree's end.
MOVE_TREE: Final = "update journal_tree set tree_size = $1, log_incarnation = $2"

#: Publishes a checkpoint, once its transaction commits.
INSERT_CHECKPOINT: Final = "insert into journal_checkpoint (tree_size, root_hash, signed_note, made_at) values ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far everything reaches."""

    #: Entries of the journal; their positions are 1 to this.
    entry_count: int
    #: Leaves of the tree.
    tree_size: int
    #: The newest checkpoint.
    newest: Published | None
    #: Which log the journal is, and which one it was when the tree grew last.
    incarnation: str
    tree_incarnation: str
    #: How the journal's own keys stand, by the database's clock.
    keys: key_store.Standing

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return self.keys.moment


async def standing(connection: Connection) -> Standing:
    """How far everything reaches."""
    row = await connection.fetchrow(STANDING)
    if row is None:
        raise AssertionError("the journal's tree or counter has no row: the migration did not run to its end")
    newest = Published(row["published"], row["made_at"]) if row["published"] is not None else None
    keys = key_store.Standing(row["mark"], row["moment"])
    return Standing(row["entry_count"], row["tree_size"], newest, row["incarnation"], row["log_incarnation"], keys)


async def lock_tree(tx: Connection) -> bool:
    """Take the tree; False while another replica has it."""
    return bool(await tx.fetch(LOCK_TREE))


async def next_leaves(tx: Connection, tree_size: int, limit: int) -> list[asyncpg.Record]:
    """Position and signed bytes of the entries behind a tree's last leaf."""
    return await tx.fetch(NEXT_LEAVES, tree_size, limit)


async def read_tiles(connection: Connection, wanted: Iterable[TileId]) -> dict[TileId, bytes]:
    """Those of the wanted tiles that there are."""
    names = sorted(wanted)
    if not names:
        return {}
    rows = await connection.fetch(TILES, [each.level for each in names], [each.index for each in names])
    return {TileId(row["level"], row["tile_index"]): row["hashes"] for row in rows}


async def save_tiles(tx: Connection, tiles: Mapping[TileId, bytes]) -> None:
    """Write tiles."""
    names: Sequence[TileId] = sorted(tiles)
    await tx.execute(SAVE_TILES, [each.level for each in names], [each.index for each in names], [tiles[each] for each in names])


async def move_tree(tx: Connection, tree_size: int, incarnation: str) -> None:
    """Move the tree's end."""
    await tx.execute(MOVE_TREE, tree_size, incarnation)


async def publish(tx: Connection, signed: SignedCheckpoint, now: datetime) -> None:
    """Keep a checkpoint."""
    checkpoint = signed.checkpoint
    await tx.execute(INSERT_CHECKPOINT, checkpoint.size, checkpoint.root, signed.note, now)
