"""Doors: a TCP port in front of the replicas of a service, which can be cut, stalled, made deaf, mute or slow while everything runs.

A door stands where a machine's network and its load balancer stand in production: callers know the door, and the door hands each connection to a replica that
accepts it. What passes through it is encrypted, so it changes nothing of it: it lets bytes pass, holds them back, or ends connections. An answer that is held
back and then lost with its connection is how a command comes to be sent twice.

What is lost at the edge: order within a connection is always kept, as TCP keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from lockstep_sandbox.ports import LOOPBACK

CHUNK_BYTES: Final = 65_536
#: How often a connection that is held back looks whether it may go on.
LOOK_SECONDS: Final = 0.02


class Weather(StrEnum):
    """What a door does with what passes."""

    #: Everything passes.
    FAIR = "FAIR"
    #: Connections end, and none is accepted.
    CUT = "CUT"
    #: Connections stay, and nothing passes.
    STALLED = "STALLED"
    #: Requests pass, and their answers do not.
    DEAF = "DEAF"
    #: Answers pass, and requests do not.
    MUTE = "MUTE"
    #: Everything passes late.
    SLOW = "SLOW"


#: What does not pass: towards the service, towards the caller.
_HELD: Final = {Weather.STALLED: (True, True), Weather.DEAF: (False, True), Weather.MUTE: (True, False)}


class Door:
    """One door. Use as an async context manager; what passes through it ends with it."""

    def __init__(self, port: int, replicas: Sequence[int]) -> None:
        """A door on a port of loopback, before the ports of replicas."""
        self.port: Final = port
        self._replicas = list(replicas)
        self._turn = itertools.count()
        self._weather = Weather.FAIR
        self._delay_seconds = 0.0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self.port)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.close()
        await self._end_all()

    @property
    def connections(self) -> int:
        """How many connections the door has taken and not ended. One that a caller has opened is taken a moment later."""
        return len(self._open)

    async def turn(self, weather: Weather, delay_seconds: float = 0.0) -> None:
        """Change the weather. Connections that something was held back from are ended when it clears up: their callers have long given them up."""
        held = self._weather in _HELD
        self._weather, self._delay_seconds = weather, delay_seconds
        if held or weather is Weather.CUT:
            await self._end_all()

    async def _end_all(self) -> None:
        ending = list(self._open)
        for each in ending:
            each.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._weather is Weather.CUT:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            # An end in the middle looks like one to both sides; the server's own end cancels too.
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await self._reach()
        if there is None:
            return
        back, forth = there
        passing = [
            asyncio.create_task(self._pass(reader, forth, towards_caller=False)),
            asyncio.create_task(self._pass(back, writer, towards_caller=True)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in passing:
                each.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            forth.transport.abort()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the replica whose turn it is, or to the next that accepts one."""
        first = next(self._turn)
        for place in range(len(self._replicas)):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(LOOPBACK, self._replicas[(first + place) % len(self._replicas)])
        return None

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, towards_caller: bool) -> None:
        while octets := await source.read(CHUNK_BYTES):
            while _HELD.get(self._weather, (False, False))[towards_caller]:  # noqa: ASYNC110 - the weather has no event of its own
                await asyncio.sleep(LOOK_SECONDS)
            if self._weather is Weather.SLOW:
                await asyncio.sleep(self._delay_seconds)
            target.write(octets)
            await target.drain()
