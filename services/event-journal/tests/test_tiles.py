"""Trees kept as tiles: whatever is computed from tiles is what RFC 6962 computes from all leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from event_journal import log
from event_journal.log.tiles import (
    TILE_BYTES,
    TileId,
    TileMissing,
    consistency,
    edge,
    grow,
    inclusion,
    roots,
    stored,
    tile_of_leaf,
    tiles_of,
    tree_root,
    whole,
)
from lockstep_kit import merkle
from lockstep_kit.ids import Digest

LEAVES = [merkle.leaf_hash(number.to_bytes(4)) for number in range(66_000)]
#: Sizes around the places where tiles fill.
SIZES = st.one_of(st.integers(0, 1_500), st.sampled_from([255, 256, 257, 511, 512, 513, 1_024]))


def grown(*parts: Sequence[Digest]) -> dict[TileId, bytes]:
    """The tiles of a tree that grew part by part; each part is shown no more than the tree's edge."""
    tiles: dict[TileId, bytes] = {}
    size = 0
    for part in parts:
        tiles |= grow(size, {name: tiles[name] for name in edge(size)}, part)
        size += len(part)
    return tiles


FULL = grown(LEAVES)


def cut(size: int) -> dict[TileId, bytes]:
    """The tiles of a smaller tree, by their definition."""
    found = {}
    level, hashes = 0, list(LEAVES[:size])
    while hashes:
        for index in range(0, len(hashes), 256):
            found[TileId(level, index // 256)] = b"".join(hashes[index : index + 256])
        hashes = [merkle.root(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=8))
def test_growing_in_any_parts(parts: list[int]) -> None:
    """A tree that grows in parts of any size has the tiles of the same tree made at once, and those that were full do not change."""
    bounds = [sum(parts[:number]) for number in range(len(parts) + 1)]
    assert grown(*(LEAVES[a:b] for a, b in pairwise(bounds))) == cut(bounds[-1])


@settings(max_examples=40, deadline=None)
@given(SIZES)
@example(65_536)
@example(65_793)
def test_roots(size: int) -> None:
    """The root is that of RFC 6962, and is computed from the tiles that are named."""
    tiles = {name: FULL[name] for name in tiles_of(whole(size))}
    assert tree_root(size, tiles) == merkle.root(LEAVES[:size])
    assert len(tiles) <= 3


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1_499), SIZES)
@example(255, 65_537)
@example(65_536, 65_537)
@example(65_535, 65_793)
def test_inclusion(index: int, size: int) -> None:
    """An audit path is that of RFC 6962, computed from at most a few tiles, also of a tree that has grown since."""
    assume(index < size)
    ranges = inclusion(index, size)
    names = tiles_of(ranges)
    path = roots(ranges, {name: FULL[name] for name in names})
    assert path == merkle.audit_path(LEAVES[:size], index)
    assert merkle.root_from_path(LEAVES[index], index, size, path) == merkle.root(LEAVES[:size])
    assert len(names) <= 2 * 3


@settings(max_examples=80, deadline=None)
@given(SIZES, SIZES)
@example(256, 65_536)
@example(65_535, 65_793)
@example(65_536, 65_537)
def test_consistency(before: int, after: int) -> None:
    """A consistency proof is that of RFC 6962, computed from at most a few tiles."""
    assume(before <= after)
    ranges = consistency(before, after)
    names = tiles_of(ranges)
    path = roots(ranges, {name: FULL[name] for name in names})
    assert path == merkle.consistency_path(LEAVES[:after], before)
    assert merkle.consistent(before, merkle.root(LEAVES[:before]), after, merkle.root(LEAVES[:after]), path)
    assert len(names) <= 2 * 3


def test_the_cost_of_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof in a tree of a million leaves hashes a few hundred nodes, wherever the leaf is."""
    size = 1_000_003
    tiles: dict[TileId, bytes] = {}
    at = 0
    while at < size:
        part = [Digest(hashlib.sha256(number.to_bytes(8)).digest()) for number in range(at, min(at + 65_536, size))]
        tiles |= grow(at, {name: tiles[name] for name in edge(at)}, part)
        at += len(part)
    counted = 0
    node_hash = merkle.node_hash

    def counting(left: bytes, right: bytes) -> Digest:
        nonlocal counted
        counted += 1
        return node_hash(left, right)

    monkeypatch.setattr(merkle, "node_hash", counting)
    dearest = 0
    for index in (0, 1, 255, 256, 65_535, 65_536, 500_000, 999_999, size - 1):
        for ranges in (inclusion(index, size), consistency(index, size)):
            counted = 0
            log.tiles._kept_root.cache_clear()
            roots(ranges, tiles)
            dearest = max(dearest, counted)
    assert 0 < dearest < 1_000


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_such_leaf(index: int, size: int) -> None:
    """There is no path of a leaf that is not in the tree."""
    with pytest.raises(IndexError):
        inclusion(index, size)


@pytest.mark.parametrize(("before", "after"), [(4, 3), (-1, 3)])
def test_no_such_sizes(before: int, after: int) -> None:
    """No tree begins with a larger one."""
    with pytest.raises(IndexError):
        consistency(before, after)


def test_damaged_tiles() -> None:
    """A tile that is missing, too short or too long is found when the tree grows, and when a proof needs what it lacks."""
    tiles = cut(300)
    name = tile_of_leaf(299)
    for damaged in ({}, {name: tiles[name][:-32]}, {name: tiles[name] + bytes(32)}):
        with pytest.raises(TileMissing):
            grow(300, {TileId(1, 0): tiles[TileId(1, 0)], **damaged}, LEAVES[300:301])
    with pytest.raises(TileMissing):
        grow(300, {name: tiles[name]}, LEAVES[300:600])
    with pytest.raises(TileMissing):
        roots(inclusion(299, 300), {name: tiles[name][:-64], TileId(1, 0): tiles[TileId(1, 0)]})
    assert stored(tiles, 0, 299) == LEAVES[299]
    assert stored(tiles, 0, 300) is None
    assert stored({}, 0, 5) is None
    assert len(tiles[TileId(0, 0)]) == TILE_BYTES
