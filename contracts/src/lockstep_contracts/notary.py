"""The NotaryRegistry: the calldata of every call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from lockstep_contracts.artifacts import artifact
from lockstep_contracts.calldata import encode_deployment, function

REGISTRY: Final = artifact("NotaryRegistry")

REGISTER: Final = function(REGISTRY, "register")
REGISTER_MANY: Final = function(REGISTRY, "registerMany")
FINALISE: Final = function(REGISTRY, "finalise")
FINALISE_MANY: Final = function(REGISTRY, "finaliseMany")
STATUS_OF: Final = function(REGISTRY, "statusOf")
STATUS_OF_MANY: Final = function(REGISTRY, "statusOfMany")
PLAN_OF: Final = function(REGISTRY, "planOf")
ANCHOR_MANY: Final = function(REGISTRY, "anchorMany")
ANCHOR_OF_MANY: Final = function(REGISTRY, "anchorOfMany")
RECORD_ESCALATIONS: Final = function(REGISTRY, "recordEscalations")
ESCALATION_OF_MANY: Final = function(REGISTRY, "escalationOfMany")


class PlanStatus(IntEnum):
    """Where a plan stands on the contract; the last three are outcomes, and final."""

    NONE = 0
    REGISTERED = 1
    COMMITTED = 2
    ABORTED = 3
    MIXED = 4


class AnchorKind(IntEnum):
    """What a root is the root of, by the numbers of the contract; NONE: nothing is known of it."""

    NONE = 0
    CHECKPOINT = 1
    REGISTRATIONS = 2
    OUTCOMES = 3


class EscalationKind(IntEnum):
    """What is said of an escalation, by the numbers of the contract."""

    OPENED = 1
    RESOLVED = 2


@dataclass(frozen=True, slots=True)
class Finalisation:
    """How a plan ended."""

    #: SHA-256 of the plan's canonical bytes.
    plan_digest: bytes
    #: COMMITTED, ABORTED or MIXED.
    outcome: PlanStatus
    #: Hash of the evidence of the outcome, 32 bytes.
    evidence_hash: bytes

    def __post_init__(self) -> None:
        """Keep finalisations from existing that cannot be encoded or are none."""
        if len(self.plan_digest) != 32 or len(self.evidence_hash) != 32:
            raise ValueError("plan digest and evidence hash have 32 bytes")
        if self.outcome not in (PlanStatus.COMMITTED, PlanStatus.ABORTED, PlanStatus.MIXED):
            raise ValueError("the outcome is COMMITTED, ABORTED or MIXED")

    def fields(self) -> tuple[Any, ...]:
        """The members of the contract's struct, in order."""
        return self.plan_digest, int(self.outcome), self.evidence_hash


@dataclass(frozen=True, slots=True)
class Root:
    """A Merkle root to anchor."""

    #: CHECKPOINT, REGISTRATIONS or OUTCOMES.
    kind: AnchorKind
    #: The root, 32 bytes.
    root: bytes
    #: Number of leaves under it.
    size: int

    def __post_init__(self) -> None:
        """Keep roots from existing that cannot be encoded: one of them would make a whole batch undecodable."""
        if len(self.root) != 32:
            raise ValueError("a root has 32 bytes")
        if self.kind is AnchorKind.NONE or not 1 <= self.size < 2**64:
            raise ValueError("a root is of some kind, and has 1 to 2^64 - 1 leaves")

    def fields(self) -> tuple[Any, ...]:
        """The members of the contract's struct, in order."""
        return int(self.kind), self.root, self.size


@dataclass(frozen=True, slots=True)
class EscalationRecord:
    """One thing that is said of an escalation."""

    #: SHA-256 of the canonical bytes of the plan that it is about.
    plan_digest: bytes
    #: SHA-256 of the escalation's id.
    escalation: bytes
    #: OPENED or RESOLVED.
    kind: EscalationKind
    #: SHA-256 of the canonical document.
    document_hash: bytes

    def __post_init__(self) -> None:
        """Keep records from existing that cannot be encoded, or that the contract would take for none."""
        if any(len(each) != 32 for each in (self.plan_digest, self.escalation, self.document_hash)):
            raise ValueError("plan digest, escalation and document hash have 32 bytes")
        if not any(self.document_hash):
            raise ValueError("the document hash is not zero")

    @property
    def key(self) -> bytes:
        """What the contract's Skipped event names it by."""
        return keccak(encode(["bytes32", "uint8"], [self.escalation, int(self.kind)]))

    def fields(self) -> tuple[Any, ...]:
        """The members of the contract's struct, in order."""
        return self.plan_digest, self.escalation, int(self.kind), self.document_hash


