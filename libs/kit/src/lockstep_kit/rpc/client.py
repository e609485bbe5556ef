"""Channels to other services: mutually authenticated, traced, with deadlines that never outlive the call that is being served.

A channel connects to every address that its name stands for, as a headless service's name stands for each of its replicas, and its calls take turns over those
that are connected. A replica that goes away says so (GOAWAY), or is found gone by pings; the name is then looked up again. What is lost at the edge: a replica
that is added is known at the next look-up, when a connection ends, which servers see to (`listen.connection_seconds_max`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from lockstep_kit.rpc import deadlines
from lockstep_kit.rpc.rotation import RotatingChannel
from lockstep_kit.rpc.tls import Identity, TlsSettings
from lockstep_kit.rpc.tracing import StreamClientSpans, UnaryClientSpans

#: gRPC's policy of turns (its A6 names it), in the form that a channel is told it.
_TURNS: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
_OPTIONS: Final = (
    ("grpc.service_config", _TURNS),
    # While replicas are replaced one by one their addresses change as fast; the 30 s of gRPC would leave callers with none.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A watch may be silent for longer than the pings that are allowed without data by default.
    ("grpc.http2.max_pings_without_data", 0),
    # Whether a call may be repeated is decided by whoever knows what it does, never by the transport or by what the name service says of it. What no server
    # has looked at, because the connection was given up meanwhile, is no repetition: the transport sends it over the next connection.
    ("grpc.enable_retries", 1),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)


class _UnaryDeadline(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_shrunk(client_call_details), request)


class _StreamDeadline(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_shrunk(client_call_details), request)


def _shrunk(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    """The call with no later deadline than the call that is being served leaves it."""
    if deadlines.remaining_seconds() is None:
        return details
    timeout = deadlines.call_seconds(float("inf") if details.timeout is None else details.timeout)
    return grpc.aio.ClientCallDetails(details.method, timeout, details.metadata, details.credentials, details.wait_for_ready)


def channel(target: str, tls: TlsSettings, *, message_bytes_max: int = 4 << 20) -> grpc.aio.Channel:
    """A mutually authenticated channel to host:port, or a URI of gRPC's naming. It connects when it is first used, and again when connections are lost.

    Raises:
        OSError, ValueError: the files of `tls` cannot be used.
    """
    options = (
        *_OPTIONS,
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
    )

    def connect(identity: Identity) -> grpc.aio.Channel:
        interceptors = [_UnaryDeadline(), _StreamDeadline(), UnaryClientSpans(target), StreamClientSpans(target)]
        return grpc.aio.secure_channel(target, identity.channel_credentials(), options=options, interceptors=interceptors)

    return RotatingChannel(tls, connect)
