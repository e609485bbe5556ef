"""Anchors as NotaryService shows them."""

from __future__ import annotations

from typing import Final

from lockstep.notary.v1 import anchor_pb2
from lockstep_contracts.notary import AnchorKind
from lockstep_kit.merkle import audit_path, leaf_hash
from notary.anchors.plan_store import PlacedLeaf
from notary.anchors.queue import Anchored

_KINDS: Final = {
    AnchorKind.CHECKPOINT: anchor_pb2.ANCHOR_KIND_CHECKPOINT,
    AnchorKind.REGISTRATIONS: anchor_pb2.ANCHOR_KIND_REGISTRATIONS,
    AnchorKind.OUTCOMES: anchor_pb2.ANCHOR_KIND_OUTCOMES,
}


def proof_to_pb(leaf: PlacedLeaf, anchored: Anchored | None, chain: str, registry: str) -> anchor_pb2.PlanProof:
    """A plan's leaf with its path (RFC 6962), and the anchor of its root once there is one."""
    hashes = [leaf_hash(each) for each in leaf.leaves]
    proof = anchor_pb2.PlanProof(
        leaf_data=leaf.data,
        leaf_index=leaf.index,
        tree_size=len(hashes),
        path=audit_path(hashes, leaf.index),
        root_hash=leaf.root,
    )
    if anchored is not None:
        proof.anchor.CopyFrom(anchor_to_pb(anchored, chain, registry))
    return proof


def anchor_to_pb(anchored: Anchored, chain: str, registry: str) -> anchor_pb2.Anchor:
    """A root that stands on the registry of that chain (CAIP-2, EIP-55)."""
    asked = anchored.request
    return anchor_pb2.Anchor(
        kind=_KINDS[asked.kind],
        root_hash=asked.root,
        tree_size=asked.size,
        chain=chain,
        registry=registry,
        raw_transaction=anchored.raw_transaction,
        block_number=anchored.block_number,
        block_hash=anchored.block_hash,
    )
