"""What can happen to a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from coordinator.model.plans import GateRecord, OperatorsEvidence
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.statements import SignedOutcome, SignedVote


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


@dataclass(frozen=True, slots=True)
class OperatorsRedrove:
    """Two operators ordered that a refused leg be tried again."""

    #: The leg.
    leg_id: LegId


@dataclass(frozen=True, slots=True)
class OperatorsUnwound:
    """Two operators ordered that the executed legs be reversed."""


@dataclass(frozen=True, slots=True)
class OperatorsSettled:
    """Two operators settled the plan outside, with evidence: its outcome is MIXED for ever."""

    #: One sentence.
    detail: str


@dataclass(frozen=True, slots=True)
class LegReversed:
    """A participant reversed an executed leg, or refused to."""

    #: The leg.
    leg_id: LegId
    #: Whether it was reversed.
    done: bool
    #: One sentence.
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CommitsWithheld:
    """Commits of a plan that became PARTIALLY_EXECUTED were stopped before they were ever sent."""

    #: The legs.
    leg_ids: tuple[LegId, ...]


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
    | LegReversed
    | CommitsWithheld
    | PersonNeeded
    | Tick
)
