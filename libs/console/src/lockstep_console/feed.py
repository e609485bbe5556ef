"""One stream of all plans for everybody who watches the board, as long as somebody does, however many they are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable

import structlog

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.standing_plans import StandingPlans
from lockstep_console.answers import unanswered
from lockstep_console.board import Board, Document
from lockstep_kit.canonical import time_text
from lockstep_kit.errors import LockstepError

_log = structlog.get_logger()

#: What a browser is sent: event, document, cursor.
News = tuple[str, Document, str]


class Feed:
    """Follows the plans while it is watched. Nothing is queued for a browser: it is told what is new from where it stands, or the whole board."""

    def __init__(
        self, standing: Callable[[], StandingPlans], *, plans_max: int, retry_seconds: float, heartbeat_seconds: float
    ) -> None:
        """`standing` gives the plans, which begin anew each time that somebody comes when nobody was there."""
        self._standing = standing
        self._plans_max = plans_max
        self._retry_seconds, self._heartbeat_seconds = retry_seconds, heartbeat_seconds
        self.board = Board(secrets.token_hex(8))
        #: Why the board is old; None while it is fresh.
        self.trouble: Document | None = None
        self._watchers = 0
        #: Whether the plans were seen since somebody watches.
        self._looked_at = False
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, cursor: str) -> AsyncGenerator[News]:
        """The board, or what is new since the cursor; then what comes, with heartbeats, for ever."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="board")
        try:
            place, told = self.board.place(cursor), None
            while True:
                changes = None if place is None or not self._looked_at else self.board.since(place)
                if changes is None and self._looked_at:
                    place = self.board.number
                    yield "board", self.board.document(), self.board.cursor(place)
                for each in changes or ():
                    yield each.event, each.document, self.board.cursor(each.number)
                    place = each.number
                if self.trouble != told:
                    told = self.trouble
                    yield ("stale", told, "") if told is not None else ("fresh", {"as_of": self.board.as_of}, "")
                if not await self._anything_after(place, told):
                    yield "heartbeat", {"as_of": self.board.as_of}, ""
        finally:
            self._watchers -= 1
            if self._watchers == 0:
                await self.close()

    async def close(self) -> None:
        """Follow no more. What was seen last is old from now on."""
        self._looked_at, self.trouble = False, None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _anything_after(self, place: int | None, told: Document | None) -> bool:
        """Wait for something new, for a heartbeat's time; whether there is."""
        try:
            async with asyncio.timeout(self._heartbeat_seconds), self._looked:
                await self._looked.wait_for(lambda: (self._looked_at and self.board.number != place) or self.trouble != told)
        except TimeoutError:
            return False
        return True

    async def _follow(self) -> None:
        standing = self._standing()
        running = asyncio.create_task(self._run(standing), name="board-plans")
        try:
            while True:
                ticket = standing.bell.ticket()
                self._take(standing)
                async with self._looked:
                    self._looked.notify_all()
                await ticket.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self, standing: StandingPlans) -> None:
        """A refusal may be taken back: the console's row may come to the coordinator later than the console."""
        while True:
            try:
                await standing.run()
            except LockstepError:
                await asyncio.sleep(self._retry_seconds)

    def _take(self, standing: StandingPlans) -> None:
        if standing.trouble is not None:
            found = unanswered(standing.trouble)
            if self.trouble is None:
                _log.warning("board_stale", reason=found.reason, error=found.message)
            self.trouble = found.document()
        elif standing.known and standing.heard_at is not None:
            newest = sorted(standing.plans.values(), key=_created, reverse=True)
            self._looked_at, self.trouble = True, None
            truncated = len(newest) > self._plans_max
            self.board.take(newest[: self._plans_max], as_of=time_text(standing.heard_at), truncated=truncated)


def _created(plan: settlement.Plan) -> tuple[int, int, str]:
    return plan.create_time.seconds, plan.create_time.nanos, plan.header.plan_id
