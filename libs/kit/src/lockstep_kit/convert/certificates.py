"""Legs bound to their plan, decision certificates, authorities to abort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import certificate_pb2, outcome_pb2, signature_pb2
from lockstep_kit import ids, statements
from lockstep_kit.certificate import AbortAuthority, Binding, Certificate, DeadlinePassed, Decision
from lockstep_kit.convert.parts import number, part
from lockstep_kit.convert.plans import header_from_pb, header_octets, leg_from_pb, leg_octets
from lockstep_kit.convert.statements import (
    gate_from_pb,
    gate_octets,
    gate_to_pb,
    outcome_from_pb,
    outcome_octets,
    outcome_to_pb,
    vote_from_pb,
    vote_octets,
    vote_to_pb,
)
from lockstep_kit.convert.values import (
    enum_from_pb,
    enum_to_pb,
    time_from_pb,
    time_to_pb,
)
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.sod import SIGNATURES_MAX

DECISIONS: Final = {
    certificate_pb2.DECISION_COMMIT: Decision.COMMIT,
    certificate_pb2.DECISION_ABORT: Decision.ABORT,
    certificate_pb2.DECISION_DELEGATED: Decision.DELEGATED,
}

_BOUND_PLAN, _BOUND_LEG = part(leg_pb2.LegBinding, "plan"), part(leg_pb2.LegBinding, "leg")
_LEG_INDEX, _LOCK = number(leg_pb2.LegBinding, "leg_index"), part(leg_pb2.LegBinding, "lock")
_INCLUSION_PATH = part(leg_pb2.LegBinding, "inclusion_path")
_PLAN, _MAKE, _APPROVE, _RELEASE, _VOTES, _DELEGATED_OUTCOME, _FURTHER_APPROVALS, _FURTHER_RELEASES = (
    part(certificate_pb2.DecisionCertificate, each)
    for each in ("plan", "make", "approve", "release", "votes", "delegated_outcome", "further_approvals", "further_releases")
)


def binding_from_pb(message: leg_pb2.LegBinding) -> Binding:
    """A leg bound to its plan, its form checked; whether it belongs there is `Binding.check`."""
    require(message.HasField("plan"), "plan", "must be present")
    require(message.HasField("leg"), "leg", "must be present")
    with within("plan"):
        header = header_from_pb(message.plan)
    with within("leg"):
        leg = leg_from_pb(message.leg, header)
    return Binding(
        header=header,
        leg=leg,
        index=message.leg_index,
        path=tuple(ids.digest(each, f"inclusion_path[{index}]") for index, each in enumerate(message.inclusion_path)),
        lock=ids.digest(message.lock, "lock"),
    )


def binding_to_pb(binding: Binding) -> leg_pb2.LegBinding:
    """A leg bound to its plan as a message."""
    return leg_pb2.LegBinding.FromString(binding_octets(binding))


def binding_octets(binding: Binding) -> bytes:
    """A leg bound to its plan as the bytes of a message."""
    return b"".join(
        (
            _BOUND_PLAN(header_octets(binding.header)),
            _BOUND_LEG(leg_octets(binding.leg)),
            _LEG_INDEX(binding.index),
            *map(_INCLUSION_PATH, binding.path),
            _LOCK(binding.lock),
        )
    )


def certificate_from_pb(message: certificate_pb2.DecisionCertificate) -> Certificate:
    """A decision's certificate, its form checked; what it proves is `check_commit`."""
    for field in ("plan", "make", "approve", "release", "decide_time"):
        require(message.HasField(field), field, "must be present")
    with within("plan"):
        header = header_from_pb(message.plan)
    return Certificate(
        header=header,
        make=_gate_within(message.make, "make"),
        approve=_gate_within(message.approve, "approve"),
        release=_gate_within(message.release, "release"),
        votes=tuple(_vote_within(each, f"votes[{index}]") for index, each in enumerate(message.votes)),
        decision=enum_from_pb(DECISIONS, message.decision, "decision"),
        delegated_leg_id=message.delegated_leg_id,
        delegated_outcome=_outcome_within(message.delegated_outcome) if message.HasField("delegated_outcome") else None,
        decided_at=time_from_pb(message.decide_time, "decide_time"),
        further_approvals=_further(message.further_approvals, "further_approvals"),
        further_releases=_further(message.further_releases, "further_releases"),
    )


def _further(messages: Sequence[signature_pb2.GateSignature], field: str) -> tuple[statements.GateSignature, ...]:
    require(len(messages) < SIGNATURES_MAX, field, f"must be fewer than {SIGNATURES_MAX}")
    return tuple(_gate_within(each, f"{field}[{index}]") for index, each in enumerate(messages))


def _gate_within(message: signature_pb2.GateSignature, prefix: str) -> statements.GateSignature:
    with within(prefix):
        return gate_from_pb(message)


def _vote_within(message: outcome_pb2.SignedVote, prefix: str) -> statements.SignedVote:
    with within(prefix):
        return vote_from_pb(message)


def _outcome_within(message: outcome_pb2.SignedOutcome) -> statements.SignedOutcome:
    with within("delegated_outcome"):
        return outcome_from_pb(message)


def certificate_to_pb(certificate: Certificate) -> certificate_pb2.DecisionCertificate:
    """A decision's certificate as a message."""
    return certificate_pb2.DecisionCertificate.FromString(certificate_octets(certificate))


def certificate_octets(certificate: Certificate) -> bytes:
    """A decision's certificate as the bytes of a message."""
    message = certificate_pb2.DecisionCertificate(
        decision=enum_to_pb(DECISIONS, certificate.decision),
        delegated_leg_id=certificate.delegated_leg_id,
        decide_time=time_to_pb(certificate.decided_at),
    )
    outcome = certificate.delegated_outcome
    return b"".join(
        (
            _PLAN(header_octets(certificate.header)),
            _MAKE(gate_octets(certificate.make)),
            _APPROVE(gate_octets(certificate.approve)),
            _RELEASE(gate_octets(certificate.release)),
            *(_VOTES(vote_octets(each)) for each in certificate.votes),
            message.SerializeToString(deterministic=True),
            b"" if outcome is None else _DELEGATED_OUTCOME(outcome_octets(outcome)),
            *(_FURTHER_APPROVALS(gate_octets(each)) for each in certificate.further_approvals),
            *(_FURTHER_RELEASES(gate_octets(each)) for each in certificate.further_releases),
        )
    )


def authority_from_pb(message: certificate_pb2.AbortAuthority) -> AbortAuthority:
    """Why a leg may be released; what it proves is `check_abort`."""
    kind = message.WhichOneof("authority")
    if kind is None:
        raise FieldInvalid("authority", "must be present")
    with within(kind):
        match kind:
            case "no_vote":
                return vote_from_pb(message.no_vote)
            case "refused":
                return outcome_from_pb(message.refused)
            case "gate":
                return gate_from_pb(message.gate)
            case "deadline_passed":
                return DeadlinePassed()


def authority_to_pb(authority: AbortAuthority) -> certificate_pb2.AbortAuthority:
    """Why a leg may be released, as a message."""
    match authority:
        case statements.SignedVote():
            return certificate_pb2.AbortAuthority(no_vote=vote_to_pb(authority))
        case statements.SignedOutcome():
            return certificate_pb2.AbortAuthority(refused=outcome_to_pb(authority))
        case statements.GateSignature():
            return certificate_pb2.AbortAuthority(gate=gate_to_pb(authority))
        case DeadlinePassed():
            return certificate_pb2.AbortAuthority(deadline_passed=certificate_pb2.DeadlinePassed())
