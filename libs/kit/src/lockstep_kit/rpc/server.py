"""A gRPC server of a service: mutual TLS, guarded, with health, and a drain that ends open streams.

Health (grpc.health.v1) is answered for "" and for each service by its full name, to everybody in the trust domain; and, where `probe_port` is set, on a port of
its own without TLS, since an orchestrator's probes show no certificate. That port answers nothing else.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import BaseModel, ConfigDict, Field

from lockstep_kit.rpc import metering
from lockstep_kit.rpc.access import Access
from lockstep_kit.rpc.arrivals import ArrivalsServer
from lockstep_kit.rpc.arrows import SERVICE_IDS
from lockstep_kit.rpc.buckets import Rate
from lockstep_kit.rpc.cancellations import Cancellations
from lockstep_kit.rpc.certificates import Certificates
from lockstep_kit.rpc.gate import Gate
from lockstep_kit.rpc.guard import Guard
from lockstep_kit.rpc.limits import Limiter, ServingLimits
from lockstep_kit.rpc.metering import metered
from lockstep_kit.rpc.methods import Methods
from lockstep_kit.rpc.tls import TlsSettings, server_credentials
from lockstep_kit.rpc.tracing import spanned

_log = structlog.get_logger()

#: How long streams get to end by themselves when the server drains.
STREAM_PATIENCE_SECONDS: Final = 0.5

#: What a probe may take of a port that anybody can reach: small requests, few connections, none for long.
_PROBE_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1_024),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_allowed_incoming_connections", 32),
    ("grpc.max_connection_age_ms", 60_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_metadata_size", 2_048),
    ("grpc.absolute_max_metadata_size", 4_096),
)
_PROBES_AT_ONCE_MAX: Final = 32

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Callers ping every 20 s, also between calls; what pings more often is let go.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Callers that say nothing, or nothing in time, do not keep a connection.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # What is between the two may be refused, what is above always is.
    ("grpc.max_metadata_size", 8_192),
    ("grpc.absolute_max_metadata_size", 16_384),
)


class ListenSettings(BaseModel):
    """Where a server listens and how much it takes."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; loopback unless told otherwise")
    port: int = Field(default=0, ge=0, le=65_535, description="port; 0 picks a free one")
    probe_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="port on which health alone is answered, without TLS, for an orchestrator's probes; 0 picks a free one, none opens none",
    )
    port_file: Path | None = Field(default=None, description="file to write the port to once the server takes calls")
    message_bytes_max: int = Field(default=4 << 20, description="largest message that is taken")
    concurrent_calls_max: int = Field(default=1_000, description="calls at one time; more are refused with RESOURCE_EXHAUSTED")
    limits: ServingLimits = Field(default_factory=ServingLimits, description="what each caller may have of this replica")
    call_seconds_max: float = Field(default=300.0, gt=0, description="longest time that a caller may give a unary call")
    stream_seconds_max: float = Field(default=86_400.0, gt=0, description="longest time that a caller may give a stream")
    connections_max: int = Field(default=1_024, ge=1, description="connections at one time; more are closed at once")
    connection_streams_max: int = Field(
        default=256, ge=1, description="calls and streams at one time on one connection; its client waits with more"
    )
    connection_seconds_max: float = Field(
        default=1_800.0,
        gt=0,
        description="a connection that is older takes no new call, so that its client connects again, perhaps to another replica, and shows a new certificate",
    )
    connection_grace_seconds: float = Field(default=600.0, gt=0, description="how long what is open on such a connection may go on")
    certificate_seconds_max: float = Field(
        default=90_000.0,
        gt=0,
        description="longest life of a caller's certificate, from its first to its last moment: what is not renewed is revoked",
    )
    drain_seconds: float = Field(default=5.0, description="time that calls under way get when the server stops")


