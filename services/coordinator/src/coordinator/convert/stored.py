"""Between the bytes that rows keep (deterministic protobuf) and the domain. What was stored was checked on its way in; here it is only read.

What never changes is read once and remembered: the same bytes are the same value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from coordinator.model import Mandate, OperatorsEvidence
from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import certificate_pb2, outcome_pb2, plan_pb2, resolution_pb2, signature_pb2
from lockstep_kit import convert
from lockstep_kit.certificate import AbortAuthority
from lockstep_kit.ids import ActorId
from lockstep_kit.participant.convert import closing_from_pb, closing_to_pb
from lockstep_kit.participant.ports import Closing
from lockstep_kit.permits import Permit
from lockstep_kit.plan import Leg, PlanHeader
from lockstep_kit.resolutions import ResolutionSignature
from lockstep_kit.reversals import OperatorsResolution, PolicyUnwind, ReverseAuthority
from lockstep_kit.statements import GateSignature, SignedOutcome, SignedVote

_REMEMBERED_MAX: Final = 8_192


def header_octets(header: PlanHeader) -> bytes:
    """A head as it is kept."""
    return convert.header_octets(header)


@lru_cache(_REMEMBERED_MAX)
def header_of(octets: bytes) -> PlanHeader:
    """A kept head."""
    return convert.header_from_pb(plan_pb2.PlanHeader.FromString(octets))


def leg_octets(leg: Leg) -> bytes:
    """A leg as it is kept."""
    return convert.leg_octets(leg)


@lru_cache(_REMEMBERED_MAX)
def leg_of(octets: bytes, header: bytes) -> Leg:
    """A kept leg of the plan with that head."""
    return convert.leg_from_pb(plan_pb2.Leg.FromString(octets), header_of(header))


def gate_octets(signed: GateSignature) -> bytes:
    """A gate's signature as it is kept."""
    return convert.gate_octets(signed)


@lru_cache(_REMEMBERED_MAX)
def gate_of(octets: bytes) -> GateSignature:
    """A kept gate's signature."""
    return convert.gate_from_pb(signature_pb2.GateSignature.FromString(octets))


def vote_octets(signed: SignedVote | None) -> bytes | None:
    """A vote as it is kept."""
    return None if signed is None else convert.vote_octets(signed)


@lru_cache(_REMEMBERED_MAX)
def vote_of(octets: bytes | None) -> SignedVote | None:
    """A kept vote."""
    return None if octets is None else convert.vote_from_pb(outcome_pb2.SignedVote.FromString(octets))


def outcome_octets(signed: SignedOutcome | None) -> bytes | None:
    """An outcome as it is kept."""
    return None if signed is None else convert.outcome_octets(signed)


@lru_cache(_REMEMBERED_MAX)
def outcome_of(octets: bytes | None) -> SignedOutcome | None:
    """A kept outcome."""
    return None if octets is None else convert.outcome_from_pb(outcome_pb2.SignedOutcome.FromString(octets))


def permit_octets(permit: Permit | None) -> bytes | None:
    """A payer's allowance as it is kept."""
    return None if permit is None else convert.permit_to_pb(permit).SerializeToString(deterministic=True)


def permit_of(octets: bytes | None) -> Permit | None:
    """A kept allowance of a payer."""
    return None if octets is None else convert.permit_from_pb(signature_pb2.Permit.FromString(octets))


def operators_octets(answer: OperatorsEvidence | None) -> bytes | None:
    """What operators showed, as it is kept."""
    return None if answer is None else convert.evidence_to_pb(answer.evidence).SerializeToString(deterministic=True)


def operators_of(executed: bool | None, octets: bytes | None) -> OperatorsEvidence | None:
    """What operators showed."""
    if executed is None or octets is None:
        return None
    return OperatorsEvidence(executed, convert.evidence_from_pb(outcome_pb2.Evidence.FromString(octets)))


def resolution_octets(signed: ResolutionSignature) -> bytes:
    """An operator's signature as it is kept."""
    return convert.resolution_to_pb(signed).SerializeToString(deterministic=True)


@lru_cache(_REMEMBERED_MAX)
def resolution_of(octets: bytes) -> ResolutionSignature:
    """A kept operator's signature."""
    return convert.resolution_from_pb(resolution_pb2.ResolutionSignature.FromString(octets))


def mandate_of(first: bytes, second: bytes, first_actor: str, second_actor: str) -> Mandate:
    """What two operators signed."""
    return Mandate((resolution_of(first), resolution_of(second)), (ActorId(first_actor), ActorId(second_actor)))


def closing_octets(closing: Closing | None) -> bytes | None:
    """How a plan is to be closed, as it is kept."""
    return None if closing is None else closing_to_pb(closing).SerializeToString(deterministic=True)


def closing_of(octets: bytes | None) -> Closing | None:
    """How a plan is to be closed. Which of its fields the leg needs was seen to when it was given."""
    return None if octets is None else closing_from_pb(leg_pb2.Closing.FromString(octets), journal=False)


def authority_octets(authority: AbortAuthority | ReverseAuthority | None) -> bytes | None:
    """Why a leg may be released or reversed, as it is kept."""
    if isinstance(authority, OperatorsResolution | PolicyUnwind):
        return convert.reverse_authority_to_pb(authority).SerializeToString(deterministic=True)
    return None if authority is None else convert.authority_to_pb(authority).SerializeToString(deterministic=True)


def reverse_authority_of(octets: bytes) -> ReverseAuthority:
    """Why a leg may be reversed."""
    return convert.reverse_authority_from_pb(resolution_pb2.ReverseAuthority.FromString(octets))


def authority_of(octets: bytes | None) -> AbortAuthority | None:
    """Why a leg may be released."""
    return None if octets is None else convert.authority_from_pb(certificate_pb2.AbortAuthority.FromString(octets))
