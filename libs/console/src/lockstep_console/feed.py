"""One look at the plans for everybody who watches the board: while somebody does, the coordinator is asked every `look_seconds`, however many they are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime

import structlog

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_console.answers import unanswered
from lockstep_console.board import Board, Document
from lockstep_kit.canonical import time_text
from lockstep_kit.errors import LockstepError

_log = structlog.get_logger()

#: What a browser is sent: event, document, cursor.
News = tuple[str, Document, str]


class Feed:
    """Looks while it is watched. Nothing is queued for a browser: it is told what is new from where it stands, or the whole board."""

    def __init__(
        self, look: Callable[[], Awaitable[tuple[list[settlement.Plan], bool]]], *, look_seconds: float, heartbeat_seconds: float
    ) -> None:
        self._look = look
        self._look_seconds, self._heartbeat_seconds = look_seconds, heartbeat_seconds
        self.board = Board(secrets.token_hex(8))
        #: Why the board is old; None while it is fresh.
        self.trouble: Document | None = None
        self._watchers = 0
        #: Whether the plans were looked at since somebody watches.
        self._looked_at = False
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, cursor: str) -> AsyncGenerator[News]:
        """The board, or what is new since the cursor; then what comes, with heartbeats, for ever."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking(), name="board")
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
        """Look no more. What was seen last is old from now on."""
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

    async def _keep_looking(self) -> None:
        while True:
            await self._look_once()
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(self._look_seconds)

    async def _look_once(self) -> None:
        began = time_text(datetime.now(UTC))
        try:
            plans, truncated = await self._look()
        except LockstepError as error:
            found = unanswered(error)
            if self.trouble is None:
                _log.warning("board_stale", reason=found.reason, error=found.message)
            self.trouble = found.document()
            return
        self._looked_at, self.trouble = True, None
        self.board.take(plans, as_of=began, truncated=truncated)
