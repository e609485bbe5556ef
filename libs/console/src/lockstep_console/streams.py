"""Server-sent events: how they are written, how many there are, and when one ends.

A stream ends when its browser goes, when it does not take what it is sent, when it is over, and when the process is told to stop. Nothing waits for a browser
that is slow but the bytes in its own connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from lockstep_console.answers import Unanswered
from lockstep_console.guard import NO_STORE

_log = structlog.get_logger()

#: A browser that takes nothing for so long is gone.
WRITE_SECONDS_MAX: Final = 30.0
#: What a browser may show as its last event.
CURSOR_CHARACTERS_MAX: Final = 512


def frame(event: str, document: Any, cursor: str) -> bytes:
    """One event. JSON holds no line break, so that its data is one line."""
    head = f"id: {cursor}\n" if cursor else ""
    return f"{head}event: {event}\ndata: ".encode() + orjson.dumps(document) + b"\n\n"


def cursor_of(request: web.Request) -> str:
    """Where a browser says it stands; "" for one that says nothing, or nothing that was ever given."""
    told = request.headers.get("Last-Event-ID", "")
    return told if len(told) <= CURSOR_CHARACTERS_MAX and told.isascii() and told.isprintable() else ""


class Streams:
    """The streams that are open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        self._closing = asyncio.Event()

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open

    def close(self) -> None:
        """End them all."""
        self._closing.set()

    async def serve(self, request: web.Request, events: AsyncIterator[bytes]) -> web.StreamResponse:
        """Send events until there are no more, or the browser goes.

        Raises:
            Unanswered: STREAMS_MAX, DRAINING.
        """
        if self._closing.is_set():
            raise Unanswered(503, "DRAINING", "the console stops", "try again soon")
        if self._open >= self._most:
            raise Unanswered(
                503, "STREAMS_MAX", f"{self._most} streams are open", "close a page that is not needed, or raise listen.streams_max"
            )
        self._open += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": NO_STORE})
        sending = asyncio.create_task(self._send(request, response, events), name="stream")
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((sending, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= 1
            for task in (sending, closing):
                task.cancel()
            ended, _ = await asyncio.gather(sending, closing, return_exceptions=True)
            if isinstance(ended, Exception):
                _log.error("stream_failed", exc_info=ended)
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, events: AsyncIterator[bytes]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(events, AsyncGenerator):
                stack.push_async_callback(events.aclose)
            with contextlib.suppress(ConnectionError, TimeoutError):
                await response.prepare(request)
                async for each in events:
                    async with asyncio.timeout(WRITE_SECONDS_MAX):
                        await response.write(each)


async def with_heartbeats(events: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    """The events, and a heartbeat whenever none came for so long."""
    following: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            following = following or asyncio.create_task(_following(events))
            done, _ = await asyncio.wait((following,), timeout=seconds)
            if not done:
                yield frame("heartbeat", {}, "")
                continue
            each, following = following.result(), None
            if each is None:
                return
            yield each
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


async def _following(events: AsyncIterator[bytes]) -> bytes | None:
    """The next event; None after the last."""
    async for each in events:
        return each
    return None
