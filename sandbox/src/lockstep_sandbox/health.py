"""Whether a service is up: gRPC health over the same mutual TLS as everybody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockstep_kit.rpc import TlsSettings, channel

#: Long enough for a handshake on a machine that starts everything else at the same time; whoever does not listen yet says so at once.
CHECK_SECONDS: Final = 15.0


def serving(address: str, tls: TlsSettings) -> Callable[[], Awaitable[bool]]:
    """A question to ask a service: does it take calls?"""

    async def asked() -> bool:
        async with channel(address, tls) as open_channel:
            answer = await health_pb2_grpc.HealthStub(open_channel).Check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return asked
