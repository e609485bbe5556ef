"""Follows one participant's outcome log: what it reports and how far it was read are one transaction."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog

from coordinator.engine import Engine
from coordinator.news import News
from coordinator.peers import SILENCE_SECONDS_MAX, OutcomeStream, Peer
from coordinator.restores import Restores
from coordinator.store import outboxes
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep_kit.loops import Loop, back_off_seconds

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

_log = structlog.get_logger()


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
        return Loop(f"outcomes.{self._peer.name}", self.run, poll_seconds=0.0)

    async def run(self) -> None:
        """Follow until the stream ends; what was read stays read."""
        async with self._engine.db.connection() as connection:
            after = await outboxes.cursor(connection, self._peer.name)
        stream = self._peer.outcomes(after)
        try:
            await self._follow(stream, after)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "SILENT"
            _log.warning("outcomes_lost", participant=self._peer.name, code=code)
            self._failures += 1
            await asyncio.sleep(back_off_seconds(self._failures, self._rng, most=5.0))
        finally:
            stream.cancel()

    async def _follow(self, stream: OutcomeStream, after: tuple[str, int] | None) -> None:
        pages, unshown = aiter(stream), self._news.unshown[self._peer.name]
        unshown.opened()
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    page = await anext(pages)
            except StopAsyncIteration:
                return
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
                await self._take(page)
                after = at

    async def _back(self) -> None:
        """The participant was away and answers again: what it did not answer need not wait for its repeat, which may be half a minute away."""
        self._failures = 0
        async with self._engine.db.connection() as connection:
            await outboxes.hasten_participant(connection, self._peer.name)
        self._engine.wakes.relays[self._peer.name].set()

    async def _take(self, page: messages.WatchOutcomesResponse) -> None:
        await self._news.take_shown(self._peer.name, page.reports, partial(self._save, page.cursor))

    async def _save(self, cursor: messages.OutcomeCursor, connection: Connection) -> None:
        await outboxes.save_cursor(connection, self._peer.name, cursor.incarnation, cursor.sequence)
