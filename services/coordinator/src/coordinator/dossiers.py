"""Plans as this process last knew them: what the database says is still so is not read again.

Whatever changes of a plan raises its version in the same transaction; its escalations are only added to, and its journal is only stopped once. A dossier is
used where all three, and the time of the last change, are in the database as they are in it; otherwise it is read anew. Lost with the process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from coordinator.changes import Change
from coordinator.dossier import Dossier
from coordinator.store import plans
from coordinator.store.plans import Glance, Read
from lockstep_kit.ids import PlanId
from lockstep_kit.values import replace

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

#: Plans that are remembered; those used longest ago give way.
REMEMBERED_MAX: Final = 2_048


class Dossiers:
    """The plans that this process works on."""

    def __init__(self) -> None:
        self._known: OrderedDict[PlanId, Dossier] = OrderedDict()

    async def read(self, connection: Connection, ids: Iterable[PlanId], *, lock: bool = False) -> Read:
        """As `plans.read`; the plans are locked until the transaction ends, where asked."""
        return await self.seen(connection, await plans.glance(connection, ids, lock=lock))

    async def seen(self, connection: Connection, seen: Sequence[Glance]) -> Read:
        """Plans that were glanced at, with all their papers."""
        if not seen:
            return Read({}, None)
        # Taken out at once: while the others are read, what is remembered goes on with other transactions.
        found = {each.plan_id: self._as_seen(each) for each in seen}
        missing = [plan_id for plan_id, dossier in found.items() if dossier is None]
        read = (await plans.read(connection, missing)).dossiers if missing else {}
        for dossier in read.values():
            self._keep(dossier)
        now = max(each.read_at for each in seen)
        return Read({plan_id: read[plan_id] if dossier is None else dossier for plan_id, dossier in found.items()}, now)

    def note(self, changes: Iterable[Change]) -> None:
        """What a transaction did to plans is committed."""
        for each in changes:
            if each.resolved:
                # What operators resolved has papers of its own.
                self._known.pop(each.plan_id, None)
            elif each.changed:
                self._keep(each.result)

    def _as_seen(self, seen: Glance) -> Dossier | None:
        """The plan as it is remembered, where it still is so."""
        known = self._known.get(seen.plan_id)
        if known is None:
            return None
        self._known.move_to_end(seen.plan_id)
        said = (known.version, known.updated_at, known.frozen, len(known.tickets))
        same = said == (seen.version, seen.updated_at, seen.frozen, seen.tickets)
        return replace(known, read_at=seen.read_at) if same else None

    def _keep(self, dossier: Dossier) -> None:
        known = self._known.get(dossier.plan_id)
        if known is None or known.version <= dossier.version:
            self._known[dossier.plan_id] = dossier
            self._known.move_to_end(dossier.plan_id)
            while len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
