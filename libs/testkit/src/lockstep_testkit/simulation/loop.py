"""An asyncio event loop in virtual time, and the processes that live on it.

Nothing waits: when nothing is ready, the clock jumps to the next timer. What is ready at one moment runs in an order that the seed draws, since nothing
promises any. Every callback belongs to the process whose context it was made in: those of a process that was killed never run again, and those of one
that is paused run when it goes on. Threads are run in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
import sys
from asyncio import base_events, events
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

#: Callbacks that may run without the clock moving on: more is a loop that spins.
CALLBACKS_AT_ONCE_MAX: Final = 200_000
#: The clock at the start: no code may take zero for "never".
START_SECONDS: Final = 1_000.0

_process: ContextVar[Process | None] = ContextVar("simulated_process", default=None)


class Process:
    """One process: its callbacks, until it is killed. A restart is another process of the same name."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop: Final = loop
        #: As it is told in timelines.
        self.name: Final = name
        #: Whether it was not killed.
        self.alive = True
        #: Whether it runs: it is alive and not paused.
        self.running = True
        #: Called when it is killed.
        self.on_kill: list[Callable[[], None]] = []
        #: Called when it has been paused for so long that others end what it had open with them.
        self.on_silence: list[Callable[[], None]] = []
        self._context = Context()
        self._context.run(_process.set, self)
        self._held: list[asyncio.Handle] = []
        # A task that nobody refers to would be collected in the middle of its work.
        self._tasks: list[asyncio.Task[Any]] = []

    def context(self) -> Context:
        """A fresh context in which callbacks belong to this process."""
        return self._context.copy()

    def spawn(self, work: Coroutine[Any, Any, _T], name: str = "") -> asyncio.Task[_T]:
        """Run work as a task of this process."""
        task = self.loop.create_task(work, name=name or None, context=self.context())
        self._tasks.append(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        # A killed process keeps its tasks: collecting one would run its `finally` blocks, which no killed process runs.
        if self.alive:
            self._tasks.remove(task)

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep a callback until the process goes on; one of a killed process never runs."""
        self._held.append(handle)

    def kill(self) -> None:
        """Stop it between two callbacks, as kill -9 does; nothing of it is tidied up."""
        self.alive = self.running = False
        for tell in self.on_kill:
            tell()

    def pause(self) -> None:
        """Let nothing of it run, as SIGSTOP does."""
        self.running = False

    def abandon(self) -> None:
        """Others give up waiting for it, if it still is paused."""
        if self.alive and not self.running:
            for tell in self.on_silence:
                tell()

    def resume(self) -> None:
        """Go on where it stood; what came due meanwhile runs now."""
        if self.alive and not self.running:
            self.running = True
            held, self._held = self._held, []
            self.loop.put_back(held)


def current_process() -> Process | None:
    """The process whose code is running."""
    return _process.get()


class LoopStuck(BaseException):
    """Callbacks make callbacks without end, and the clock stands."""


class VirtualLoop(base_events.BaseEventLoop):
    """The loop. `chance` orders what is ready at one moment."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._now = START_SECONDS
        self._at_once = 0
        self._clock_resolution = 1e-9
        #: Callbacks that were run.
        self.callbacks = 0
        #: Errors of tasks that nobody awaited, and of callbacks.
        self.unhandled: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Run callbacks that were held."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """What would run in a thread runs now."""
        del executor
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the awaiter's
            future.set_exception(error)
        return future

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        process = _process.get()
        if process is None or process.alive:
            self.unhandled.append(f"{context.get('message')}: {type(error).__name__ if error else ''}: {error}")

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        ready = self._ready  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not scheduled:
                raise LoopStuck("nothing is ready, and no timer will ever fire")
            if scheduled[0]._when > self._now:  # type: ignore[attr-defined]
                self._now = scheduled[0]._when  # type: ignore[attr-defined]
                self._at_once = 0
        while scheduled and scheduled[0]._when <= self._now:  # type: ignore[attr-defined]
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            ready.append(handle)
        batch = list(ready)
        ready.clear()
        if len(batch) > 1:
            self._chance.shuffle(batch)
        self._at_once += len(batch)
        if self._at_once > CALLBACKS_AT_ONCE_MAX:
            raise LoopStuck(f"{self._at_once} callbacks ran without the clock moving on; the next is {batch[0]!r}")
        for handle in batch:
            if handle._cancelled:
                continue
            process = handle._context.get(_process)
            if process is not None and not process.running:
                if process.alive:
                    process.hold(handle)
                continue
            self.callbacks += 1
            handle._run()

    def _process_events(self, event_list: Any) -> None:
        """There are none: nothing comes from outside."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""


def run(loop: VirtualLoop, main: Awaitable[_T]) -> _T:
    """Run until `main` ends; whatever is still going on then is dropped, and none of it runs any more."""
    try:
        return loop.run_until_complete(main)
    finally:
        _drop(loop)


def _drop(loop: VirtualLoop) -> None:
    """End every task where it stands. What a coroutine still wants to do about its end is not done: its world is gone."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    logging.disable(logging.CRITICAL)
    events._set_running_loop(loop)
    try:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            if coroutine is not None:
                with contextlib.suppress(BaseException):
                    coroutine.close()
        loop._ready.clear()  # type: ignore[attr-defined]
        loop._scheduled.clear()  # type: ignore[attr-defined]
    finally:
        events._set_running_loop(None)
        sys.unraisablehook = hook
        logging.disable(logging.NOTSET)
        loop.close()
