"""What is stored of a leg, and what the commands of a batch are once they have been read. Pure values.

Messages are kept as the bytes that were received or signed, so that a replay returns the very bytes; `participant.convert` reads them.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from lockstep_kit.certificate import AbortAuthority, Binding, Certificate, Decision
from lockstep_kit.fence import Command, Epoch, FenceRow, Phase, Rejected
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.participant.ports import Closing
from lockstep_kit.reversals import ReverseAuthority, order_digest
from lockstep_kit.statements import GateSignature, SignedVote
from lockstep_kit.values import dataclass

#: A leg's key in every table.
LegKey: TypeAlias = tuple[PlanId, LegId]


class Verdict(StrEnum):
    """How a command stands."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    REJECTED = "REJECTED"
    PENDING = "PENDING"


class ItemReason(StrEnum):
    """Why an item of a batch is Rejected, beside the fence's and the certificate's reasons."""

    FIELD_INVALID = "FIELD_INVALID"
    LEG_TWICE = "LEG_TWICE"
    LEG_KIND_NOT_SERVED = "LEG_KIND_NOT_SERVED"
    CERTIFICATE_MISSING = "CERTIFICATE_MISSING"
    LEG_COMMITTED = "LEG_COMMITTED"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a command changed nothing."""

    #: UPPER_SNAKE, docs/errors.md.
    reason: str
    #: One sentence.
    message: str
    #: Path of the field at fault, or "".
    field: str = ""


@dataclass(frozen=True, slots=True)
class LegRecord:
    """A leg's row."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: What the fence remembers.
    fence: FenceRow
    #: Phase before the present one; None when the leg was not known.
    left: Phase | None
    #: Digest of the plan; None while only an epoch is known.
    plan_digest: Digest | None
    #: LegBinding; None while only an epoch is known.
    binding: bytes | None = field(repr=False, default=None)
    #: Prepare: until when it could begin.
    prepare_by: datetime | None = None
    #: Prepare: until when the promise must stand at the least.
    hold_until: datetime | None = None
    #: Prepare: the token payer's signature.
    payer_signature: bytes | None = field(repr=False, default=None)
    #: Prepare: the token payer's Permit.
    permit: bytes | None = field(repr=False, default=None)
    #: Commit: the leg's decision key.
    key: bytes | None = field(repr=False, default=None)
    #: Commit, delegated: never begun later.
    not_after: datetime | None = None
    #: Closing, of evidence legs.
    closing: bytes | None = field(repr=False, default=None)
    #: Abort: AbortAuthority.
    authority: bytes | None = field(repr=False, default=None)
    #: Commit: DecisionCertificate.
    certificate: bytes | None = field(repr=False, default=None)
    #: SignedVote, once voted.
    vote: bytes | None = field(repr=False, default=None)
    #: SignedOutcome, once there is one.
    outcome: bytes | None = field(repr=False, default=None)
    #: Reverse: ReverseAuthority of the last order.
    reverse_authority: bytes | None = field(repr=False, default=None)
    #: SignedOutcome of the last order to reverse, once there is one.
    reversal: bytes | None = field(repr=False, default=None)
    #: One sentence for a person, or "".
    trouble: str = ""
    #: W3C trace context of the call that began the phase.
    traceparent: str | None = None
    #: When the phase began, by the database's clock; None while only an epoch is known.
    since: datetime | None = None

    @property
    def key_of_leg(self) -> LegKey:
        """What the row is found by."""
        return self.plan_id, self.leg_id


