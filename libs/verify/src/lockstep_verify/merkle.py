"""Proofs of a Merkle tree, checked as RFC 9162 says (sections 2.1.3.2 and 2.1.4.2). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(octets: bytes) -> bytes:
    """Hash of a leaf."""
    return hashlib.sha256(b"\x00" + octets).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over the hashes of at least one leaf."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return _node_hash(root(leaves[:split]), root(leaves[split:]))


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], tree_root: bytes) -> bool:
    """Whether the path leads from the leaf at that index to the root of a tree of that size."""
    if index >= size:
        return False
    node, here, last = leaf, index, size - 1
    for sibling in path:
        if last == 0:
            return False
        if here & 1 or here == last:
            node = _node_hash(sibling, node)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            node = _node_hash(node, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and node == tree_root


def consistent(before: int, before_root: bytes, after: int, after_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree of the greater size is shown to begin with the tree of the smaller one, which is not empty."""
    if not 0 < before <= after:
        return False
    if before == after:
        return not path and before_root == after_root
    steps = [before_root, *path] if before & (before - 1) == 0 else list(path)
    if not steps:
        return False
    here, last = before - 1, after - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    first = second = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            first, second = _node_hash(sibling, first), _node_hash(sibling, second)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            second = _node_hash(second, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and first == before_root and second == after_root
