"""What can happen to a plan."""

from __future__ import annotations

from typing import TypeAlias

from coordinator.model.plans import GateRecord, Mandate, OperatorsEvidence, Ticket
from lockstep_kit.fence import Phase
from lockstep_kit.ids import Digest, LegId
from lockstep_kit.statements import SignedOutcome, SignedVote
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Created:
    """The plan was accepted."""

    #: Its maker's signature.
    make: GateRecord


@dataclass(frozen=True, slots=True)
class ExecuteAsked:
    """A client asked for execution, with the token payers' signatures."""


@dataclass(frozen=True, slots=True)
class ChecksBegun:
    """The checks before Prepare start."""


@dataclass(frozen=True, slots=True)
class ChecksPassed:
    """Every check before Prepare passed."""


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """A check before Prepare failed."""

    #: UPPER_SNAKE reason.
    reason: str
    #: Leg that it is about, or "".
    leg_id: str
    #: One sentence.
    detail: str


@dataclass(frozen=True, slots=True)
class LegNews:
    """A participant's report of a leg."""

    #: The leg.
    leg_id: LegId
    #: Where it stands.
    phase: Phase
    #: Grows with every change.
    revision: int
    #: Its vote, once given.
    vote: SignedVote | None
    #: Its outcome, once known.
    outcome: SignedOutcome | None
    #: What the participant complains of, or "".
    trouble: str = ""
    #: Its answer to the last order to reverse the leg, once there is one.
    reversal: SignedOutcome | None = None


@dataclass(frozen=True, slots=True)
class GateSigned:
    """A person signed a gate; whether the person may was checked by `gates.admit`."""

    #: The signature.
    record: GateRecord


@dataclass(frozen=True, slots=True)
class OperatorsAnswered:
    """Two operators gave evidence in place of a participant's answer."""

    #: The leg.
    leg_id: LegId
    #: What they say became of it.
    answer: OperatorsEvidence
    #: What they signed, for the journal and watchers; here and below it decides nothing by itself.
    mandate: Mandate | None = None


@dataclass(frozen=True, slots=True)
class OperatorsRedrove:
    """Two operators ordered that the plan be tried again now.

    With a leg they take back their own word that it took no effect. What its participant refused for good stays refused.
    """

    #: The leg, or "".
    leg_id: LegId | str = ""
    #: What they signed.
    mandate: Mandate | None = None


@dataclass(frozen=True, slots=True)
class OperatorsUnwound:
    """Two operators ordered that the executed legs be reversed."""

    #: What they signed: participants are shown it, and reverse nothing without.
    mandate: Mandate


@dataclass(frozen=True, slots=True)
class OperatorsSettled:
    """Two operators settled the plan outside, with evidence: its outcome is MIXED for ever."""

    #: One sentence.
    detail: str
    #: What they signed.
    mandate: Mandate | None = None


@dataclass(frozen=True, slots=True)
class OperatorsForgot:
    """Two operators closed a ticket: its matter is over."""

    #: The ticket.
    ticket: Ticket
    #: What they signed.
    mandate: Mandate | None = None


@dataclass(frozen=True, slots=True)
class CommitsWithheld:
    """Commits of a plan that became PARTIALLY_EXECUTED were stopped before they were ever sent."""

    #: The legs.
    leg_ids: tuple[LegId, ...]


@dataclass(frozen=True, slots=True)
class AuditWritten:
    """The abort audit log that was ordered last is where it cannot be lost any more."""

    #: SHA-256 of its bytes.
    digest: Digest


@dataclass(frozen=True, slots=True)
class PersonNeeded:
    """Something about the plan that is no fact of it needs a person: an answer that its participant did not sign, a command rejected again and again."""

    #: UPPER_SNAKE reason.
    reason: str
    #: Leg that it is about, or "".
    leg_id: str
    #: One sentence.
    detail: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The database was put back; since then every participant was asked, the journal was read, and what they know of a decision was adopted."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = (
    Created
    | ExecuteAsked
    | ChecksBegun
    | ChecksPassed
    | CheckFailed
    | LegNews
    | GateSigned
    | OperatorsAnswered
    | OperatorsRedrove
    | OperatorsUnwound
    | OperatorsSettled
    | OperatorsForgot
    | CommitsWithheld
    | AuditWritten
    | PersonNeeded
    | Restored
    | Tick
)
