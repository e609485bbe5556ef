"""Operators' resolutions, and authorities to reverse."""

from __future__ import annotations

from typing import Final

from lockstep.type.v1 import resolution_pb2
from lockstep_kit import ids
from lockstep_kit.convert.statements import (
    evidence_from_pb,
    evidence_to_pb,
    outcome_from_pb,
    outcome_to_pb,
    signature_from_pb,
    signature_to_pb,
)
from lockstep_kit.convert.values import enum_from_pb, enum_to_pb, time_from_pb, time_to_pb
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.resolutions import Resolution, ResolutionSignature, ResolutionStatement, Verb
from lockstep_kit.reversals import OperatorsResolution, PolicyUnwind, ReverseAuthority

VERBS: Final = {
    resolution_pb2.VERB_RETRY: Verb.RETRY,
    resolution_pb2.VERB_REVERSE: Verb.REVERSE,
    resolution_pb2.VERB_RESOLVE: Verb.RESOLVE,
    resolution_pb2.VERB_FORGET: Verb.FORGET,
}


def resolution_from_pb(message: resolution_pb2.ResolutionSignature) -> ResolutionSignature:
    """One operator's signed statement, its form checked."""
    require(message.HasField("resolution"), "resolution", "must be present")
    require(message.HasField("expire_time"), "expire_time", "must be present")
    told = message.resolution
    statement = ResolutionStatement(
        resolution=Resolution(
            plan_digest=ids.digest(told.plan_digest, "resolution.plan_digest"),
            escalation_id=told.escalation_id,
            verb=enum_from_pb(VERBS, told.verb, "resolution.verb"),
            leg_id=ids.leg_id(told.leg_id, "resolution.leg_id") if told.leg_id else "",
            executed=told.executed if told.HasField("executed") else None,
            evidence=evidence_from_pb(told.evidence) if told.HasField("evidence") else None,
            detail=told.detail,
        ),
        nonce=message.nonce,
        expires_at=time_from_pb(message.expire_time, "expire_time"),
    )
    statement.check()
    return ResolutionSignature(statement, signature_from_pb(message.signature))


def resolution_to_pb(signed: ResolutionSignature) -> resolution_pb2.ResolutionSignature:
    """One operator's signed statement as a message."""
    told = signed.statement.resolution
    message = resolution_pb2.ResolutionSignature(
        resolution=resolution_pb2.Resolution(
            plan_digest=told.plan_digest,
            escalation_id=told.escalation_id,
            verb=enum_to_pb(VERBS, told.verb),
            leg_id=told.leg_id,
            detail=told.detail,
        ),
        nonce=signed.statement.nonce,
        expire_time=time_to_pb(signed.statement.expires_at),
        signature=signature_to_pb(signed.signature),
    )
    if told.executed is not None:
        message.resolution.executed = told.executed
    if told.evidence is not None:
        message.resolution.evidence.CopyFrom(evidence_to_pb(told.evidence))
    return message


def reverse_authority_from_pb(message: resolution_pb2.ReverseAuthority) -> ReverseAuthority:
    """Why a leg may be reversed; what it proves is `check_reverse`."""
    match message.WhichOneof("authority"):
        case "operators":
            return OperatorsResolution(
                tuple(
                    _resolution_within(each, f"operators.signatures[{index}]")
                    for index, each in enumerate(message.operators.signatures)
                )
            )
        case "policy":
            require(message.policy.HasField("refused"), "policy.refused", "must be present")
            with within("policy.refused"):
                return PolicyUnwind(outcome_from_pb(message.policy.refused))
        case _:
            raise FieldInvalid("authority", "must be present")


def _resolution_within(message: resolution_pb2.ResolutionSignature, prefix: str) -> ResolutionSignature:
    with within(prefix):
        return resolution_from_pb(message)


def reverse_authority_to_pb(authority: ReverseAuthority) -> resolution_pb2.ReverseAuthority:
    """Why a leg may be reversed, as a message."""
    match authority:
        case OperatorsResolution():
            signatures = [resolution_to_pb(each) for each in authority.signatures]
            return resolution_pb2.ReverseAuthority(operators=resolution_pb2.OperatorsResolution(signatures=signatures))
        case PolicyUnwind():
            return resolution_pb2.ReverseAuthority(policy=resolution_pb2.PolicyUnwind(refused=outcome_to_pb(authority.refused)))
