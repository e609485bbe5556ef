"""A plan's end in a batch is believed for nothing but its path to a root that the registry holds: whatever was changed is found out by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lockstep.notary.v1 import anchor_pb2
from lockstep_client.batch_proof import PREFIX, RootRecord, check_batched
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.canonical import canonical
from lockstep_kit.ids import sha256
from lockstep_kit.merkle import audit_path, leaf_hash, root

PLAN, EVIDENCE = sha256(b"plan"), sha256(b"evidence")


def leaf(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "version": 1,
        "kind": "outcome",
        "plan_digest": PLAN.hex(),
        "outcome": "Aborted",
        "evidence_digest": EVIDENCE.hex(),
    }
    return PREFIX + canonical(document | changes)


def proof_of(data: bytes) -> anchor_pb2.PlanProof:
    leaves = [leaf_hash(each) for each in (b"a", data, b"c")]
    return anchor_pb2.PlanProof(leaf_data=data, leaf_index=1, tree_size=3, path=audit_path(leaves, 1), root_hash=root(leaves))


STANDS = RootRecord("eip155:138", AnchorKind.OUTCOMES, 3, bytes(range(32)), 17)


def test_a_proof_that_holds() -> None:
    """The end is what the leaf says, with the whole hash of its evidence; nothing is found."""
    record, found = check_batched(proof_of(leaf()), PLAN, STANDS)
    assert found == []
    assert (record.status, record.hashes, record.kept) == (PlanStatus.ABORTED, (EVIDENCE,), EVIDENCE[:31])
    assert (record.chain, record.block_number) == ("eip155:138", 17)


def test_a_root_that_is_not_anchored_yet() -> None:
    """Where the registry knows nothing of the root, nothing is said against the proof, and nothing stands on chain."""
    record, found = check_batched(proof_of(leaf()), PLAN, replace(STANDS, kind=AnchorKind.NONE, size=0))
    assert (record.status, found) == (PlanStatus.NONE, [])


@pytest.mark.parametrize(
    ("proof", "rule"),
    [
        (proof_of(leaf(plan_digest=sha256(b"other").hex())), "ANCHOR_LEAF"),
        (proof_of(leaf(kind="registration")), "ANCHOR_LEAF"),
        (proof_of(leaf(version=2)), "ANCHOR_LEAF"),
        (proof_of(leaf(outcome="Settled")), "ANCHOR_LEAF"),
        (proof_of(leaf() + b" "), "ANCHOR_LEAF"),
        (proof_of(b"no leaf"), "ANCHOR_LEAF"),
        (
            anchor_pb2.PlanProof(leaf_data=leaf(), leaf_index=1, tree_size=3, path=[bytes(32)] * 2, root_hash=bytes(32)),
            "ANCHOR_PATH",
        ),
    ],
)
def test_a_proof_that_was_changed(proof: anchor_pb2.PlanProof, rule: str) -> None:
    """What does not hold is named, and nothing of the plan is believed to stand on chain."""
    record, found = check_batched(proof, PLAN, STANDS)
    assert [each.rule for each in found] == [rule]
    assert record.status is PlanStatus.NONE


@pytest.mark.parametrize("record", [replace(STANDS, kind=AnchorKind.REGISTRATIONS), replace(STANDS, size=4)])
def test_a_root_of_something_else(record: RootRecord) -> None:
    """A root that the registry knows with another kind or size shows nothing."""
    shown, found = check_batched(proof_of(leaf()), PLAN, record)
    assert [each.rule for each in found] == ["ANCHOR_OTHER"]
    assert shown.status is PlanStatus.NONE
