"""The NotaryRegistry: the calldata of every call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

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


class PlanStatus(IntEnum):
    """Where a plan stands on the contract; the last three are outcomes, and final."""

    NONE = 0
    REGISTERED = 1
    COMMITTED = 2
    ABORTED = 3
    MIXED = 4


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
