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
from coordinator.store import outboxes
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep_kit.loops import Loop, back_off_seconds

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

_log = structlog.get_logger()


class Outcomes:
    """The outcome log of one participant."""

    def __init__(self, engine: Engine, peer: Peer, news: News) -> None:
        self._engine = engine
        self._peer = peer
        self._news = news
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
        pages = aiter(stream)
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    page = await anext(pages)
            except StopAsyncIteration:
                return
            self._failures = 0
            at = (page.cursor.incarnation, page.cursor.sequence)
            if page.reports or at != after:
                await self._take(page)
                after = at

    async def _take(self, page: messages.WatchOutcomesResponse) -> None:
        await self._news.take(self._peer.name, page.reports, also=partial(self._save, page.cursor))

    async def _save(self, cursor: messages.OutcomeCursor, connection: Connection) -> None:
        await outboxes.save_cursor(connection, self._peer.name, cursor.incarnation, cursor.sequence)
