"""One writer in a process: calls that come while batches are under way are carried together by the next. Holds no rules.

Who finds it idle is carried at once, so that nobody waits for company. Two batches are under way at a time at the most, so that one is prepared (hashed,
signed, encrypted) while the database commits the other; the second is begun only where enough waits to be worth a transaction. No two of them touch one
plan, so that a plan's events are written in the order in which they came. A caller that gives up takes nobody with it: what was not begun is left out,
what was begun goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from event_journal.appending import Answer, Submission
from lockstep_kit.db import is_transient
from lockstep_kit.errors import unavailable
from lockstep_kit.ids import PlanId

#: Events that one transaction carries; a call is never parted.
GROUP_EVENTS_MAX: Final = 1_024
#: Transactions that are under way at a time.
LANES_MAX: Final = 2
#: Events for which a transaction is begun beside another one: fewer cost more by themselves than they do together with what comes next.
LANE_EVENTS_MIN: Final = 256
#: Events that wait; more are refused, and nothing was done.
WAITING_EVENTS_MAX: Final = 32_768


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call that waits."""

    events: Sequence[Submission]
    plans: frozenset[PlanId]
    answers: asyncio.Future[Sequence[Answer]]


class GroupWriter:
    """Carries calls in groups, each in one transaction."""

    def __init__(self, write: Callable[[Sequence[Submission]], Awaitable[Sequence[Answer]]]) -> None:
        """`write` is one transaction: all of it or nothing."""
        self._write = write
        self._waiting: deque[_Asked] = deque()
        self._events_waiting = 0
        #: Tasks that carry groups, and the plans of what each has under way.
        self._lanes: dict[asyncio.Task[None], frozenset[PlanId]] = {}

    async def append(self, events: Sequence[Submission]) -> Sequence[Answer]:
        """What became of the events, in their order.

        Raises:
            LockstepError: JOURNAL_BUSY; too much waits already.
            Exception: whatever the transaction ended with.
        """
        if self._events_waiting + len(events) > WAITING_EVENTS_MAX:
            raise unavailable("JOURNAL_BUSY", "too many events wait to be appended; try again")
        plans = frozenset(each.event.plan_id for each in events)
        asked = _Asked(events, plans, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._events_waiting += len(events)
        if not self._lanes or (len(self._lanes) < LANES_MAX and self._events_waiting >= LANE_EVENTS_MIN):
            lane = asyncio.create_task(self._run(), name="journal.group")
            self._lanes[lane] = frozenset()
            # Should it be ended before it has begun.
            lane.add_done_callback(lambda ended: self._lanes.pop(ended, None))
        return await asked.answers

    async def _run(self) -> None:
        lane = asyncio.current_task()
        if lane is None:
            raise AssertionError("a lane is a task")
        group: list[_Asked] = []
        try:
            while group := self._next(lane):
                await self._carry(group)
        except BaseException:
            # The process ends: whoever waits is told so.
            for each in (*group, *self._waiting):
                each.answers.cancel()
            raise
        finally:
            # At once: a call that comes before the task's end is noticed begins a lane of its own.
            self._lanes.pop(lane, None)

    def _next(self, lane: asyncio.Task[None]) -> list[_Asked]:
        """The calls that the lane's next transaction carries, in the order in which they came; what touches a plan that is under way waits."""
        self._lanes[lane] = frozenset()
        held: set[PlanId] = set().union(*self._lanes.values())
        group: list[_Asked] = []
        left: deque[_Asked] = deque()
        count = 0
        while self._waiting:
            asked = self._waiting.popleft()
            if asked.answers.done():
                self._events_waiting -= len(asked.events)
            elif group and count + len(asked.events) > GROUP_EVENTS_MAX:
                left.append(asked)
                break
            elif held.isdisjoint(asked.plans):
                self._events_waiting -= len(asked.events)
                group.append(asked)
                count += len(asked.events)
            else:
                # Whatever comes after it of the same plans waits too.
                held |= asked.plans
                left.append(asked)
        self._waiting.extendleft(reversed(left))
        self._lanes[lane] = frozenset().union(*(each.plans for each in group))
        return group

    async def _carry(self, group: Sequence[_Asked]) -> None:
        try:
            answers = await self._write([event for each in group for event in each.events])
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller is told
            if len(group) > 1 and not is_transient(error):
                # One of them may be at fault: it must not spoil the others.
                for each in group:
                    await self._carry([each])
                return
            for each in group:
                if not each.answers.done():
                    each.answers.set_exception(error)
            return
        place = 0
        for each in group:
            if not each.answers.done():
                each.answers.set_result(answers[place : place + len(each.events)])
            place += len(each.events)
