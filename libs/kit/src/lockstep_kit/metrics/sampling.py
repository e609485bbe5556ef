"""Reads rows for metrics, on one connection of its own and one statement at a time, and keeps what it read until it is too old to be shown.

A database that does not answer costs its numbers and nothing else: they disappear from the page, and `lockstep_sample_timestamp_seconds` says since when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, cast

import asyncpg
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lockstep_kit.db import Connection
from lockstep_kit.metrics.instruments import Instruments
from lockstep_kit.metrics.readings import Reading, Sampled
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

INSTRUMENTS: Final = Instruments()
_FAILURES: Final = INSTRUMENTS.counter(
    "lockstep_sample_failures_total", "Readings of rows that failed or took too long.", ("reading",)
)
_TIMESTAMP: Final = INSTRUMENTS.gauge(
    "lockstep_sample_timestamp_seconds", "When rows were last read, Unix time in seconds.", ("reading",)
)

#: Numbers are shown for so many rounds after they were read.
ROUNDS_SHOWN: Final = 4
_CLOSE_SECONDS_MAX: Final = 2.0


class Source(Protocol):
    """Where the connection comes from."""

    async def apart(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    at: float
    numbers: Sequence[Sampled]


class Sampler(Collector):
    """What was read last."""

    def __init__(
        self,
        source: Source,
        readings: Sequence[Reading],
        *,
        sample_seconds: float,
        read_seconds_max: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._readings = tuple(readings)
        self._shown_seconds = ROUNDS_SHOWN * sample_seconds
        self._read_seconds_max = read_seconds_max
        self._clock = clock
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._last: dict[str, _Read] = {}
        for each in self._readings:
            _FAILURES.labels(each.name)

    async def round(self) -> None:
        """Read everything once, each within its time; one that fails does not keep the others from being read."""
        left = list(self._readings)
        while left:
            try:
                await self._read(left)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round reads again
                self._let_go()
                # Where everything is read, only the end of the transaction went wrong, which wrote nothing.
                for failed in left[:1]:
                    _FAILURES.labels(failed.name).inc()
                    _log.warning("metrics_not_read", about=failed.name, error=f"{type(error).__name__}: {error}")
                left = left[1:]

    async def _read(self, left: list[Reading]) -> None:
        """Read what is left, the first first; what was read is left no more."""
        async with asyncio.timeout(self._read_seconds_max):
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._source.apart()
        # One moment for all that is read, and no write by mistake.
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            while left:
                async with asyncio.timeout(self._read_seconds_max):
                    numbers = await left[0].read(cast("Connection", self._connection))
                self._last[left[0].name] = _Read(self._clock(), numbers)
                _TIMESTAMP.labels(left[0].name).set_to_current_time()
                left.pop(0)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=_CLOSE_SECONDS_MAX)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is shown: everything that was read lately enough."""
        now = self._clock()
        for reading in self._readings:
            last = self._last.get(reading.name)
            numbers = last.numbers if last is not None and now - last.at <= self._shown_seconds else ()
            for definition in reading.definitions:
                family = GaugeMetricFamily(definition.name, definition.text, labels=definition.labels)
                for each in numbers:
                    if each.name == definition.name:
                        family.add_metric(each.labels, each.value)
                yield family
