"""What every process shows of itself: calls, loops, the pool, the event loop, its certificate, its build."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

import structlog
from cryptography import x509
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lockstep_kit.db import PoolUse
from lockstep_kit.metrics.definitions import Definition, Kind
from lockstep_kit.metrics.instruments import CALL_SECONDS, Instruments

_log = structlog.get_logger()

INSTRUMENTS: Final = Instruments()
CALLS: Final = INSTRUMENTS.counter(
    "lockstep_rpc_server_requests_total", "Calls that ended, by method and gRPC status code.", ("method", "code")
)
CALL_DURATION: Final = INSTRUMENTS.histogram(
    "lockstep_rpc_server_duration_seconds", "How long unary calls took, in seconds.", ("method",), buckets=CALL_SECONDS
)
HELD: Final = INSTRUMENTS.counter(
    "lockstep_rpc_server_calls_held_total",
    "Calls that were taken late, or not at all, because their callers cancel what they call.",
)
STREAMS_OPEN: Final = INSTRUMENTS.gauge("lockstep_rpc_server_streams_open", "Streams that are open now.", ("method",))
LOOP_FAILURES: Final = INSTRUMENTS.counter(
    "lockstep_loop_failures_total", "Rounds of background loops that ended with an error.", ("loop",)
)
LAG: Final = INSTRUMENTS.histogram(
    "lockstep_event_loop_lag_seconds", "How much later than asked the event loop ran a timer, in seconds.", buckets=CALL_SECONDS
)
CERTIFICATE_EXPIRY: Final = INSTRUMENTS.gauge(
    "lockstep_certificate_expiry_timestamp_seconds", "When the process's own certificate ends, Unix time in seconds."
)

POOL: Final = Definition(
    "lockstep_database_pool_connections", Kind.GAUGE, "Connections of the pool: in use, idle, and how many there may be.", ("use",)
)
POOL_WAITING: Final = Definition(
    "lockstep_database_pool_waiting", Kind.GAUGE, "Pieces of work that wait for a connection of the pool now."
)
BUILD: Final = Definition(
    "lockstep_build", Kind.GAUGE, "1, with the service, its version and its Python as labels.", ("service", "version", "python")
)
#: What `Process` shows beside the instruments.
DEFINITIONS: Final = (POOL, POOL_WAITING, BUILD)

LAG_LOOK_SECONDS: Final = 0.5


class Pool(Protocol):
    """Where connections come from."""

    def use(self) -> PoolUse:
        """How much of it is taken."""
        ...


class Process(Collector):
    """What is known at once when somebody looks."""

    def __init__(self, service: str, pool: Pool) -> None:
        self._pool = pool
        self._labels = (service, version_of(service), platform.python_version())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The pool and the build."""
        use = self._pool.use()
        pool = GaugeMetricFamily(POOL.name, POOL.text, labels=POOL.labels)
        for label, value in (("in_use", use.in_use), ("idle", use.idle), ("max", use.size_max)):
            pool.add_metric((label,), value)
        yield pool
        waiting = GaugeMetricFamily(POOL_WAITING.name, POOL_WAITING.text)
        waiting.add_metric((), use.waiting)
        yield waiting
        build = GaugeMetricFamily(BUILD.name, BUILD.text, labels=BUILD.labels)
        build.add_metric(self._labels, 1)
        yield build


def version_of(service: str) -> str:
    """Version of the installed package of a service, or "unknown"."""
    try:
        return metadata.version(f"lockstep-{service}")
    except metadata.PackageNotFoundError:
        return "unknown"


async def watch_lag() -> None:
    """Notice how late the event loop is, until cancelled."""
    clock = asyncio.get_running_loop()
    while True:
        due = clock.time() + LAG_LOOK_SECONDS
        await asyncio.sleep(LAG_LOOK_SECONDS)
        LAG.observe(max(clock.time() - due, 0.0))


def note_certificate(certificate_file: Path) -> None:
    """Note when a certificate ends; one that cannot be read keeps what was noted before."""
    try:
        found = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        _log.warning("certificate_not_read", error=type(error).__name__)
        return
    CERTIFICATE_EXPIRY.set(found.not_valid_after_utc.timestamp())
