"""Work that waits together is carried together: one transaction for whatever came while the one before it was under way.

Who finds it idle is carried at once; where there was little pause lately, a group waits a moment for company, if it is told to. Each piece of work names keys
(plans, say): no two transactions under way have one in common, so that what is done to a key is done in the order in which it came. Another transaction is
begun beside those under way where enough waits to be worth one, or where something has waited for so long that the one under way must be held up by somebody
else's lock. A caller that gives up takes nobody with it: what was not begun is left out, what was begun goes on. Holds no rules.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from lockstep_kit.db import is_transient
from lockstep_kit.pace import Pace
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

_Work = TypeVar("_Work")
_Answer = TypeVar("_Answer")

#: What has waited for so long is begun beside what is under way, as long as there is a lane for it.
PATIENCE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Measures:
    """How much is carried at a time. What weighs how much is the callers' to say."""

    #: What one transaction carries; a piece of work is never parted, and one that weighs more is carried alone.
    group_max: int
    #: Transactions that are under way at a time.
    lanes_max: int
    #: What must wait for a transaction to be begun beside another one: less costs more by itself than together with what comes next.
    lane_min: int
    #: Whether a group waits a moment for company while there is little pause between groups. Callers that all wait for their answers gain nothing by it.
    lingers: bool = False


@dataclass(frozen=True, slots=True)
class _Asked(Generic[_Work, _Answer]):
    """A piece of work that waits."""

    work: _Work
    keys: frozenset[str]
    weight: int
    since: float
    answer: asyncio.Future[_Answer]


class Grouping(Generic[_Work, _Answer]):
    """Carries pieces of work in groups."""

    def __init__(
        self,
        name: str,
        carry: Callable[[Sequence[_Work]], Awaitable[Sequence[_Answer | Exception]]],
        measures: Measures,
        *,
        distinct: bool = False,
    ) -> None:
        """`carry` is one transaction: all of it or nothing. Its answers are in the order of the work; one that is an error is its caller's alone.

        `distinct`: no two pieces of work of one transaction have a key in common, either.
        """
        self._name = name
        self._carry_all = carry
        self._measures = measures
        self._distinct = distinct
        self._waiting: deque[_Asked[_Work, _Answer]] = deque()
        #: What waits, by weight.
        self.waiting = 0
        #: Tasks that carry groups, and the keys of what each has under way.
        self._lanes: dict[asyncio.Task[None], frozenset[str]] = {}
        self._look: asyncio.TimerHandle | None = None
        self._pace = Pace()

    async def carried(self, work: _Work, keys: frozenset[str], weight: int) -> _Answer:
        """What became of a piece of work.

        Raises:
            Exception: the work's own error, or whatever its transaction ended with.
        """
        return await self.begun(work, keys, weight)

    def begun(self, work: _Work, keys: frozenset[str], weight: int) -> asyncio.Future[_Answer]:
        """What will have become of a piece of work: for who has many at once, and needs no task for each. Cancelled, it is left out if it can be."""
        loop = asyncio.get_running_loop()
        asked: _Asked[_Work, _Answer] = _Asked(work, keys, weight, loop.time(), loop.create_future())
        self._waiting.append(asked)
        self.waiting += weight
        if not self._lanes or self.waiting >= self._measures.lane_min:
            self._begin()
        elif self._look is None:
            self._look = loop.call_later(PATIENCE_SECONDS, self._hurry)
        return asked.answer

    async def drained(self) -> None:
        """Return once nothing is under way; whoever still waits for an answer has it."""
        while self._lanes:
            await asyncio.wait(self._lanes)

    def _begin(self) -> None:
        if len(self._lanes) < self._measures.lanes_max:
            lane = asyncio.create_task(self._run(), name=f"{self._name}.group")
            self._lanes[lane] = frozenset()
            lane.add_done_callback(self._ended)

    def _ended(self, lane: asyncio.Task[None]) -> None:
        # Should it be ended before it has begun.
        self._lanes.pop(lane, None)
        if not lane.cancelled():
            # What it ended with, its callers were told.
            lane.exception()

    def _hurry(self) -> None:
        """What waits has waited for too long: what is under way may be waiting for somebody else's lock."""
        self._look = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        left = self._waiting[0].since + PATIENCE_SECONDS - loop.time()
        if left <= 0:
            self._begin()
            left = PATIENCE_SECONDS
        self._look = loop.call_later(left, self._hurry)

    async def _run(self) -> None:
        lane = asyncio.current_task()
        if lane is None:
            raise AssertionError("a lane is a task")
        group: list[_Asked[_Work, _Answer]] = []
        try:
            while self._waiting:
                if self._measures.lingers:
                    await self._pace.company(lambda: self.waiting, self._measures.group_max)
                group = self._next(lane)
                if not group:
                    break
                with self._pace.working():
                    await self._carry(group)
                self._lanes[lane] = frozenset()
        except BaseException as error:
            # The process ends: whoever waits is told so.
            for each in group:
                _fail(each, error)
            for each in self._waiting:
                each.answer.cancel()
            raise
        finally:
            # At once: work that comes before the task's end is noticed begins a lane of its own.
            self._lanes.pop(lane, None)

    def _next(self, lane: asyncio.Task[None]) -> list[_Asked[_Work, _Answer]]:
        """What the lane's next transaction carries, in the order in which it came; what touches a key that is under way waits."""
        held: set[str] = set().union(*self._lanes.values())
        group: list[_Asked[_Work, _Answer]] = []
        left: deque[_Asked[_Work, _Answer]] = deque()
        weight = 0
        while self._waiting:
            asked = self._waiting.popleft()
            if asked.answer.done():
                self.waiting -= asked.weight
            elif group and weight + asked.weight > self._measures.group_max:
                left.append(asked)
                break
            elif held.isdisjoint(asked.keys):
                self.waiting -= asked.weight
                group.append(asked)
                weight += asked.weight
                if self._distinct:
                    held |= asked.keys
            else:
                # Whatever comes after it of the same keys waits too.
                held |= asked.keys
                left.append(asked)
        self._waiting.extendleft(reversed(left))
        self._lanes[lane] = frozenset().union(*(each.keys for each in group))
        return group

    async def _carry(self, group: Sequence[_Asked[_Work, _Answer]]) -> None:
        try:
            answers = await self._carry_all([each.work for each in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller is told
            if len(group) > 1 and not is_transient(error):
                # One of them may be at fault: it must not spoil the others.
                _log.warning("group_taken_apart", loop=self._name, count=len(group), error=f"{type(error).__name__}: {error}")
                for each in group:
                    await self._carry([each])
                return
            for each in group:
                _fail(each, error)
            return
        for each, answer in zip(group, answers, strict=True):
            if isinstance(answer, Exception):
                _fail(each, answer)
            elif not each.answer.done():
                each.answer.set_result(answer)


def _fail(asked: _Asked[_Work, _Answer], error: BaseException) -> None:
    if asked.answer.done():
        return
    if isinstance(error, asyncio.CancelledError):
        asked.answer.cancel()
    else:
        asked.answer.set_exception(error)
