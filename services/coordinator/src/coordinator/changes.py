"""What one transaction does to a plan: as it was read, as it is after the steps, and what follows from both. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from coordinator.dossier import Dossier, FiledTicket
from coordinator.model import Effect, Escalate, Moved, Resolved
from coordinator.store import operators
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.values import replace


@dataclass(frozen=True)
class Change:
    """A plan in one transaction."""

    #: As it was read, or brought.
    before: Dossier
    #: After the steps so far.
    after: Dossier
    #: Theirs, in their order.
    effects: tuple[Effect, ...]
    #: Whether it is new.
    created: bool
    #: Under which it is held.
    epoch: Epoch
    #: The database's clock.
    now: datetime

    @property
    def plan_id(self) -> PlanId:
        """The plan."""
        return self.after.plan_id

    @cached_property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return self.created or bool(self.effects) or self.after.plan != self.before.plan

    @cached_property
    def moves(self) -> tuple[Moved, ...]:
        """Its transitions."""
        return tuple(each for each in self.effects if isinstance(each, Moved))

    @cached_property
    def resolved(self) -> tuple[Resolved, ...]:
        """What operators resolved."""
        return tuple(each for each in self.effects if isinstance(each, Resolved))

    @cached_property
    def closed(self) -> dict[str, Digest]:
        """Escalations that operators closed, each with the resolution that did."""
        resolutions = (each.mandate.resolution for each in self.resolved if each.forgotten and each.mandate)
        return {each.escalation_id: each.digest for each in resolutions}

    @cached_property
    def tickets(self) -> tuple[FiledTicket, ...]:
        """Escalations that were raised."""
        raised = [each.ticket for each in self.effects if isinstance(each, Escalate)]
        return operators.filed(self.plan_id, len(self.after.tickets), raised) if raised else ()

    @cached_property
    def result(self) -> Dossier:
        """The plan as it will be once the transaction has committed."""
        after = self.after
        if not self.changed or (self.created and not self.tickets):
            return after
        kept = after.tickets
        if self.closed:
            kept = tuple(replace(each, resolved_at=self.now) if each.escalation_id in self.closed else each for each in kept)
        version, updated_at = (after.version, after.updated_at) if self.created else (after.version + 1, self.now)
        return replace(after, tickets=(*kept, *self.tickets), version=version, updated_at=updated_at)
