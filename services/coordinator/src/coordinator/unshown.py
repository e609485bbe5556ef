"""What a participant answered and its outcome stream has not shown yet: a database put back before that place shows it never.

The place that the stream was read to cannot tell: it lies before what is lost. Remembered here alone, for nothing else in a settlement waits for it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from lockstep_kit.ids import LegId, PlanId

#: Answers that are remembered while a stream is down; the oldest give way.
UNSHOWN_MAX: Final = 100_000


class Unshown:
    """Legs of one participant, each with the revision that it answered with."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[PlanId, LegId], int] = OrderedDict()
        self._due: dict[tuple[PlanId, LegId], int] = {}

    def answered(self, plan_id: PlanId, leg_id: LegId, revision: int) -> None:
        """A command was answered with news."""
        self._waiting[plan_id, leg_id] = revision
        while len(self._waiting) > UNSHOWN_MAX:
            self._waiting.popitem(last=False)

    def shown(self, plan_id: PlanId, leg_id: LegId, revision: int) -> None:
        """The stream showed a leg as it was then, or later."""
        if self._waiting.get((plan_id, leg_id), revision + 1) <= revision:
            del self._waiting[plan_id, leg_id]

    def opened(self) -> None:
        """A stream begins: what was answered until now, it shows before it is silent."""
        self._due = dict(self._waiting)

    def silent(self) -> bool:
        """The log was read to its end: whether something is not in it that was answered before it was opened, or was last read to its end."""
        lost = [leg for leg, revision in self._due.items() if self._waiting.get(leg) == revision]
        for leg in lost:
            del self._waiting[leg]
        self._due = dict(self._waiting)
        return bool(lost)
