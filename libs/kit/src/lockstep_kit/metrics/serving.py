"""Puts a process's metrics on a page and serves it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest

from lockstep_kit.db import Database
from lockstep_kit.loops import Loop, TaskSupervisor
from lockstep_kit.metrics import process, sampling
from lockstep_kit.metrics.definitions import Definition, check_all
from lockstep_kit.metrics.instruments import Instruments
from lockstep_kit.metrics.process import Process, note_certificate, watch_lag
from lockstep_kit.metrics.readings import Reading
from lockstep_kit.metrics.sampling import Sampler
from lockstep_kit.metrics.server import MetricsServer
from lockstep_kit.metrics.settings import MetricsSettings
from lockstep_kit.rpc.tls import TlsSettings
from lockstep_kit.values import dataclass

#: The page is written anew at the most this often, however many ask for it.
PAGE_SECONDS_MIN: Final = 0.5


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a service shows beside what every process shows."""

    #: What it counts with.
    instruments: tuple[Instruments, ...] = ()
    #: What is read from its rows.
    readings: tuple[Reading, ...] = ()

    def definitions(self) -> tuple[Definition, ...]:
        """Everything on its page, what every process shows included.

        Raises:
            FieldInvalid: a definition breaks a rule, or a name stands twice.
        """
        return check_all(self._definitions())

    def _definitions(self) -> Iterator[Definition]:
        for group in (*SHARED, *self.instruments):
            yield from group.definitions
        yield from process.DEFINITIONS
        for reading in self.readings:
            yield from reading.definitions


#: What every process counts with.
SHARED: Final = (process.INSTRUMENTS, sampling.INSTRUMENTS)


@asynccontextmanager
async def exposed(
    service: str, settings: MetricsSettings, tls: TlsSettings, db: Database, metrics: Metrics
) -> AsyncIterator[MetricsServer | None]:
    """The metrics are served inside, and rows are read for them; None where they are not to be served.

    Raises:
        OSError: the port is taken.
        FieldInvalid: a definition breaks a rule, or a name stands twice.
    """
    if settings.port is None:
        yield None
        return
    metrics.definitions()
    sampler = Sampler(db, metrics.readings, sample_seconds=settings.sample_seconds, read_seconds_max=settings.read_seconds_max)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for group in (*SHARED, *metrics.instruments):
        group.register(registry)
    registry.register(Process(service, db))
    registry.register(sampler)

    async def look() -> None:
        note_certificate(tls.certificate_file)
        await sampler.round()

    server = MetricsServer(settings.host, settings.port, page_of(registry))
    await server.start()
    supervisor, lag = TaskSupervisor(), asyncio.create_task(watch_lag(), name="metrics.lag")
    supervisor.start(Loop("metrics.sample", look, poll_seconds=settings.sample_seconds))
    try:
        if settings.port_file is not None:
            part = settings.port_file.with_suffix(".part")
            part.write_text(f"{server.port}\n")
            part.replace(settings.port_file)
        yield server
    finally:
        lag.cancel()
        await supervisor.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await lag
        await server.close()
        await sampler.close()


def page_of(registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> Callable[[], bytes]:
    """Writes the page; the same bytes for whoever asks again at once."""
    octets, written_at = b"", float("-inf")

    def page() -> bytes:
        nonlocal octets, written_at
        if clock() - written_at >= PAGE_SECONDS_MIN:
            octets, written_at = generate_latest(registry), clock()  # type: ignore[no-untyped-call]  # the library's one untyped function
        return octets

    return page
