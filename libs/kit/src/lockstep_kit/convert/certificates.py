"""Legs bound to their plan, decision certificates, authorities to abort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import certificate_pb2, outcome_pb2, signature_pb2
from lockstep_kit import ids, statements
from lockstep_kit.certificate import AbortAuthority, Binding, Certificate, DeadlinePassed, Decision
from lockstep_kit.convert.plans import header_from_pb, header_to_pb, leg_from_pb, leg_to_pb
from lockstep_kit.convert.statements import (
    gate_from_pb,
    gate_to_pb,
    outcome_from_pb,
    outcome_to_pb,
    vote_from_pb,
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
    return leg_pb2.LegBinding(
        plan=header_to_pb(binding.header),
        leg=leg_to_pb(binding.leg),
        leg_index=binding.index,
        inclusion_path=binding.path,
        lock=binding.lock,
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
    message = certificate_pb2.DecisionCertificate(
        plan=header_to_pb(certificate.header),
        make=gate_to_pb(certificate.make),
        approve=gate_to_pb(certificate.approve),
        release=gate_to_pb(certificate.release),
        votes=[vote_to_pb(each) for each in certificate.votes],
        decision=enum_to_pb(DECISIONS, certificate.decision),
        delegated_leg_id=certificate.delegated_leg_id,
        decide_time=time_to_pb(certificate.decided_at),
        further_approvals=[gate_to_pb(each) for each in certificate.further_approvals],
        further_releases=[gate_to_pb(each) for each in certificate.further_releases],
    )
    if certificate.delegated_outcome is not None:
        message.delegated_outcome.CopyFrom(outcome_to_pb(certificate.delegated_outcome))
    return message


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
