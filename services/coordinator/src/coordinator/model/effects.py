"""What is to be done about a plan."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from coordinator.model.plans import Cause, EventType, GateRecord, Mandate, Plan, State, Ticket
from lockstep_kit.certificate import AbortAuthority, Decision
from lockstep_kit.ids import LegId
from lockstep_kit.participant.ports import Closing
from lockstep_kit.reversals import ReverseAuthority
from lockstep_kit.values import dataclass


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
    #: Why it may.
    authority: ReverseAuthority


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
    #: What two operators signed; None for the others.
    mandate: Mandate | None = None
    #: UPPER_SNAKE reason, or "".
    reason: str = ""
    #: One sentence, or "".
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Escalate:
    """Call a person."""

    #: The ticket.
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Resolved:
    """What two operators decided took effect."""

    #: What they signed; None in models of the protocol.
    mandate: Mandate | None
    #: Ticket that they closed; None: none.
    forgotten: Ticket | None = None
    #: Whether all that waits for a repeat is to be sent now.
    hastens: bool = False


@dataclass(frozen=True, slots=True)
class WriteAudit:
    """Write the abort audit log: nothing is held any more, or the plan was settled outside."""


Effect: TypeAlias = Prepare | Commit | Abort | Reverse | Moved | Record | Escalate | Resolved | WriteAudit


@dataclass(frozen=True, slots=True)
class Step:
    """A plan after an event, and what is to be done."""

    #: The plan.
    plan: Plan
    #: In order.
    effects: tuple[Effect, ...]
