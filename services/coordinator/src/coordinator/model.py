"""The values of the protocol: a plan as it stands, what can happen to it, what is to be done about it. Pure, frozen, deciding nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from lockstep_kit.certificate import AbortAuthority, Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, Digest, LegId, PlanId
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.plan import LegKind, Policy
from lockstep_kit.statements import Evidence, GateSignature, Promise, SignedOutcome, SignedVote


class State(StrEnum):
    """Where a plan stands."""

    DRAFT = "DRAFT"
    INITIATED = "INITIATED"
    PRECONDITIONS_PENDING = "PRECONDITIONS_PENDING"
    READY_FOR_PREPARE = "READY_FOR_PREPARE"
    PREPARED = "PREPARED"
    EXECUTING = "EXECUTING"
    VALIDATING = "VALIDATING"
    COMMITTED = "COMMITTED"
    CLOSED = "CLOSED"
    ABORTED = "ABORTED"
    PARTIALLY_EXECUTED = "PARTIALLY_EXECUTED"
    UNWIND_PENDING = "UNWIND_PENDING"


class Order(StrEnum):
    """The last command that was given about a leg."""

    NONE = "NONE"
    PREPARE = "PREPARE"
    COMMIT = "COMMIT"
    ABORT = "ABORT"
    REVERSE = "REVERSE"


class Cause(StrEnum):
    """Why a plan changes its state or decision."""

    CREATED = "CREATED"
    EXECUTE_ASKED = "EXECUTE_ASKED"
    CHECKS_BEGUN = "CHECKS_BEGUN"
    CHECKS_PASSED = "CHECKS_PASSED"
    CHECK_FAILED = "CHECK_FAILED"
    PREPARED_AND_APPROVED = "PREPARED_AND_APPROVED"
    RELEASED = "RELEASED"
    RELEASED_DELEGATED = "RELEASED_DELEGATED"
    VOTED_NO = "VOTED_NO"
    GATE_REJECTED = "GATE_REJECTED"
    PROMISE_WITHDRAWN = "PROMISE_WITHDRAWN"
    CANCELLED = "CANCELLED"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    DELEGATE_DONE = "DELEGATE_DONE"
    DELEGATE_RELEASED = "DELEGATE_RELEASED"
    ALL_DONE = "ALL_DONE"
    LEG_REFUSED = "LEG_REFUSED"
    CONTRADICTION = "CONTRADICTION"
    EVIDENCE_VALIDATED = "EVIDENCE_VALIDATED"
    EVIDENCE_REJECTED = "EVIDENCE_REJECTED"
    SEALED = "SEALED"
    FOUND_EXECUTED = "FOUND_EXECUTED"
    SETTLED_OUTSIDE = "SETTLED_OUTSIDE"
    REDRIVEN = "REDRIVEN"
    UNWIND_ORDERED = "UNWIND_ORDERED"
    UNWOUND = "UNWOUND"
    REVERSAL_REFUSED = "REVERSAL_REFUSED"


class EventType(StrEnum):
    """The journal's event types; there are no others."""

    PLAN_CREATED = "plan.created"
    PLAN_INITIATED = "plan.initiated"
    PLAN_READY = "plan.ready"
    LEG_PREPARED = "leg.prepared"
    LEG_REFUSED = "leg.refused"
    PLAN_APPROVED = "plan.approved"
    PLAN_RELEASED = "plan.released"
    LEG_EXECUTED = "leg.executed"
    EVIDENCE_VALIDATED = "evidence.validated"
    PLAN_COMMITTED = "plan.committed"
    PLAN_ABORTED = "plan.aborted"
    EXCEPTION_RAISED = "exception.raised"
    EXCEPTION_RESOLVED = "exception.resolved"
    LEG_REVERSED = "leg.reversed"
    PLAN_CLOSED = "plan.closed"


@dataclass(frozen=True, slots=True)
class LegState:
    """A leg as the coordinator knows it."""

    #: The leg.
    leg_id: LegId
    #: What it does.
    kind: LegKind
    #: Settling legs that come before it.
    depends_on: tuple[LegId, ...]
    #: Last command given.
    order: Order = Order.NONE
    #: When it was given.
    ordered_at: datetime | None = None
    #: Where it stands, as its participant last said; None: not heard of.
    phase: Phase | None = None
    #: Revision of that news; what is older is ignored.
    revision: int = 0
    #: Its participant's vote.
    vote: SignedVote | None = None
    #: Its participant's outcome.
    outcome: SignedOutcome | None = None
    #: What the participant complains of, or "".
    trouble: str = ""
    #: Whether an executed leg was reversed.
    reversed: bool = False
    #: Evidence that two operators gave in place of the participant's answer; None: none.
    operators_evidence: OperatorsEvidence | None = None

    @property
    def promise(self) -> Promise | None:
        """The promise of a YES."""
        return None if self.vote is None else self.vote.vote.promise


