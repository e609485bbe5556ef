"""Follows one participant's outcome log: what it reports and how far it was read are one transaction.

While one is under way, what the participant shows next is read, and then taken together. What brings no plan on, such as that a leg is under way, waits a
moment for what comes of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Final

import grpc
import structlog

from coordinator.engine import Engine
from coordinator.metrics import HEARD
from coordinator.news import News
from coordinator.peers import SILENCE_SECONDS_MAX, OutcomeStream, Peer
from coordinator.restores import Restores
from coordinator.store import outboxes
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.rpc import answers

_log = structlog.get_logger()

#: Pages that are read before they can be taken.
AHEAD_MAX: Final = 32
#: Reports that are taken together; a page is never parted.
TOGETHER_MAX: Final = 256
#: So long it waits for what comes after it.
REST_SECONDS: Final = 1.0


class Outcomes:
    """The outcome log of one participant."""

    def __init__(self, engine: Engine, peer: Peer, news: News, restores: Restores) -> None:
        self._engine = engine
        self._peer = peer
        self._news = news
        self._restores = restores
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._failures = 0

    def loop(self) -> Loop:
        """The loop that follows; each round is one stream."""
        self._heard()
        return Loop(f"outcomes.{self._peer.name}", self.run, poll_seconds=0.0)

    async def run(self) -> None:
        """Follow until the stream ends; what was read stays read."""
        async with self._engine.db.connection() as connection:
            after = await outboxes.cursor(connection, self._peer.name)
        stream = self._peer.outcomes(after)
        try:
            await self._follow(stream, after)
        except (grpc.aio.AioRpcError, ConnectionError, TimeoutError) as error:
            told = "SILENT" if isinstance(error, TimeoutError) else "CLOSED"
            code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else told
            _log.warning("outcomes_lost", participant=self._peer.name, code=code)
            self._failures += 1
            await asyncio.sleep(back_off_seconds(self._failures, self._rng, most=5.0))
        finally:
            stream.cancel()

    async def _follow(self, stream: OutcomeStream, after: tuple[str, int] | None) -> None:
        unshown = self._news.unshown[self._peer.name]
        unshown.opened()
        with _ahead(stream) as pages:
            while (page := await pages.get()) is not None:
                if self._failures:
                    await self._back()
                at = (page.cursor.incarnation, page.cursor.sequence)
                if after is not None and (at[0] != after[0] or at[1] < after[1]):
                    # Another log, or an earlier place in this one: its database was put back. Noted before anything of it is taken for read.
                    await self._restores.participant_restored(self._peer.name)
                if not page.reports and at in (after, (at[0], 0)) and unshown.silent():
                    # It was put back to before what it had answered, and to no earlier place than was read.
                    await self._restores.participant_restored(self._peer.name)
                if page.reports or at != after:
                    together = await self._together(pages, page)
                    await self._take(together)
                    after = (at[0], together[-1].cursor.sequence)
                self._heard()

    def _heard(self) -> None:
        """What came is taken: a participant that shows nothing says so every few seconds, so that silence is never rest."""
        HEARD.labels(self._peer.name).set_to_current_time()

    async def _together(self, pages: _Ahead, page: messages.WatchOutcomesResponse) -> list[messages.WatchOutcomesResponse]:
        """A page, and what goes on from it."""
        found = [page, *pages.following([page])]
        loop = asyncio.get_running_loop()
        until = loop.time() + REST_SECONDS
        while not any(self._news.moves(each) for page in found for each in page.reports):
            if not await pages.more(until - loop.time()):
                break
            more = list(pages.following(found))
            if not more:
                break
            found.extend(more)
        return found

    async def _back(self) -> None:
        """The participant was away and answers again: what it did not answer need not wait for its repeat, which may be half a minute away."""
        self._failures = 0
        async with self._engine.db.connection() as connection:
            await outboxes.hasten_participant(connection, self._peer.name)
        self._engine.wakes.orders[self._peer.name].look()

    async def _take(self, pages: Sequence[messages.WatchOutcomesResponse]) -> None:
        reports = [report for page in pages for report in page.reports]
        cursor = pages[-1].cursor
        await self._news.take_shown(self._peer.name, reports, (cursor.incarnation, cursor.sequence))


class _Ahead:
    """Pages of one stream that were read and are not taken yet, in order; then how it ended."""

    def __init__(self) -> None:
        self._read: asyncio.Queue[messages.WatchOutcomesResponse | Exception] = asyncio.Queue(AHEAD_MAX)
        self._put_back: messages.WatchOutcomesResponse | Exception | None = None

    async def read(self, stream: OutcomeStream) -> None:
        """Read until the stream ends."""
        try:
            async with aclosing(answers(stream)) as pages:
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS_MAX):
                        page = await anext(pages)
                    await self._read.put(page)
        except Exception as error:  # noqa: BLE001 - its end, or whatever it is: told to whoever takes the pages
            await self._read.put(error)

    async def more(self, seconds: float) -> bool:
        """Whether there is something to be taken, as soon as there is; False once so much time has passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                self._put_back = self._put_back or await self._read.get()
        return self._put_back is not None

    async def get(self) -> messages.WatchOutcomesResponse | None:
        """The next page; None where the stream has ended.

        Raises:
            grpc.aio.AioRpcError, ConnectionError: it broke.
            TimeoutError: it was silent for too long.
        """
        found, self._put_back = self._put_back, None
        page = await self._read.get() if found is None else found
        if isinstance(page, StopAsyncIteration):
            return None
        if isinstance(page, Exception):
            raise page
        return page

    def following(self, pages: Sequence[messages.WatchOutcomesResponse]) -> Iterator[messages.WatchOutcomesResponse]:
        """What else was read and can be taken with pages: others with reports, that go on in their log from where the one before ends."""
        cursor, room = pages[-1].cursor, TOGETHER_MAX - sum(len(each.reports) for each in pages)
        while self._put_back is not None or not self._read.empty():
            found, self._put_back = self._put_back or self._read.get_nowait(), None
            if not isinstance(found, messages.WatchOutcomesResponse) or not found.reports or len(found.reports) > room:
                self._put_back = found
                return
            if found.cursor.incarnation != cursor.incarnation or found.cursor.sequence < cursor.sequence:
                self._put_back = found
                return
            cursor, room = found.cursor, room - len(found.reports)
            yield found


@contextmanager
def _ahead(stream: OutcomeStream) -> Iterator[_Ahead]:
    """The stream's pages, which are read while others are taken."""
    ahead = _Ahead()
    reading = asyncio.create_task(ahead.read(stream), name="outcomes.ahead")
    try:
        yield ahead
    finally:
        reading.cancel()