@dataclass(frozen=True, slots=True)
class PrepareOrder:
    """A Prepare that has been read."""

    #: The maker's signature.
    make: GateSignature
    #: After this it is Rejected.
    prepare_by: datetime
    #: Until when the promise must stand at the least.
    hold_until: datetime
    #: The token payer's signature; b"" elsewhere.
    payer_signature: bytes = field(repr=False)
    #: The token payer's Permit; None where there is none.
    permit: bytes | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class CommitOrder:
    """A Commit that has been read."""

    #: Why it may be done.
    certificate: Certificate
    #: The same, as received.
    certificate_bytes: bytes = field(repr=False)
    #: The leg's key; b"" for evidence legs.
    key: bytes = field(repr=False)
    #: Delegated: never begun later.
    not_after: datetime | None
    #: Evidence legs: how the plan is to be closed.
    closing: Closing | None
    #: The same, as received.
    closing_bytes: bytes | None
    #: This participant's vote in the certificate, with its bytes; None when there is none for this leg.
    own_vote: tuple[SignedVote, bytes] | None


@dataclass(frozen=True, slots=True)
class AbortOrder:
    """An Abort that has been read."""

    #: Why it may be done.
    authority: AbortAuthority
    #: The same, as received.
    authority_bytes: bytes = field(repr=False)
    #: Evidence legs: how the plan is to be closed.
    closing: Closing | None
    #: The same, as received.
    closing_bytes: bytes | None


@dataclass(frozen=True, slots=True)
class ReverseOrder:
    """A Reverse that has been read."""

    #: Why it may be done.
    authority: ReverseAuthority
    #: The same, as received.
    authority_bytes: bytes = field(repr=False)

    @property
    def digest(self) -> Digest:
        """Names the order."""
        return order_digest(self.authority)


Order: TypeAlias = PrepareOrder | CommitOrder | AbortOrder | ReverseOrder


@dataclass(frozen=True, slots=True)
class Item:
    """One command of a batch that has been read."""

    #: Token of the sender.
    epoch: Epoch
    #: The leg.
    binding: Binding
    #: The same, as received.
    binding_bytes: bytes = field(repr=False)
    #: What the fence compares.
    digest: Digest
    #: What is asked.
    order: Order
    #: W3C trace context in which the work goes on.
    traceparent: str | None = None

    @property
    def command(self) -> Command:
        """The command, as the fence names it."""
        match self.order:
            case PrepareOrder():
                return Command.PREPARE
            case CommitOrder():
                return Command.COMMIT
            case AbortOrder():
                return Command.ABORT
            case ReverseOrder():
                return Command.REVERSE

    @property
    def key_of_leg(self) -> LegKey:
        """What the leg's row is found by."""
        return self.binding.header.plan_id, self.binding.leg.leg_id

    @property
    def decision(self) -> Decision | None:
        """The decision that a Commit carries."""
        return self.order.certificate.decision if isinstance(self.order, CommitOrder) else None


@dataclass(frozen=True, slots=True)
class Answer:
    """How one command of a batch stands."""

    #: Plan of the leg, as asked: not checked when the item could not be read.
    plan_id: str
    #: The leg, as asked.
    leg_id: str
    #: How it stands.
    verdict: Verdict
    #: What is known of the leg; None when nothing is.
    record: LegRecord | None = None
    #: Why, when rejected.
    rejection: Rejection | None = None


#: What each rejection of the fence means, for a person.
FENCE_MESSAGES: dict[Rejected, str] = {
    Rejected.DIGEST_MISMATCH: "the leg is known here with another plan digest, place or lock",
    Rejected.EPOCH_STALE: "a newer owner of the plan has spoken",
    Rejected.PREPARE_LATE: "prepare_by has passed by this participant's clock",
    Rejected.LEG_UNKNOWN: "the leg is not known here, and no certificate holds a vote of this participant for it",
    Rejected.LEG_NOT_PREPARED: "the leg has not voted yet",
    Rejected.LEG_ABORTING: "the leg is being released",
    Rejected.LEG_RELEASED: "the leg was released; it can never execute",
    Rejected.LEG_DECIDED: "the leg was told to commit; there is no way back",
    Rejected.COMMIT_LATE: "not_after has passed by this participant's clock",
    Rejected.LEG_NOT_EXECUTED: "the leg is not executed; there is nothing to reverse",
    Rejected.LEG_REVERSING: "the leg was executed and is being reversed",
    Rejected.LEG_REVERSED: "the leg was executed and reversed",
}
