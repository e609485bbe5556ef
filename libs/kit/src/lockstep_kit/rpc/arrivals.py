"""How calls come to the server: one whose caller cancels what it calls is taken late, or not at all, before anything is made for it.

gRPC's own server makes two tasks for every call that comes, and asks nobody before. The one place that can is where it asks its core for the next call: that is
not public, and this module alone uses it. `libs/kit/tests/runtime/test_arrivals.py` fails where a new release of gRPC does it otherwise.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
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
#: Calls that gRPC's core is asked for at once. Asked for one by one, as the library does, a thousand a second are all that come on a busy machine.
ASKED: Final = 16
#: Turns of the event loop in which the library's loop takes a call.
_TURNS_FOR_EACH: Final = 4
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

    def __init__(self, cancellations: Cancellations, loop: asyncio.AbstractEventLoop, *args: Any) -> None:
        super().__init__(loop, *args)
        self._events = loop
        self._cancellations = cancellations
        #: Each of them asks gRPC's core for calls.
        self._asking: set[asyncio.Task[None]] = set()
        #: Set while more may be asked for.
        self._room = asyncio.Event()
        #: Calls whose turn it is.
        self._ready: deque[tuple[str, Any]] = deque()
        #: What the server waits for.
        self._wanted: asyncio.Future[Any] | None = None
        #: Calls by their turns. One that is held here keeps its place among its connection's streams.
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = itertools.count()

    def _make_request_call_future(self, _: object) -> asyncio.Future[Any]:
        """The next call, for the library's loop; no method is registered with gRPC by itself, so there is one kind of call."""
        self._wanted = self._events.create_future()
        self._give()
        while len(self._asking) < ASKED:
            task = self._events.create_task(self._ask(), name="arrivals.ask")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return self._wanted

    async def shutdown(self, grace: float | None) -> None:
        """Stop; what waits is let go, since gRPC waits for every call that somebody holds."""
        for _ in range(_TURNS_FOR_EACH * ASKED):
            if not self._ready:
                break
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._ready.clear()
        self._room.set()
        await super().shutdown(grace)

    async def _ask(self) -> None:
        """Ask gRPC's core for one call after the other, until there are none."""
        while self.is_running():
            try:
                # Nothing here may keep the call: one that is let go ends when nobody holds it.
                self._arrived(await super()._request_call())
            except Exception as error:  # noqa: BLE001 - as if the library had asked itself: it asks again, or ends
                if self._wanted is not None and not self._wanted.done():
                    self._wanted.set_exception(error)
                return
            self._give()
            if len(self._ready) >= ASKED:
                self._room.clear()
                await self._room.wait()

    def _give(self) -> None:
        """Give the library's loop the call that it waits for."""
        if self._ready and self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(self._taken(*self._ready.popleft()))
            self._room.set()

    def _arrived(self, state: Any) -> None:
        """The call is ready, waits, or is let go."""
        if not self.is_running():
            return
        caller, now = _caller(_context(state)), time.monotonic()
        turn = self._cancellations.turn(caller, now)
        if turn.at <= now:
            self._ready.append((caller, state))
            return
        HELD.inc()
        if turn.begins:
            _log.warning("calls_held", caller=caller)
        if len(self._waiting) < WAITING_MAX:
            heapq.heappush(self._waiting, _Waiting(turn.at, next(self._numbers), caller, turn.is_taken, state))
            self._look_at(self._waiting[0].at)

    def _look_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._events.call_later(max(moment - time.monotonic(), 0.0), self._look)

    def _look(self) -> None:
        """Those whose turn it is are ready, or need not be held any more."""
        now, self._timer = time.monotonic(), None
        while self._waiting and self._waiting[0].at <= now:
            due = heapq.heappop(self._waiting)
            if due.is_taken:
                self._ready.append((due.caller, due.state))
        if self._waiting:
            self._look_at(self._waiting[0].at)
        self._give()

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