@dataclass(frozen=True, slots=True)
class KnownEscalation:
    """What the contract knows of an escalation; b"" for what was not said."""

    #: Plan that it is about.
    plan_digest: bytes
    #: Hash of the document that was recorded when it was opened.
    opened: bytes
    #: Hash of the document that was recorded when it was resolved.
    resolved: bytes

    def hash_of(self, kind: EscalationKind) -> bytes:
        """Hash of the document of that kind; b"" where there is none."""
        return self.opened if kind is EscalationKind.OPENED else self.resolved


def encode_registry_deployment(*, admin: str, operator: str) -> bytes:
    """Data of the transaction that deploys a registry with its first role holders."""
    return encode_deployment(REGISTRY, admin, operator)


def encode_register(plan_digest: bytes) -> bytes:
    """Calldata of register."""
    return REGISTER.encode(plan_digest)


def encode_register_many(plan_digests: Sequence[bytes]) -> bytes:
    """Calldata of registerMany."""
    return REGISTER_MANY.encode(plan_digests)


def encode_finalise(finalisation: Finalisation) -> bytes:
    """Calldata of finalise."""
    return FINALISE.encode(finalisation.fields())


def encode_finalise_many(finalisations: Sequence[Finalisation]) -> bytes:
    """Calldata of finaliseMany."""
    return FINALISE_MANY.encode([finalisation.fields() for finalisation in finalisations])


def encode_plan_status_of(plan_digest: bytes) -> bytes:
    """Calldata of statusOf."""
    return STATUS_OF.encode(plan_digest)


def decode_plan_status_of(result: bytes) -> PlanStatus:
    """Result of statusOf."""
    return PlanStatus(STATUS_OF.decode(result)[0])


def encode_plan_status_of_many(plan_digests: Sequence[bytes]) -> bytes:
    """Calldata of statusOfMany."""
    return STATUS_OF_MANY.encode(plan_digests)


def decode_plan_status_of_many(result: bytes) -> tuple[PlanStatus, ...]:
    """Result of statusOfMany, in the order asked."""
    return tuple(PlanStatus(status) for status in STATUS_OF_MANY.decode(result)[0])


def encode_plan_of(plan_digest: bytes) -> bytes:
    """Calldata of planOf."""
    return PLAN_OF.encode(plan_digest)


def decode_plan_of(result: bytes) -> tuple[PlanStatus, bytes]:
    """Result of planOf: where the plan stands, and the first 31 bytes of the evidence hash; zeros before it ended."""
    status, digest = PLAN_OF.decode(result)
    return PlanStatus(status), digest


def encode_anchor_many(roots: Sequence[Root]) -> bytes:
    """Calldata of anchorMany."""
    return ANCHOR_MANY.encode([root.fields() for root in roots])


def encode_anchor_of_many(roots: Sequence[bytes]) -> bytes:
    """Calldata of anchorOfMany."""
    return ANCHOR_OF_MANY.encode(roots)


def decode_anchor_of_many(result: bytes) -> tuple[tuple[AnchorKind, int], ...]:
    """Result of anchorOfMany, in the order asked: kind and number of leaves; NONE and 0 where nothing is known."""
    return tuple((AnchorKind(kind), size) for kind, size in ANCHOR_OF_MANY.decode(result)[0])


def encode_record_escalations(records: Sequence[EscalationRecord]) -> bytes:
    """Calldata of recordEscalations."""
    return RECORD_ESCALATIONS.encode([record.fields() for record in records])


def encode_escalation_of_many(escalations: Sequence[bytes]) -> bytes:
    """Calldata of escalationOfMany."""
    return ESCALATION_OF_MANY.encode(escalations)


def decode_escalation_of_many(result: bytes) -> tuple[KnownEscalation, ...]:
    """Result of escalationOfMany, in the order asked."""
    return tuple(
        KnownEscalation(*(each if any(each) else b"" for each in fields)) for fields in ESCALATION_OF_MANY.decode(result)[0]
    )
