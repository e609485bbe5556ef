"""The tree of RFC 6962 over all entries, kept as tiles: which tiles there are, how they grow, and what is computed from them. Pure.

A tile holds up to 256 hashes of one level (C2SP tlog-tiles): level 0 those of the leaves, each level above the roots of the full tiles below. What lies
between two levels is computed when it is needed, so that a stored hash never changes; only the last tile of each level grows.

Whatever a proof or a root consists of is over a range of leaves as the RFC splits them. Such a range is a few complete subtrees, and each of those lies
within one tile: a proof reads few tiles, and a root only those at the tree's edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from lockstep_kit import merkle
from lockstep_kit.ids import Digest
from lockstep_kit.values import dataclass

HASH_BYTES: Final = 32
#: Levels of the tree that a tile spans.
HEIGHT: Final = 8
#: Hashes in a full tile.
WIDTH: Final = 1 << HEIGHT
TILE_BYTES: Final = WIDTH * HASH_BYTES

#: Leaves from the first number up to, and without, the second.
Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """Which tile."""

    #: 0 for hashes of leaves.
    level: int
    #: From the left, from 0.
    index: int


class TileMissing(LookupError):
    """A tile is not there, or holds another number of hashes than the tree's size says: somebody has changed the tree."""


@dataclass(frozen=True, slots=True)
class _Subtree:
    """A complete subtree: over 2^height leaves, so many from the left."""

    height: int
    index: int


def tile_of_leaf(index: int) -> TileId:
    """The tile that holds a leaf's hash."""
    return TileId(0, index >> HEIGHT)


def stored(tiles: Mapping[TileId, bytes], level: int, place: int) -> Digest | None:
    """A hash that a level of tiles holds, so many from the left; None where there is none. Of level 0 it is a leaf's."""
    at = (place % WIDTH) * HASH_BYTES
    found = tiles.get(TileId(level, place >> HEIGHT), b"")[at : at + HASH_BYTES]
    return Digest(found) if len(found) == HASH_BYTES else None


# -- Growing -----------------------------------------------------------------------------------------------------------


def edge(size: int) -> tuple[TileId, ...]:
    """The tiles of a tree that are not full."""
    found = []
    level = 0
    while count := size >> (HEIGHT * level):
        if count % WIDTH:
            found.append(TileId(level, count >> HEIGHT))
        level += 1
    return tuple(found)


def grow(size: int, tiles: Mapping[TileId, bytes], leaves: Sequence[bytes]) -> dict[TileId, bytes]:
    """Every tile that is new or longer once leaves are added to a tree, each level from the left.

    Args:
        size: of the tree before.
        tiles: its edge.
        leaves: hashes of the leaves that follow.

    Raises:
        TileMissing: a tile of the edge is missing, or is not as long as the size says.
    """
    changed: dict[TileId, bytes] = {}
    level, first, hashes = 0, size, leaves
    while hashes:
        index, kept = divmod(first, WIDTH)
        before = tiles.get(TileId(level, index), b"")
        if len(before) != kept * HASH_BYTES:
            raise TileMissing(f"tile {level}/{index} has {len(before) // HASH_BYTES} hashes, not {kept}")
        octets = before + b"".join(hashes)
        roots = []
        for at in range(0, len(octets), TILE_BYTES):
            tile = changed[TileId(level, index)] = octets[at : at + TILE_BYTES]
            if len(tile) == TILE_BYTES:
                roots.append(_root(tile))
            index += 1
        level, first, hashes = level + 1, first >> HEIGHT, roots
    return changed


# -- Proofs and roots --------------------------------------------------------------------------------------------------


def inclusion(index: int, size: int) -> tuple[Range, ...]:
    """Ranges whose roots lead from a leaf to the root, from the leaf upwards (RFC 6962, section 2.1.1).

    Raises:
        IndexError: no such leaf.
    """
    if not 0 <= index < size:
        raise IndexError(index)
    found: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            found.append((split, end))
            end = split
        else:
            found.append((start, split))
            start = split
    return tuple(reversed(found))


def consistency(before: int, after: int) -> tuple[Range, ...]:
    """Ranges whose roots show that a tree begins with a smaller one (RFC 6962, section 2.1.2); none where that is plain.

    Raises:
        IndexError: not so many leaves.
    """
    if not 0 <= before <= after:
        raise IndexError(before)
    if before in (0, after):
        return ()
    found: list[Range] = []
    start, end = 0, after
    while before != end:
        split = _split(start, end)
        if before <= split:
            found.append((split, end))
            end = split
        else:
            found.append((start, split))
            start = split
    if start:
        found.append((start, end))
    return tuple(reversed(found))


def whole(size: int) -> tuple[Range, ...]:
    """The range of a tree's root; none of an empty one."""
    return ((0, size),) if size else ()


def tiles_of(ranges: Iterable[Range]) -> frozenset[TileId]:
    """The tiles that hold what the ranges' roots are computed from."""
    return frozenset(_place(each)[0] for start, end in ranges for each in _subtrees(start, end))


def roots(ranges: Iterable[Range], tiles: Mapping[TileId, bytes]) -> tuple[Digest, ...]:
    """Roots over ranges, in their order.

    Raises:
        TileMissing: a tile is missing or too short.
    """
    return tuple(_range_root(start, end, tiles) for start, end in ranges)


def tree_root(size: int, tiles: Mapping[TileId, bytes]) -> Digest:
    """Root of a tree, from the tiles of its edge and, where a level is full, those above.

    Raises:
        TileMissing: a tile is missing or too short.
    """
    return _range_root(0, size, tiles) if size else merkle.root([])


def _split(start: int, end: int) -> int:
    """Where the RFC splits a range: behind the largest power of two below its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> Iterator[_Subtree]:
    """The complete subtrees of a range, from the left, the larger ones first. The RFC's ranges begin where their largest subtree may begin."""
    while start < end:
        height = (end - start).bit_length() - 1
        yield _Subtree(height, start >> height)
        start += 1 << height


def _place(subtree: _Subtree) -> tuple[TileId, int, int]:
    """The tile that holds a subtree, and the first and the last but one of its bytes there."""
    level, inner = divmod(subtree.height, HEIGHT)
    first = subtree.index << inner
    at = (first % WIDTH) * HASH_BYTES
    return TileId(level, first >> HEIGHT), at, at + (HASH_BYTES << inner)


def _range_root(start: int, end: int, tiles: Mapping[TileId, bytes]) -> Digest:
    found = []
    for subtree in _subtrees(start, end):
        tile, first, last = _place(subtree)
        octets = tiles.get(tile, b"")[first:last]
        if len(octets) != last - first:
            raise TileMissing(f"tile {tile.level}/{tile.index} lacks hashes of the leaves {start} to {end}")
        found.append(_kept_root(octets))
    root = found.pop()
    while found:
        root = merkle.node_hash(found.pop(), root)
    return root


def _root(octets: bytes) -> Digest:
    """Root over hashes, a power of two of them."""
    hashes = [Digest(octets[at : at + HASH_BYTES]) for at in range(0, len(octets), HASH_BYTES)]
    while len(hashes) > 1:
        hashes = [merkle.node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


#: The same, kept: what is high in the tree is asked for by every proof. By content, so that nothing that was kept can be wrong; 8 MB at the most.
_kept_root = lru_cache(maxsize=2_048)(_root)
