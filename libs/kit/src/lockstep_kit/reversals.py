"""Who may order that an executed leg be reversed, and how such an order is named. Pure.

Two operators, over the same resolution; or nobody anew, where the plan's signed policy says `unwind_automatically` and a participant signed that another
of its legs will never execute. Participants check the order against their own registry before they undo anything (docs/protocol.md, "Reversal").
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeAlias

from lockstep_kit.canonical import digest_of
from lockstep_kit.certificate import Binding, Certificate, NotAuthorised, check_outcome
from lockstep_kit.ids import ActorId, Digest, sha256
from lockstep_kit.registry import Registry
from lockstep_kit.resolutions import ResolutionSignature, Verb, check_resolution
from lockstep_kit.statements import OutcomeKind, SignedOutcome
from lockstep_kit.values import dataclass

_ORDER_DOMAIN: Final = "lockstep/reverse/v1"


@dataclass(frozen=True, slots=True)
class OperatorsResolution:
    """Authority to reverse: two operators signed the same resolution REVERSE."""

    #: Their signatures.
    signatures: tuple[ResolutionSignature, ...]


@dataclass(frozen=True, slots=True)
class PolicyUnwind:
    """Authority to reverse: the plan says that it unwinds by itself, and one of its legs will never execute."""

    #: That leg's signed REFUSED.
    refused: SignedOutcome


ReverseAuthority: TypeAlias = OperatorsResolution | PolicyUnwind


def order_digest(authority: ReverseAuthority) -> Digest:
    """Names an order to reverse. Statements of operators have nonces, so each of their orders is one of its own; a plan's policy gives one only."""
    match authority:
        case OperatorsResolution():
            statements = sorted(sha256(each.statement.signed_bytes()).hex() for each in authority.signatures)
            return digest_of({"domain": _ORDER_DOMAIN, "statements": list(statements)})
        case PolicyUnwind():
            return digest_of({"domain": _ORDER_DOMAIN, "policy_of_plan": authority.refused.outcome.plan_digest.hex()})


def openers(certificate: Certificate, registry: Registry) -> frozenset[ActorId]:
    """Who opened the plan's gates, as far as the registry still knows their keys; the signatures were checked when the certificate was taken."""
    keys = {signed.signature.key_id for signed in certificate.signatures}
    return frozenset(actor.actor_id for actor in registry.actors if any(key.public.key_id in keys for key in actor.keys))


def check_reverse(
    authority: ReverseAuthority, binding: Binding, registry: Registry, moment: datetime, certificate: Certificate | None = None
) -> None:
    """The authority lets this participant reverse this leg at that moment of its own clock.

    With the certificate by which the leg was executed, the persons who opened the plan's gates are barred, and the refusal must come from the
    participant that had voted for its leg.

    Raises:
        NotAuthorised: with the first reason found.
    """
    binding.check()
    if not binding.leg.settling:
        raise NotAuthorised("REVERSE_LEG_KIND", "an evidence leg is never reversed")
    match authority:
        case OperatorsResolution():
            barred = frozenset() if certificate is None else openers(certificate, registry)
            check_resolution(authority.signatures, binding.header.digest, Verb.REVERSE, registry, moment, barred)
        case PolicyUnwind():
            _check_policy(authority.refused, binding, registry, certificate)


def _check_policy(refused: SignedOutcome, binding: Binding, registry: Registry, certificate: Certificate | None) -> None:
    if not binding.header.policy.unwind_automatically:
        raise NotAuthorised("REVERSE_POLICY", "the plan does not say that it unwinds by itself")
    outcome = refused.outcome
    if outcome.plan_digest != binding.header.digest or outcome.kind is not OutcomeKind.REFUSED:
        raise NotAuthorised("REVERSE_OUTCOME", "the outcome is about another plan, or no refusal")
    if outcome.leg_id == binding.leg.leg_id:
        raise NotAuthorised("REVERSE_OUTCOME", "the refusal is about the leg itself, which is executed")
    check_outcome(refused, registry)
    if certificate is None:
        return
    voter = next((each.vote.participant for each in certificate.votes if each.vote.leg_id == outcome.leg_id), None)
    if voter != outcome.participant:
        raise NotAuthorised("REVERSE_OUTCOME", "the refusal is not by the participant that voted for its leg")