@dataclass(frozen=True, slots=True)
class OperatorsEvidence:
    """What two operators say became of a leg, when its participant cannot tell."""

    #: Whether it took effect.
    executed: bool
    #: What shows it.
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gate that was signed."""

    #: The signature.
    signed: GateSignature
    #: Whose it is.
    actor: ActorId
    #: When it was accepted.
    at: datetime


@dataclass(frozen=True, slots=True)
class Ticket:
    """An open escalation: a person must resolve it."""

    #: UPPER_SNAKE reason.
    reason: str
    #: Leg that it is about, or "".
    leg_id: str
    #: One sentence.
    detail: str
    #: When it was raised.
    at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it stands. Every field that decides anything is here."""

    #: The plan.
    plan_id: PlanId
    #: Its digest.
    digest: Digest
    #: Until when the decision may be written.
    deadline: datetime
    #: What its signers allow.
    policy: Policy
    #: Its legs, in plan order.
    legs: tuple[LegState, ...]
    #: Where it stands.
    state: State
    #: What was decided; None: nothing yet. Never changes, but for DELEGATED, which becomes COMMIT or ABORT once.
    decision: Decision | None = None
    #: Leg that decides or decided, or "".
    delegate: str = ""
    #: When the release gate opened.
    decided_at: datetime | None = None
    #: When the state was entered.
    since: datetime | None = None
    #: Transitions so far.
    transition_no: int = 0
    #: Journal events so far, the closing entry included once it is ordered.
    journal_sequence: int = 0
    #: Gates, in the order of their signing.
    gates: tuple[GateRecord, ...] = ()
    #: Open escalations.
    tickets: tuple[Ticket, ...] = ()
    #: Why it was stopped or is stuck, or None.
    cause: Cause | None = None
    #: UPPER_SNAKE reason, or "".
    reason: str = ""
    #: Leg that the reason is about, or "".
    reason_leg: str = ""
    #: One sentence, or "".
    reason_detail: str = ""
    #: How it ended, once known.
    outcome: PlanOutcome | None = None
    #: Whether the journal was told to seal: from then on nothing is appended to the plan's chain.
    sealing: bool = False
    #: Whether the unwind that its policy allows was used.
    unwound_by_policy: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the protocol waits before it calls a person."""

    #: Between the deadline and the end of every promise: delivery of the decision takes less.
    delivery_margin: timedelta = timedelta(minutes=10)
    #: An answer of a participant that is older is too old.
    unknown_max: timedelta = timedelta(minutes=5)
    #: A validator that takes longer is overdue.
    validate_max: timedelta = timedelta(minutes=30)
    #: An evidence leg that takes longer is overdue.
    evidence_max: timedelta = timedelta(minutes=10)


# What happens -----------------------------------------------------------------------------------------------------------


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


# What is to be done about it --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask a participant for its promise."""

    #: The leg.
    leg_id: LegId


@dataclass(frozen=True, slots=True)
class Commit:
    """Order a participant to execute."""

    #: The leg.
    leg_id: LegId
    #: Delegated only: never begun later.
    not_after: datetime | None = None
    #: Evidence legs only.
    closing: Closing | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """Order a participant to release."""

    #: The leg.
    leg_id: LegId
    #: Why it may.
    authority: AbortAuthority
    #: Evidence legs only.
    closing: Closing | None = None


@dataclass(frozen=True, slots=True)
class Reverse:
    """Order a participant to reverse what it executed."""

    #: The leg.
    leg_id: LegId


@dataclass(frozen=True, slots=True)
class Moved:
    """The plan changed its state or decision: one row of the transition table."""

    #: Dense from 1.
    transition_no: int
    #: State left; None for the first.
    left: State | None
    #: State entered.
    entered: State
    #: Decision after it.
    decision: Decision | None
    #: Why.
    cause: Cause
    #: Sequence of its one journal event.
    journal_sequence: int


@dataclass(frozen=True, slots=True)
class Record:
    """One event for the plan's chain in the journal."""

    #: Dense from 1.
    sequence: int
    #: What kind.
    type: EventType
    #: Leg that it is about, or "".
    leg_id: str = ""
    #: Transition that it records; None for the others.
    moved: Moved | None = None
    #: Gate whose signature it carries; None for the others.
    gate: GateRecord | None = None
    #: UPPER_SNAKE reason, or "".
    reason: str = ""
    #: One sentence, or "".
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Escalate:
    """Call a person."""

    #: The ticket.
    ticket: Ticket


Effect: TypeAlias = Prepare | Commit | Abort | Reverse | Moved | Record | Escalate


@dataclass(frozen=True, slots=True)
class Step:
    """A plan after an event, and what is to be done."""

    #: The plan.
    plan: Plan
    #: In order.
    effects: tuple[Effect, ...]
