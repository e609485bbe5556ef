"""How plans look on a terminal."""

from __future__ import annotations

import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.type.v1 import outcome_pb2
from lockstep_client.documents import leg_document
from lockstep_client.rendering import shown_by

PAID = outcome_pb2.SignedOutcome(
    kind=outcome_pb2.OUTCOME_KIND_DONE,
    evidence=outcome_pb2.Evidence(chain=outcome_pb2.ChainEvidence(block_number=7, entry_status="Committed")),
)
TAKEN_BACK = outcome_pb2.SignedOutcome(
    kind=outcome_pb2.OUTCOME_KIND_REVERSED,
    evidence=outcome_pb2.Evidence(chain=outcome_pb2.ChainEvidence(block_number=9, entry_status="Reversed")),
)
ROOT = outcome_pb2.ChainEvidence(entry_key=b"\x11" * 32, entry_status="Outcomes", block_number=7)
STAYS = outcome_pb2.SignedOutcome(
    kind=outcome_pb2.OUTCOME_KIND_REVERSAL_REFUSED, refusal=outcome_pb2.Refusal(reason="REVERSAL_UNSUPPORTED")
)


@pytest.mark.parametrize(
    ("reversal", "text"), [(None, "block 7 Committed"), (TAKEN_BACK, "block 9 Reversed"), (STAYS, "REVERSAL_UNSUPPORTED")]
)
def test_a_leg_is_shown_by_the_last_that_was_said_of_it(reversal: outcome_pb2.SignedOutcome | None, text: str) -> None:
    """A reversal, done or refused, is what shows a leg; what it was executed by stays in the document beside it."""
    leg = settlement.PlanLeg(outcome=PAID, reversal=reversal)
    assert shown_by(leg) == text
    document = leg_document(leg)
    assert document["outcome"]["evidence"]["block_number"] == 7
    assert ("reversal" in document) == (reversal is not None)


@pytest.mark.parametrize(
    ("root", "text"),
    [(ROOT, "leaf 0x222222222222… batch 0x111111111111… block 7"), (None, "leaf 0x222222222222… not anchored yet")],
)
def test_a_batched_leg_says_whether_it_is_anchored(root: outcome_pb2.ChainEvidence | None, text: str) -> None:
    """A plan's leaf is shown with its batch's root, or as not anchored; the document has no root where there is none."""
    evidence = outcome_pb2.Evidence(batch=outcome_pb2.BatchEvidence(leaf_hash=b"\x22" * 32, root=root))
    leg = settlement.PlanLeg(outcome=outcome_pb2.SignedOutcome(kind=outcome_pb2.OUTCOME_KIND_DONE, evidence=evidence))
    assert shown_by(leg) == text
    assert ("root" in leg_document(leg)["outcome"]["evidence"]) == (root is not None)
