"""A plan's end that was put on chain in a batch: its leaf, the path to the root, and what a node says of the root. Pure."""

from __future__ import annotations

from typing import Final

from lockstep.notary.v1 import anchor_pb2
from lockstep_client.audit_check import KEPT_BYTES, RegistryRecord
from lockstep_client.evidence import Finding, Findings
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.canonical import canonical
from lockstep_kit.foreign_json import read_json
from lockstep_kit.merkle import leaf_hash, root_from_path
from lockstep_kit.values import dataclass

PREFIX: Final = b"lockstep/anchor/v1\n"
_OUTCOMES: Final = {"Committed": PlanStatus.COMMITTED, "Aborted": PlanStatus.ABORTED, "Mixed": PlanStatus.MIXED}


@dataclass(frozen=True, slots=True)
class RootRecord:
    """What a node says that a NotaryRegistry has about a root."""

    #: CAIP-2 id of the node's chain.
    chain: str
    #: What it is the root of; NONE where nothing is known of it.
    kind: AnchorKind
    #: Number of leaves under it.
    size: int
    #: Transaction that anchored it, or b"".
    transaction_hash: bytes
    #: Block of it, or 0.
    block_number: int


def check_batched(proof: anchor_pb2.PlanProof, plan_digest: bytes, root: RootRecord) -> tuple[RegistryRecord, list[Finding]]:
    """A plan's end by a leaf that leads to a root that the registry holds, as if it had a record of its own there; and what does not hold of it."""
    found = Findings()
    leads = root_from_path(leaf_hash(proof.leaf_data), proof.leaf_index, proof.tree_size, proof.path) == proof.root_hash
    found.expect(leads, "ANCHOR_PATH", "the leaf's path does not lead to the root that the notary names")
    said = _said(proof.leaf_data)
    about = said is not None and said[0] == plan_digest
    found.expect(about, "ANCHOR_LEAF", "the leaf is no outcome of this plan")
    stands = (root.kind, root.size) == (AnchorKind.OUTCOMES, proof.tree_size)
    anchored = root.kind is not AnchorKind.NONE
    found.expect(stands or not anchored, "ANCHOR_OTHER", f"the registry knows the root as {root.kind.name} over {root.size} leaves")
    if found or said is None or not stands:
        return absent(root.chain), found
    _, outcome, evidence = said
    record = RegistryRecord(root.chain, outcome, evidence[:KEPT_BYTES], (evidence,), root.transaction_hash, root.block_number)
    return record, found


def absent(chain: str) -> RegistryRecord:
    """Of a plan whose end is not on that chain (CAIP-2)."""
    return RegistryRecord(chain, PlanStatus.NONE, bytes(KEPT_BYTES), (), b"", 0)


def _said(leaf_data: bytes) -> tuple[bytes, PlanStatus, bytes] | None:
    """Plan digest, outcome and evidence digest that a leaf names; None where it is no outcome's, byte for byte."""
    document = leaf_data.removeprefix(PREFIX)
    try:
        named = read_json(document)
        said = bytes.fromhex(named["plan_digest"]), _OUTCOMES[named["outcome"]], bytes.fromhex(named["evidence_digest"])
    except (ValueError, KeyError, TypeError):
        return None
    same = named["version"] == 1 and named["kind"] == "outcome" and PREFIX + canonical(named) == leaf_data
    return said if same else None
