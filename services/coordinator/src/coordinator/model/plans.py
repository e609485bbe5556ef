"""A plan as it stands: every field that decides anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, Digest, LegId, PlanId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import LegKind, Policy
from lockstep_kit.resolutions import Resolution, ResolutionSignature
from lockstep_kit.reversals import OperatorsResolution, PolicyUnwind, ReverseAuthority
from lockstep_kit.statements import Evidence, GateSignature, Promise, SignedOutcome, SignedVote
from lockstep_kit.values import dataclass


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
    RESTORED = "RESTORED"
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
    #: Its participant's answer to the last order to reverse it; None: none was given, or it is not answered.
    reversal: SignedOutcome | None = None
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


@dataclass(frozen=True)
class GateRecord:
    """A gate that was signed."""

    #: The signature.
    signed: GateSignature
    #: Whose it is.
    actor: ActorId
    #: When it was accepted.
    at: datetime


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many different persons each gate takes that may take several."""

    #: To approve.
    approve: int = 1
    #: To release.
    release: int = 1
    #: To validate.
    validate: int = 1


@dataclass(frozen=True, slots=True)
class Mandate:
    """What two operators signed alike, so that it takes effect. Who may sign was checked by `operators.admit`."""

    #: Their statements, in the order of signing.
    signatures: tuple[ResolutionSignature, ResolutionSignature]
    #: Whose they are, in the same order.
    actors: tuple[ActorId, ActorId]

    @property
    def resolution(self) -> Resolution:
        """What is to be done."""
        return self.signatures[0].statement.resolution


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
    #: Escalations that operators closed.
    forgotten: tuple[Ticket, ...] = ()
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
    #: The signed refusal on which that policy was used; None: it was not.
    unwind_refusal: SignedOutcome | None = None
    #: How many persons its gates take, by its matrix and for what it is worth; worked out when it was accepted.
    quorum: Quorum = Quorum()
    #: What two operators signed last to have it unwound; None: they have not.
    unwind: Mandate | None = None
    #: Place in `gates` from which on validations count: what was signed before is about evidence that operators sent back.
    validated_from: int = 0
    #: When the abort audit log was ordered that is being written; None: none is.
    auditing_since: datetime | None = None
    #: SHA-256 of the abort audit log of the abort as it stands, once it cannot be lost any more; evidence legs are told nothing before.
    audit: Digest | None = None

    @property
    def unwind_authority(self) -> ReverseAuthority | None:
        """What participants are shown with an order to reverse: what operators signed last, else what the plan's policy goes by."""
        if self.unwind is not None:
            return OperatorsResolution(self.unwind.signatures)
        return None if self.unwind_refusal is None else PolicyUnwind(self.unwind_refusal)


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
