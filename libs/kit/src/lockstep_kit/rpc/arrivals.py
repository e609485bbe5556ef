"""How calls come to the server: one whose caller cancels what it calls is taken late, or not at all, before anything is made for it.

gRPC's own server makes two tasks for every call that comes, and asks nobody before. The one place that can is where it asks its core for the next call: that is
not public, and this module alone uses it. `libs/kit/tests/runtime/test_arrivals.py` fails where a new release of gRPC does it otherwise.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from functools import partial
from typing import Any, Final, NamedTuple

import grpc
import structlog
from grpc._cython import cygrpc
from grpc.aio import _server as library

from lockstep_kit.metrics.process import HELD
from lockstep_kit.rpc.cancellations import Cancellations
from lockstep_kit.rpc.limits import OTHERS

_log = structlog.get_logger()

#: Calls of all callers that wait for their turn; one more is not taken.
WAITING_MAX: Final = 2_048  # some 20 KiB each
_SPIFFE: Final = b"spiffe://"


class _Waiting(NamedTuple):
    """A call that waits; the one whose turn is next comes first."""

    at: float
    number: int
    caller: str
    is_taken: bool
    state: Any


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # the library's, without types
    """gRPC's server, which is given the next call when it is that call's turn."""

    def __init__(self, cancellations: Cancellations, *args: Any) -> None:
        super().__init__(*args)
        self._cancellations = cancellations
        #: What is asked of gRPC's core while calls wait for their turn.
        self._asked: asyncio.Task[Any] | None = None
        #: When each call's turn is, in their order. A call that is held here keeps its place among its connection's streams.
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()

    async def _request_call(self) -> Any:
        while True:
            if self._asked is None and not self._waiting:
                found = self._arrived(await super()._request_call())
            else:
                found = await self._next()
            if found is not None:
                return found

    async def shutdown(self, grace: float | None) -> None:
        """Stop; what waits is let go, since gRPC waits for every call that somebody holds."""
        self._waiting.clear()
        await super().shutdown(grace)

    async def _next(self) -> Any:
        """The call whose turn is next, or one that came meanwhile; None if neither is to be taken now."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(super()._request_call())
        try:
            await asyncio.wait((self._asked,), timeout=max(self._waiting[0].at - time.monotonic(), 0.0) if self._waiting else None)
        except asyncio.CancelledError:
            self._asked.cancel()
            raise
        if self._waiting and self._waiting[0].at <= time.monotonic():
            due = heapq.heappop(self._waiting)
            return self._taken(due.caller, due.state) if due.is_taken else None
        if not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        return self._arrived(asked.result())

    def _arrived(self, state: Any) -> Any:
        """The call, if it is to be taken now."""
        caller, now = _caller(_context(state)), time.monotonic()
        turn = self._cancellations.turn(caller, now)
        if turn.at <= now:
            return self._taken(caller, state)
        HELD.inc()
        if turn.begins:
            _log.warning("calls_held", caller=caller)
        if len(self._waiting) < WAITING_MAX and self.is_running():
            heapq.heappush(self._waiting, _Waiting(turn.at, next(self._numbers), caller, turn.is_taken, state))
        return None

    def _taken(self, caller: str, state: Any) -> Any:
        _context(state).add_done_callback(partial(self._ended, caller, time.monotonic()))
        return state

    def _ended(self, caller: str, taken: float, context: Any) -> None:
        if not context.done():
            now = time.monotonic()
            self._cancellations.ended(caller, now - taken, now)


class ArrivalsServer(library.Server):
    """A server of `grpc.aio`, whose calls come through `Cancellations`."""

    def __init__(self, cancellations: Cancellations, options: tuple[tuple[str, Any], ...], concurrent_calls_max: int) -> None:
        # As the library's own does, which knows no other core than its own: no threads, no handlers yet, no interceptors.
        self._loop = cygrpc.get_working_loop()
        augmented = library._augment_channel_arguments(options, None)  # noqa: SLF001 - see above
        self._server = _Core(cancellations, self._loop, None, (), (), augmented, concurrent_calls_max)


def _context(state: Any) -> Any:
    return cygrpc._ServicerContext(state, None, None, None)  # noqa: SLF001 - gRPC makes another, when it has read the request


def _caller(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """SPIFFE id of the caller, as far as it matters here: nobody is let in by it."""
    return next((each.decode(errors="replace") for each in context.peer_identities() or () if each.startswith(_SPIFFE)), OTHERS)