class _Probed(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated without types
    """Health for probes: a question has an answer, and nothing stays open."""

    def __init__(self, health_: health.aio.HealthServicer) -> None:
        self._health = health_

    async def Check(  # noqa: N802 - named by the protocol
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """As the server's own health says."""
        return await self._health.Check(request, context)


class Server:
    """A server that takes calls between `start` and `stop`."""

    def __init__(self, listen: ListenSettings, tls: TlsSettings, access: Access) -> None:
        self._listen = listen
        self._access = access
        certificates = Certificates(listen.certificate_seconds_max)
        self._guard = Guard(certificates)
        limiter = Limiter(listen.limits, listen.concurrent_calls_max, SERVICE_IDS)
        gate = Gate(
            access,
            limiter,
            certificates,
            call_seconds_max=listen.call_seconds_max,
            stream_seconds_max=listen.stream_seconds_max,
        )
        self._services: list[str] = []
        self._methods: list[str] = []
        self._drains: list[Callable[[], Awaitable[None]]] = []
        self._health = health.aio.HealthServicer()

        def cancelled_rate(caller: str) -> Rate:
            limits = limiter.limits_of(caller)
            # A stream is cancelled by its caller as a rule, so as many as may be begun are no offence.
            return Rate(limits.cancelled_per_second + limits.streams_per_second, limits.cancelled_burst + limits.streams_burst)

        self._server = ArrivalsServer(
            Cancellations(cancelled_rate, listen.limits.callers_max),
            (
                *_OPTIONS,
                ("grpc.max_receive_message_length", listen.message_bytes_max),
                ("grpc.max_send_message_length", listen.message_bytes_max),
                ("grpc.max_concurrent_streams", listen.connection_streams_max),
                ("grpc.max_allowed_incoming_connections", listen.connections_max),
                ("grpc.max_connection_age_ms", int(listen.connection_seconds_max * 1_000)),
                ("grpc.max_connection_age_grace_ms", int(listen.connection_grace_seconds * 1_000)),
            ),
            listen.concurrent_calls_max,
        )
        unknown = metered("", gate.unknown())
        self._served = Methods(
            lambda method, each: metered(method, gate.around(method, spanned(method, self._guard.around(method, each)))), unknown
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._served)
        self._server.add_generic_rpc_handlers((self._served,))
        self.port = self._server.add_secure_port(f"{listen.host}:{listen.port}", server_credentials(tls))
        self._probes: grpc.aio.Server | None = None
        #: Where probes are answered; None where they are not.
        self.probe_port: int | None = None
        if listen.probe_port is not None:
            self._probes = grpc.aio.server(options=_PROBE_OPTIONS, maximum_concurrent_rpcs=_PROBES_AT_ONCE_MAX)
            health_pb2_grpc.add_HealthServicer_to_server(_Probed(self._health), self._probes)
            self.probe_port = self._probes.add_insecure_port(f"{listen.host}:{listen.probe_port}")

    def add(self, register: Callable[[Any, Any], None], servicer: object, service: Any) -> None:
        """Serve a service: its generated `add_…_to_server`, its servicer, and its descriptor.

        Raises:
            ValueError: a method takes a stream of requests, which nothing here guards.
        """
        if any(method.client_streaming for method in service.methods):
            raise ValueError(f"{service.full_name} takes streams of requests")
        register(servicer, self._served)
        self._services.append(service.full_name)
        self._methods.extend(f"/{service.full_name}/{method.name}" for method in service.methods)

    def on_drain(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Call this when the server stops taking calls, so that open streams can be ended."""
        self._drains.append(drain)

    async def start(self) -> None:
        """Take calls.

        Raises:
            RuntimeError: a method has no row in the access table, or a row is about a method that is not served.
        """
        self._access.check(self._methods)
        metering.begin(self._methods)
        await self._server.start()
        for service in self._services:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        if self._probes is not None:
            await self._probes.start()
        if self._listen.port_file is not None:
            part = self._listen.port_file.with_suffix(".part")
            part.write_text(f"{self.port}\n")
            part.replace(self._listen.port_file)
        _log.info("serving", host=self._listen.host, port=self.port, probe_port=self.probe_port)

    async def report(self, service: str, *, serving: bool) -> None:
        """Say by health whether a service, by its full name, can do its work; its calls are taken all the same, and answer why they cannot."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Say that no more calls are wanted, end streams, let unary calls finish, all within `drain_seconds`."""
        until = asyncio.get_running_loop().time() + self._listen.drain_seconds
        await self._health.enter_graceful_shutdown()
        try:
            async with asyncio.timeout_at(until):
                results = await asyncio.gather(*(drain() for drain in self._drains), return_exceptions=True)
            for error in filter(None, results):
                _log.error("drain_failed", exc_info=error)
        except TimeoutError:
            _log.error("drain_failed", reason="took too long")
        await self._guard.end_streams(min(STREAM_PATIENCE_SECONDS, max(until - asyncio.get_running_loop().time(), 0.0)))
        await self._server.stop(max(until - asyncio.get_running_loop().time(), 0.0))
        if self._probes is not None:
            await self._probes.stop(None)


async def until_told_to_stop(*also: Awaitable[object]) -> None:
    """Return at SIGTERM or SIGINT, or when one of the other things ends (raising what it raised)."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waiting = [asyncio.ensure_future(told.wait()), *(asyncio.ensure_future(each) for each in also)]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in waiting:
            each.cancel()
