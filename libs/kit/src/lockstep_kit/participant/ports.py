"""What a participant brings to the shared engine: its operations, and the values that pass between the two. Pure.

A participant's own code never decides what a command may do (`lockstep_kit.fence` does) and never signs (the engine does). It is told that a leg has
entered a working phase, inside the transaction that stores it; it records there, durably, what it is about to do outside and the key by which to ask
whether it was done; and later, from loops of its own, it reports findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from lockstep_kit.calendars import Hours
from lockstep_kit.certificate import Binding, Decision
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.permits import Permit
from lockstep_kit.plan import Anchoring
from lockstep_kit.statements import Evidence, Promise, PromiseKind, Refusal, SignedVote
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep_kit.db import Connection


class PlanOutcome(StrEnum):
    """How a plan ended."""

    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"
    REVERSED = "REVERSED"
    MIXED = "MIXED"


@dataclass(frozen=True, slots=True)
class Closing:
    """How a plan is to be closed, told to its evidence legs."""

    #: Outcome of the plan.
    outcome: PlanOutcome
    #: Digest over the settling legs' signed outcomes; of a plan that did not settle, SHA-256 of its abort audit log.
    evidence_digest: Digest
    #: Journal only: sequence of the closing entry in the plan's chain.
    journal_sequence: int
    #: Journal only: number of the plan's closing transition.
    transition_no: int
    #: Journal only: state that the closing transition leaves.
    from_state: str


@dataclass(frozen=True, slots=True)
class LegWork:
    """A leg in a working phase: all that is needed to do, or go on with, the work."""

    #: The leg, bound to its plan.
    binding: Binding
    #: PREPARING, COMMITTING, ABORTING or REVERSING when begun; any when loaded.
    phase: Phase
    #: Phase before; None when the leg was not known, so that Abort must ask outside before it answers.
    left: Phase | None
    #: Revision of the row.
    revision: int
    #: Prepare: until when the promise must stand at the least.
    hold_until: datetime | None
    #: Prepare, token transfers: the token payer's signature; b"" elsewhere.
    payer_signature: bytes = field(repr=False)
    #: Commit: the leg's key; b"" before.
    key: bytes = field(repr=False)
    #: Commit, delegated: never begun later.
    not_after: datetime | None
    #: Commit: the certificate's decision.
    decision: Decision | None
    #: Commit and Abort of evidence legs.
    closing: Closing | None
    #: This participant's own vote, once given.
    vote: SignedVote | None
    #: W3C trace context of the call that began the phase.
    traceparent: str | None
    #: When the phase began, by the database's clock.
    since: datetime
    #: REVERSING: which order to reverse the leg this is, from 1; 1 in every other phase, which a leg enters once for good.
    order_no: int = 1
    #: Prepare, token transfers: the token payer's allowance by signature; None: the allowance must stand already.
    permit: Permit | None = field(repr=False, default=None)

    @property
    def plan_id(self) -> PlanId:
        """Plan of the leg."""
        return self.binding.header.plan_id

    @property
    def leg_id(self) -> LegId:
        """The leg."""
        return self.binding.leg.leg_id


@dataclass(frozen=True, slots=True)
class Completion:
    """A finding about a leg, with what shows it."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: What was found.
    finding: Finding
    #: VOTED_YES: what is promised.
    promise: Promise | None = None
    #: VOTED_NO, LAPSED, REFUSED, REVERSAL_REFUSED: why.
    refusal: Refusal | None = None
    #: EXECUTED and REVERSED, and RELEASED where there is proof: what shows it.
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class AssetCapability:
    """An asset that a participant moves."""

    #: ISO 4217 code or CAIP-19 id.
    asset: str
    #: Decimal places.
    scale: int
    #: Whether an executed leg that moved it can be reversed.
    reversible: bool = False
    #: When it can be settled; None: at any time.
    hours: Hours | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a participant can do."""

    #: Kinds of legs that it serves.
    leg_kinds: tuple[str, ...]
    #: How firm its promises are.
    promise_kind: PromiseKind
    #: Longest time that it can promise; None: its promises do not lapse.
    promise_max: timedelta | None
    #: Assets that it moves.
    assets: tuple[AssetCapability, ...] = ()
    #: Outside places that terms must match: contract addresses, bank BICs.
    venues: tuple[str, ...] = ()
    #: Those of `leg_kinds` whose promises are guaranteed and never lapse, whatever is said of the others above.
    firm_kinds: tuple[str, ...] = ()
    #: Notaries: ways of anchoring in batches that it serves.
    anchorings: tuple[Anchoring, ...] = ()

    def lapses(self, kind: str) -> bool:
        """Whether a promise about a leg of this kind can lapse."""
        return kind not in self.firm_kinds and (self.promise_kind is PromiseKind.BEST_EFFORT or self.promise_max is not None)

    #: By how much its promises must outlive a plan's deadline at the least.
    promise_margin: timedelta = timedelta(0)


class Operations(Protocol):
    """A participant's own work."""

    def capabilities(self) -> Capabilities:
        """What it can do, as of now."""
        ...

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Record durably what is about to be done for legs that have just entered a working phase; return what is found already.

        Runs inside the transaction that stores the phases; an exception rolls everything back and the command fails as a whole.
        Must not do I/O other than on `tx`.
        """
        ...

    def wake(self) -> None:
        """The transaction of `begin` has committed: start now what it recorded. Losing this call loses nothing."""
        ...
