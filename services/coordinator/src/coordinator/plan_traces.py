"""Which trace a plan's work belongs to: that of the call that created it, whoever brings the plan on and whichever replica does the work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from coordinator.dossier import Dossier
from coordinator.model import Moved, Ticket
from coordinator.store import reading
from lockstep_kit.ids import PlanId
from lockstep_kit.spans import LEG_ID, PLAN_ID, event, plan_spans, span

if TYPE_CHECKING:
    from lockstep_kit.db import Database

_log = structlog.get_logger()

#: Plans whose trace contexts are remembered; of others they are read again.
REMEMBERED_MAX: Final = 50_000


class PlanTraces:
    """Trace contexts of plans, which never change."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: OrderedDict[PlanId, str | None] = OrderedDict()

    def note(self, plan_id: PlanId, traceparent: str | None) -> None:
        """Remember a plan's trace context."""
        self._known[plan_id] = traceparent
        self._known.move_to_end(plan_id)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)

    async def of(self, ids: Collection[PlanId]) -> dict[PlanId, str | None]:
        """The plans' trace contexts; None of a plan that has none, or that nobody knows."""
        unknown = sorted({each for each in ids if each not in self._known})
        found: Mapping[PlanId, str | None] = {}
        if unknown:
            async with self._db.connection() as connection:
                found = await reading.traceparents(connection, unknown)
            for plan_id, traceparent in found.items():
                self.note(plan_id, traceparent)
        return {each: found[each] if each in found else self._known.get(each) for each in ids}

    @asynccontextmanager
    async def span(self, name: str, ids: Collection[PlanId]) -> AsyncIterator[Mapping[PlanId, str | None]]:
        """A span in the trace of each plan; yields the trace contexts inside, by plan."""
        with plan_spans(name, await self.of(ids)) as inside:
            yield inside


def tell_moves(moves: Mapping[PlanId, Sequence[Moved]]) -> None:
    """The current span tells the plans' transitions."""
    for plan_id, moved in moves.items():
        for each in moved:
            event("transition", {PLAN_ID: plan_id, "lockstep.from": each.left or "", "lockstep.to": each.entered})


def tell_escalation(dossier: Dossier, ticket: Ticket) -> None:
    """Tell of an escalation, in a span that is recorded whatever becomes of the plan's trace: it is what somebody will look for."""
    _log.warning("escalation", plan_id=dossier.plan_id, reason=ticket.reason, leg_id=ticket.leg_id)
    about = {PLAN_ID: dossier.plan_id, LEG_ID: ticket.leg_id, "lockstep.reason": ticket.reason}
    with span("coordinator.escalation", traceparent=dossier.traceparent, attributes=about, always=True):
        pass
