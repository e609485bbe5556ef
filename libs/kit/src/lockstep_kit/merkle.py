"""Merkle trees as in RFC 6962, section 2.1: root, audit path, consistency proof, checks of both. Pure.

Leaves and inner nodes are hashed with different prefixes, so that an inner node can never be shown as a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lockstep_kit.ids import Digest


def leaf_hash(entry: bytes) -> Digest:
    """Hash of a leaf: SHA-256(0x00 | entry)."""
    return Digest(hashlib.sha256(b"\x00" + entry).digest())


def node_hash(left: bytes, right: bytes) -> Digest:
    """Hash of an inner node: SHA-256(0x01 | left | right)."""
    return Digest(hashlib.sha256(b"\x01" + left + right).digest())


def root(leaves: Sequence[Digest]) -> Digest:
    """Root over leaf hashes, in order; of none: SHA-256 of nothing."""
    if not leaves:
        return Digest(hashlib.sha256(b"").digest())
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return node_hash(root(leaves[:split]), root(leaves[split:]))


def audit_path(leaves: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """Hashes that lead from one leaf to the root, from the leaf upwards.

    Raises:
        IndexError: no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*audit_path(leaves[:split], index), root(leaves[split:]))
    return (*audit_path(leaves[split:], index - split), root(leaves[:split]))


def root_from_path(leaf: Digest, index: int, count: int, path: Sequence[bytes]) -> Digest | None:
    """Root that a path leads to (RFC 9162, section 2.1.3.2), or None when the path cannot belong to such a leaf."""
    if not 0 <= index < count:
        return None
    node, last, here = leaf, count - 1, index
    for sibling in path:
        if last == 0:
            return None
        if here & 1 or here == last:
            node = node_hash(sibling, node)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        here >>= 1
        last >>= 1
    return node if last == 0 else None


def consistency_path(leaves: Sequence[Digest], before: int) -> tuple[Digest, ...]:
    """Hashes that show that the tree over the first `before` leaves is how this tree begins; none where that is plain: both the same, or the first empty.

    Raises:
        IndexError: not so many leaves.
    """
    if not 0 <= before <= len(leaves):
        raise IndexError(before)
    return () if before in (0, len(leaves)) else _subproof(leaves, before, whole=True)


def _subproof(leaves: Sequence[Digest], before: int, *, whole: bool) -> tuple[Digest, ...]:
    if before == len(leaves):
        return () if whole else (root(leaves),)
    split = _split(len(leaves))
    if before <= split:
        return (*_subproof(leaves[:split], before, whole=whole), root(leaves[split:]))
    return (*_subproof(leaves[split:], before - split, whole=False), root(leaves[:split]))


def consistent(before: int, before_root: bytes, after: int, after_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a tree of one size is shown to begin with the tree of a smaller one (RFC 9162, section 2.1.4.2)."""
    if not 0 <= before <= after:
        return False
    if before == 0:
        return not path and before_root == root([])
    if before == after:
        return not path and before_root == after_root
    steps = [before_root, *path] if before & (before - 1) == 0 else list(path)
    if not steps:
        return False
    here, last = before - 1, after - 1
    while here & 1:
        here >>= 1
        last >>= 1
    first, second = steps[0], steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            second = node_hash(second, sibling)
        here >>= 1
        last >>= 1
    return last == 0 and first == before_root and second == after_root


def _split(count: int) -> int:
    """Largest power of two below count."""
    return 1 << (count - 1).bit_length() - 1
