"""Channels to other services."""

from __future__ import annotations

from typing import Final

import grpc
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from lockstep_kit.rpc.tls import TlsSettings, channel_credentials

_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Whether a call may be repeated is decided by whoever knows what it does, never by the transport.
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)


def channel(target: str, tls: TlsSettings, *, message_bytes_max: int = 4 << 20) -> grpc.aio.Channel:
    """A mutually authenticated channel to host:port. It connects when it is first used, and again whenever the connection is lost."""
    return grpc.aio.secure_channel(
        target,
        channel_credentials(tls),
        options=(
            *_OPTIONS,
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", message_bytes_max),
        ),
        interceptors=aio_client_interceptors(),
    )
