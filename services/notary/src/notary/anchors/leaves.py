"""What a leaf of a plan batch says, byte for byte. Pure.

A leaf is "lockstep/anchor/v1", a line feed, and an RFC 8785 document; a batch is the RFC 6962 tree over its leaves, in their order. A leaf holds digests alone:
nothing about persons, accounts or amounts.
"""

from __future__ import annotations

from typing import Final

from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.canonical import Document, canonical
from lockstep_kit.values import dataclass

PREFIX: Final = b"lockstep/anchor/v1\n"
#: Outcomes by the contract's own names.
OUTCOMES: Final = {PlanStatus.COMMITTED: "Committed", PlanStatus.ABORTED: "Aborted", PlanStatus.MIXED: "Mixed"}


@dataclass(frozen=True, slots=True)
class Registration:
    """A plan is registered."""

    #: SHA-256 of the plan's canonical bytes.
    plan_digest: bytes

    @property
    def kind(self) -> AnchorKind:
        """Kind of the batches that it goes into."""
        return AnchorKind.REGISTRATIONS

    def leaf_data(self) -> bytes:
        """Data of the leaf."""
        return PREFIX + canonical({"version": 1, "kind": "registration", "plan_digest": self.plan_digest.hex()})


@dataclass(frozen=True, slots=True)
class Ending:
    """A plan ended."""

    #: SHA-256 of the plan's canonical bytes.
    plan_digest: bytes
    #: COMMITTED, ABORTED or MIXED.
    outcome: PlanStatus
    #: Hash of the evidence of the outcome.
    evidence_digest: bytes

    @property
    def kind(self) -> AnchorKind:
        """Kind of the batches that it goes into."""
        return AnchorKind.OUTCOMES

    def leaf_data(self) -> bytes:
        """Data of the leaf."""
        document: Document = {
            "version": 1,
            "kind": "outcome",
            "plan_digest": self.plan_digest.hex(),
            "outcome": OUTCOMES[self.outcome],
            "evidence_digest": self.evidence_digest.hex(),
        }
        return PREFIX + canonical(document)


Saying = Registration | Ending
