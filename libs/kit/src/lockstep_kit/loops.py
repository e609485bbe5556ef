"""Background loops that never die silently: woken or polling, backing off from errors, stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from lockstep_kit.db import is_transient
from lockstep_kit.metrics.process import LOOP_FAILURES
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

BACK_OFF_SECONDS_MIN: Final = 0.1
BACK_OFF_SECONDS_MAX: Final = 10.0


def back_off_seconds(
    attempts: int, rng: random.Random, *, first: float = BACK_OFF_SECONDS_MIN, most: float = BACK_OFF_SECONDS_MAX
) -> float:
    """Capped exponential back-off with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
    return rng.uniform(0.0, min(most, first * 2 ** min(attempts, 30)))


@dataclass(frozen=True, slots=True)
class Soon:
    """What work returns that is to be done again before the next poll."""

    #: In so many seconds, unless it is woken before.
    seconds: float


class Loop:
    """One piece of work, done again and again: when woken, and at least every `poll_seconds`, or as soon as it says (`Soon`).

    Behind it there is a rest of `rest_seconds`: what wakes it meanwhile is seen to together. Who wakes it when it has rested is heard at once.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        poll_seconds: float,
        wake: asyncio.Event | None = None,
        rest_seconds: float = 0.0,
    ) -> None:
        self.name = name
        #: Set to have the work done now.
        self.wake = wake if wake is not None else asyncio.Event()
        self._work = work
        self._poll_seconds = poll_seconds
        self._rest_seconds = rest_seconds
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._failures = LOOP_FAILURES.labels(name)

    async def run(self) -> None:
        """Work until cancelled. An error is logged and backed off from; the work is done again."""
        failures = 0
        while True:
            self.wake.clear()
            try:
                told = await self._work()
                failures = 0
            except Exception as error:  # noqa: BLE001 - a loop outlives every error
                failures += 1
                self._failures.inc()
                if is_transient(error):
                    _log.warning("loop_delayed", loop=self.name, failures=failures, error=f"{type(error).__name__}: {error}")
                else:
                    _log.exception("loop_failed", loop=self.name, failures=failures)
                await asyncio.sleep(back_off_seconds(failures, self._rng))
                continue
            if self._rest_seconds:
                await asyncio.sleep(self._rest_seconds)
            # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the wake, and the loop would never end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(told.seconds, self._poll_seconds) if isinstance(told, Soon) else self._poll_seconds):
                    await self.wake.wait()


class TaskSupervisor:
    """Runs loops together; when one ends, which none should, everything ends."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *loops: Loop) -> None:
        """Start loops."""
        self._tasks.extend(asyncio.create_task(loop.run(), name=loop.name) for loop in loops)

    async def wait(self) -> None:
        """Return when a loop has ended; raise what it raised."""
        if self._tasks:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def stop(self) -> None:
        """Stop all loops and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
