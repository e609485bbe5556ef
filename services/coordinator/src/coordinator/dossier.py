"""A plan with everything that is known of it: its state, and what never changes (head, legs, locks, routing, payers' signatures). Pure values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import field
from datetime import datetime
from typing import Final

from coordinator.model import LegState, Plan, Quorum, State, Ticket
from lockstep_kit.certificate import Binding
from lockstep_kit.ids import ActorId, Digest, LegId, PlanId
from lockstep_kit.permits import Permit
from lockstep_kit.plan import Leg, PlanHeader, inclusion_path
from lockstep_kit.registry import Matrix
from lockstep_kit.sod import OPENING, Scope, barred_by, scope_of
from lockstep_kit.statements import Gate
from lockstep_kit.values import dataclass

#: Plans whose scopes are remembered; those asked for first give way.
SCOPES_MAX: Final = 4_096
_SCOPES: Final[OrderedDict[Digest, Scope]] = OrderedDict()


@dataclass(frozen=True)
class LegFile:
    """What never changes of a leg once its plan is accepted, but for the payer's signature, which ExecutePlan brings."""

    #: The leg.
    leg: Leg
    #: Participant that serves it.
    participant: str
    #: SHA-256 of its decision key.
    lock: Digest
    #: Token transfers, once executed: the payer's signature; b"" elsewhere and before.
    payer_signature: bytes = field(default=b"", repr=False)
    #: The payer's allowance by signature, where it brought one.
    permit: Permit | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a token payer brings to a plan's execution."""

    #: Its signature over terms and lock.
    signature: bytes = field(repr=False)
    #: Its allowance by signature; None: it allowed the escrow to take the tokens before.
    permit: Permit | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FiledTicket:
    """An escalation as it is kept."""

    #: Id of the ticket.
    escalation_id: str
    #: What is to be resolved.
    ticket: Ticket
    #: When it was; None: open.
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Dossier:
    """A plan and all its papers."""

    #: Where it stands.
    plan: Plan
    #: Its head.
    header: PlanHeader
    #: Its legs' papers, in plan order.
    files: tuple[LegFile, ...]
    #: Every escalation, in the order in which they were raised.
    tickets: tuple[FiledTicket, ...]
    #: Grows with every change.
    version: int
    #: When it was accepted.
    created_at: datetime
    #: When it last changed.
    updated_at: datetime
    #: W3C trace context of the call that created it.
    traceparent: str | None
    #: Why the plan's journal takes nothing more, or "".
    frozen: str = ""
    #: When it was read, by the database's clock; None: it was never read.
    read_at: datetime | None = None

    @property
    def plan_id(self) -> PlanId:
        """The plan."""
        return self.plan.plan_id

    @property
    def etag(self) -> str:
        """Changes whenever the plan does."""
        return f"{self.version:x}"

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs in plan order."""
        return tuple(each.leg for each in self.files)

    @property
    def scope(self) -> Scope:
        """What its signers are judged by: all of its legs."""
        digest = self.header.digest
        if digest not in _SCOPES:
            # The digest holds the root over the legs: there are no others with the same.
            _SCOPES[digest] = scope_of(self.header, self.legs)
            if len(_SCOPES) > SCOPES_MAX:
                _SCOPES.popitem(last=False)
        return _SCOPES[digest]

    def index(self, leg_id: str) -> int:
        """Place of a leg."""
        return next(index for index, each in enumerate(self.files) if each.leg.leg_id == leg_id)

    def file(self, leg_id: str) -> LegFile | None:
        """A leg's papers; None where the plan has no such leg."""
        return next((each for each in self.files if each.leg.leg_id == leg_id), None)

    def binding(self, leg_id: str) -> Binding:
        """A leg, bound to the plan."""
        index = self.index(leg_id)
        file = self.files[index]
        return Binding(self.header, file.leg, index, inclusion_path(self.legs, index), file.lock)


def new_plan(header: PlanHeader, legs: tuple[Leg, ...], quorum: Quorum | None = None) -> Plan:
    """A plan before anything happened to it; its gates take one person each unless told otherwise."""
    return Plan(
        plan_id=header.plan_id,
        digest=header.digest,
        deadline=header.deadline,
        policy=header.policy,
        legs=tuple(LegState(leg.leg_id, leg.kind, leg.depends_on) for leg in legs),
        state=State.DRAFT,
        quorum=quorum or Quorum(),
    )


#: Gates that one person may sign only one of.
DISTINCT_GATES = frozenset(OPENING)


def signers(plan: Plan) -> frozenset[ActorId]:
    """Persons who signed one of the gates that need different persons, whatever the plan's matrix says."""
    return _signed(plan, DISTINCT_GATES)


def barred_from(plan: Plan, gate: Gate, matrix: Matrix | None) -> frozenset[ActorId]:
    """Persons who signed a gate whose signers may not sign this one."""
    return frozenset() if matrix is None else _signed(plan, barred_by(matrix, gate))


def _signed(plan: Plan, gates: Collection[Gate]) -> frozenset[ActorId]:
    return frozenset(record.actor for record in plan.gates if record.signed.statement.gate in gates)


LegKeys = Mapping[LegId, bytes]
