"""Merkle trees against RFC 6962, computed in another way than the module does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.ids import Digest
from lockstep_kit.merkle import audit_path, consistency_path, consistent, leaf_hash, node_hash, root, root_from_path

#: Inputs and roots of the test vectors that certificate-transparency's reference implementations share (RFC 6962, trees of 1 to 8 leaves).
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=40).map(lambda entries: [leaf_hash(entry) for entry in entries])


def by_levels(leaves: list[Digest]) -> bytes:
    """The same root from the bottom up: a last node without a sibling rises as it is."""
    level: list[bytes] = list(leaves)
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]


@pytest.mark.parametrize("count", range(1, 9))
def test_published_vectors(count: int) -> None:
    """The roots of the shared test vectors come out."""
    assert root([leaf_hash(entry) for entry in INPUTS[:count]]).hex() == ROOTS[count - 1]


def test_no_leaves() -> None:
    """The root over nothing is the hash of nothing."""
    assert root([]) == hashlib.sha256(b"").digest()
    with pytest.raises(IndexError):
        audit_path([], 0)


@given(LEAVES)
def test_root_from_the_bottom_up(leaves: list[Digest]) -> None:
    """Halving from above and pairing from below give the same root."""
    assert root(leaves) == by_levels(leaves)


@given(LEAVES, st.data())
def test_path_leads_to_the_root(leaves: list[Digest], data: st.DataObject) -> None:
    """Every leaf's path leads to the root, and from no other place, count, leaf or path does it."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = audit_path(leaves, index)
    top = root(leaves)
    assert root_from_path(leaves[index], index, len(leaves), path) == top
    assert root_from_path(leaf_hash(b"another leaf"), index, len(leaves), path) != top
    assert root_from_path(leaves[index], index, len(leaves), (*path, top)) is None
    if path:
        assert root_from_path(leaves[index], index, len(leaves), path[:-1]) is None
        flipped = [Digest(bytes([path[0][0] ^ 1]) + path[0][1:]), *path[1:]]
        assert root_from_path(leaves[index], index, len(leaves), flipped) != top


@given(LEAVES, st.data())
def test_place_is_bound(leaves: list[Digest], data: st.DataObject) -> None:
    """A path shows one place only: at another place in the tree it does not lead to the root unless the leaves are equal there."""
    index, other = data.draw(st.integers(0, len(leaves) - 1)), data.draw(st.integers(-1, len(leaves)))
    if other == index or (0 <= other < len(leaves) and leaves[other] == leaves[index]):
        return
    assert root_from_path(leaves[index], other, len(leaves), audit_path(leaves, index)) != root(leaves)


def test_inner_node_is_no_leaf() -> None:
    """An inner node's content, shown as a leaf, has another hash."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


#: Consistency proofs between trees of the same inputs, of certificate-transparency's reference implementations.
PROOFS = [
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


@pytest.mark.parametrize(("before", "after", "path"), PROOFS)
def test_published_consistency_proofs(before: int, after: int, path: list[str]) -> None:
    """The proofs of the shared test vectors come out, and hold between the published roots."""
    leaves = [leaf_hash(entry) for entry in INPUTS[:after]]
    assert [each.hex() for each in consistency_path(leaves, before)] == path
    roots = [bytes.fromhex(ROOTS[count - 1]) for count in (before, after)]
    assert consistent(before, roots[0], after, roots[1], [bytes.fromhex(each) for each in path])


@given(LEAVES, st.data())
def test_each_size_is_consistent_with_each_smaller_one(leaves: list[Digest], data: st.DataObject) -> None:
    """A proof holds for its own two trees, and no longer when anything of it is changed."""
    after = len(leaves)
    before = data.draw(st.integers(0, after))
    path = list(consistency_path(leaves, before))
    roots = root(leaves[:before]), root(leaves)
    assert consistent(before, roots[0], after, roots[1], path)
    assert not consistent(before, bytes(32), after, roots[1], path)
    assert before == 0 or not consistent(before, roots[0], after, bytes(32), path), "everything begins with nothing"
    assert not consistent(before, roots[0], after, roots[1], [*path, bytes(32)])
    for index in range(len(path)):
        assert not consistent(before, roots[0], after, roots[1], path[:index] + path[index + 1 :])
        assert not consistent(before, roots[0], after, roots[1], [*path[:index], bytes(32), *path[index + 1 :]])


@given(LEAVES.filter(lambda leaves: len(leaves) > 1), st.data())
def test_another_beginning_is_not_consistent(leaves: list[Digest], data: st.DataObject) -> None:
    """A tree that changed one of the leaves that were there is found, whatever proof its owner makes."""
    before = data.draw(st.integers(1, len(leaves) - 1))
    changed = data.draw(st.integers(0, before - 1))
    other = [*leaves[:changed], leaf_hash(b"another leaf"), *leaves[changed + 1 :]]
    assert not consistent(before, root(leaves[:before]), len(other), root(other), consistency_path(other, before))


def test_sizes_that_cannot_be() -> None:
    """A tree does not begin with a larger one, and there is no proof that it does."""
    leaves = [leaf_hash(entry) for entry in INPUTS]
    with pytest.raises(IndexError):
        consistency_path(leaves, 9)
    assert not consistent(8, root(leaves), 7, root(leaves[:7]), [])
    assert not consistent(-1, root([]), 7, root(leaves[:7]), [])
