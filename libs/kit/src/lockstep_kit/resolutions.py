"""What operators decide about an escalation, and what makes it count: two persons' signatures over the same resolution. Pure.

Each operator signs a statement of their own, with a nonce and an expiry; that both mean the same is shown by the resolution's digest, which both
statements hold. Participants check the same pair before they reverse what they executed, each against its own registry.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from lockstep_kit.canonical import Document, digest_of, statement, time_text
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.fields import require
from lockstep_kit.forms import check_text
from lockstep_kit.ids import NONCE_BYTES, ActorId, Digest
from lockstep_kit.registry import Actor, Registry, Role
from lockstep_kit.signing import Signature, Signer
from lockstep_kit.statements import Evidence, evidence_document
from lockstep_kit.values import dataclass

RESOLUTION_DOMAIN: Final = "lockstep/resolution/v1"
DETAIL_LENGTH_MAX: Final = 500
ESCALATION_ID_LENGTH_MAX: Final = 100
#: Persons who must sign the same resolution.
SIGNERS: Final = 2


class Verb(StrEnum):
    """What operators can do about an escalation."""

    #: Try again now; with a leg, also what that leg was refused.
    RETRY = "RETRY"
    #: Reverse what was executed, release what is held.
    REVERSE = "REVERSE"
    #: With a leg: evidence in place of its participant's answer. Without: the plan was settled outside, MIXED for ever.
    RESOLVE = "RESOLVE"
    #: Close the ticket: its matter is over.
    FORGET = "FORGET"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is to be done about one escalation."""

    #: Plan that it is about.
    plan_digest: Digest
    #: The escalation.
    escalation_id: str
    #: What is to be done.
    verb: Verb
    #: Leg that it is about, or "".
    leg_id: str = ""
    #: RESOLVE with a leg only: whether the leg took effect.
    executed: bool | None = None
    #: RESOLVE with a leg only: what shows it.
    evidence: Evidence | None = None
    #: One sentence, for the journal.
    detail: str = ""

    def document(self) -> Document:
        """The resolution inside a canonical document."""
        document: dict[str, Document] = {
            "plan_digest": self.plan_digest.hex(),
            "escalation_id": self.escalation_id,
            "verb": self.verb.value,
            "leg_id": self.leg_id,
            "detail": self.detail,
        }
        if self.executed is not None:
            document["executed"] = self.executed
        if self.evidence is not None:
            document["evidence"] = evidence_document(self.evidence)
        return document

    @property
    def digest(self) -> Digest:
        """Names the resolution: two statements with the same digest mean the same."""
        return digest_of(self.document())

    def check(self) -> None:
        """Form rules.

        Raises:
            FieldInvalid: a field is missing or one too many.
        """
        answers = self.verb is Verb.RESOLVE and self.leg_id != ""
        check_text(self.escalation_id, "escalation_id", length_max=ESCALATION_ID_LENGTH_MAX)
        check_text(self.detail, "detail", length_max=DETAIL_LENGTH_MAX, empty=True)
        require(self.detail != "" or self.verb is not Verb.RESOLVE, "detail", "must say what shows it")
        require((self.executed is not None) == answers, "executed", "must be present for RESOLVE with a leg, and only there")
        require((self.evidence is not None) == answers, "evidence", "must be present for RESOLVE with a leg, and only there")
        require(self.leg_id == "" or self.verb in (Verb.RETRY, Verb.RESOLVE), "leg_id", "must be absent but for RETRY and RESOLVE")


@dataclass(frozen=True, slots=True)
class ResolutionStatement:
    """What one operator signs."""

    #: What is to be done.
    resolution: Resolution
    #: 16 random bytes.
    nonce: bytes
    #: From then on it counts for nothing new.
    expires_at: datetime

    def signed_bytes(self) -> bytes:
        """The bytes that the signature is over."""
        return statement(
            RESOLUTION_DOMAIN,
            {"resolution": self.resolution.document(), "nonce": self.nonce.hex(), "expires_at": time_text(self.expires_at)},
        )

    def check(self) -> None:
        """Form rules.

        Raises:
            FieldInvalid: a field is missing or one too many.
        """
        require(len(self.nonce) == NONCE_BYTES, "nonce", f"must be {NONCE_BYTES} random bytes")
        self.resolution.check()


@dataclass(frozen=True, slots=True)
class ResolutionSignature:
    """One operator's signed statement."""

    #: What was signed.
    statement: ResolutionStatement
    #: By whose key.
    signature: Signature


def sign_resolution(signed: ResolutionStatement, key: Signer) -> ResolutionSignature:
    """A resolution statement, signed."""
    return ResolutionSignature(signed, key.sign(signed.signed_bytes()))


def check_operator(signed: ResolutionSignature, plan_digest: Digest, registry: Registry, moment: datetime) -> Actor:
    """The operator who signed this, by a key and a statement that are valid at that moment.

    Raises:
        NotAuthorised: RESOLUTION_PLAN_DIGEST, RESOLUTION_EXPIRED, RESOLUTION_SIGNATURE, RESOLUTION_ROLE.
    """
    told = signed.statement
    if told.resolution.plan_digest != plan_digest:
        raise NotAuthorised("RESOLUTION_PLAN_DIGEST", "the resolution is about another plan")
    if moment >= told.expires_at:
        raise NotAuthorised("RESOLUTION_EXPIRED", "the resolution's time is over")
    actor = registry.actor_of(signed.signature, told.signed_bytes(), moment)
    if actor is None:
        raise NotAuthorised("RESOLUTION_SIGNATURE", "no registered key that is valid now made this signature")
    if Role.OPERATOR not in actor.roles:
        raise NotAuthorised("RESOLUTION_ROLE", f"{actor.actor_id} is no operator")
    return actor


def check_resolution(
    signatures: Sequence[ResolutionSignature],
    plan_digest: Digest,
    verb: Verb,
    registry: Registry,
    moment: datetime,
    barred: Collection[ActorId] = (),
) -> Resolution:
    """The resolution that two operators signed alike, none of whom is barred (has acted in the plan's gates).

    Raises:
        NotAuthorised: as `check_operator`; RESOLUTION_VERB, RESOLUTION_DIFFERS, RESOLUTION_SIGNERS, RESOLUTION_SAME_PERSON.
    """
    if len(signatures) != SIGNERS:
        raise NotAuthorised("RESOLUTION_SIGNERS", f"a resolution takes {SIGNERS} operators' signatures")
    first = signatures[0].statement.resolution
    if first.verb is not verb:
        raise NotAuthorised("RESOLUTION_VERB", f"the resolution is {first.verb}, not {verb}")
    if any(each.statement.resolution.digest != first.digest for each in signatures):
        raise NotAuthorised("RESOLUTION_DIFFERS", "the operators did not sign the same resolution")
    actors = [check_operator(each, plan_digest, registry, moment).actor_id for each in signatures]
    if len(set(actors)) != len(actors) or set(actors) & set(barred):
        raise NotAuthorised("RESOLUTION_SAME_PERSON", "two operators sign a resolution, and neither has acted in the plan's gates")
    return first
