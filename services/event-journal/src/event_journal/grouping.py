"""One writer in a process: calls that come while batches are under way are carried together by the next. Holds no rules.

Two batches are under way at a time at the most, so that one is prepared (hashed, signed, encrypted) while the database commits the other. No two of them
touch one plan, so that a plan's events are written in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from event_journal.appending import Answer, Submission
from lockstep_kit.errors import unavailable
from lockstep_kit.grouping import Grouping, Measures

#: Events that one transaction carries; a call is never parted.
GROUP_EVENTS_MAX: Final = 1_024
#: Transactions that are under way at a time.
LANES_MAX: Final = 2
#: Events for which a transaction is begun beside another one: fewer cost more by themselves than they do together with what comes next.
LANE_EVENTS_MIN: Final = 256
#: Events that wait; more are refused, and nothing was done.
WAITING_EVENTS_MAX: Final = 32_768


class GroupWriter:
    """Carries calls in groups, each in one transaction."""

    def __init__(self, write: Callable[[Sequence[Submission]], Awaitable[Sequence[Answer]]]) -> None:
        """`write` is one transaction: all of it or nothing."""
        self._write = write
        self._group: Grouping[Sequence[Submission], Sequence[Answer]] = Grouping(
            "journal", self._write_calls, Measures(GROUP_EVENTS_MAX, LANES_MAX, LANE_EVENTS_MIN)
        )

    async def append(self, events: Sequence[Submission]) -> Sequence[Answer]:
        """What became of the events, in their order.

        Raises:
            LockstepError: JOURNAL_BUSY; too much waits already.
            Exception: whatever the transaction ended with.
        """
        if self._group.waiting + len(events) > WAITING_EVENTS_MAX:
            raise unavailable("JOURNAL_BUSY", "too many events wait to be appended; try again")
        return await self._group.carried(events, frozenset(each.event.plan_id for each in events), len(events))

    async def _write_calls(self, calls: Sequence[Sequence[Submission]]) -> list[Sequence[Answer]]:
        answers = await self._write([event for events in calls for event in events])
        parted: list[Sequence[Answer]] = []
        place = 0
        for events in calls:
            parted.append(answers[place : place + len(events)])
            place += len(events)
        return parted
