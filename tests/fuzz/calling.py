"""One call as it is made, and what came of it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

#: What callers of a method that answers gives them; a machine with other things to do keeps it too.
CALL_SECONDS: Final = 20.0
STREAM_SECONDS: Final = 0.5
MESSAGES_MAX: Final = 5
#: What no answer may take longer than, with whatever deadline or none.
PATIENCE_SECONDS: Final = 60.0
DETAILS: Final = "grpc-status-details-bin"
Metadata = tuple[tuple[str, str | bytes], ...]
_JUNK: Final[tuple[Metadata, ...]] = (
    (("traceparent", "00-zz-zz-zz"),),
    (("traceparent", "00-00000000000000000000000000000000-0000000000000000-01"),),
    (("traceparent", "ff-" + "a" * 32 + "-" + "b" * 16 + "-01"), ("tracestate", "a=1," * 200)),
    (("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"), ("traceparent", "00-" + "c" * 32 + "-" + "d" * 16 + "-00")),
    (("baggage", "k=" + "v" * 4_000),),
    (("baggage", "%%%,=,;;k=v;p=%00"),),
    (("x-forwarded-client-cert", "URI=spiffe://lockstep.local/coordinator"), ("authorization", "Bearer coordinator")),
    (("x-junk-bin", bytes(range(256))),),
    (("x-junk-bin", b"\xff" * 6_000),),
    (("x-huge", "h" * 20_000),),
    tuple((f"x-{number}", "v") for number in range(200)),
    ((DETAILS, b"\x08\x05"),),
    (("te", "trailers"), ("host", "example")),
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a call is made, beside its request."""

    #: Seconds; None for no deadline.
    deadline: float | None
    #: What goes with it.
    metadata: Metadata = ()
    #: Whether the request is compressed.
    compressed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to."""

    #: Name of the status.
    code: str
    #: Its text.
    text: str = ""
    #: google.rpc.Status in the trailer, serialised; b"" without one.
    status: bytes = b""
    #: The messages that came, serialised.
    messages: tuple[bytes, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether it ended with an error of the service's own."""
        return self.code != "OK" and bool(self.status)


def manner(rng: random.Random, *, streams: bool, endless: bool = False) -> Manner:
    """How a call is made: mostly as it should be. What may be called without a deadline and never ends by itself, `endless`, gets one."""
    usual = STREAM_SECONDS if streams else CALL_SECONDS
    deadline: float | None = usual
    roll = rng.random()
    if roll < 0.03 and not endless:
        deadline = None
    elif roll < 0.05:
        deadline = rng.choice((0.0005, 0.01, 0.03))
    elif roll < 0.06 and not streams:
        deadline = 3e8
    return Manner(deadline, rng.choice(_JUNK) if rng.random() < 0.06 else (), rng.random() < 0.02)


async def call(channel: grpc.aio.Channel, path: str, octets: bytes, how: Manner, *, streams: bool) -> Answer:
    """Make a call with the request's raw bytes.

    Raises:
        TimeoutError: no answer came, whatever the deadline was.
    """
    compression = grpc.Compression.Gzip if how.compressed else None
    options: dict[str, Any] = {"timeout": how.deadline, "metadata": how.metadata, "compression": compression}
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            if streams:
                stream: Any = channel.unary_stream(path)
                return await _streamed(stream(octets, **options))
            unary: Any = channel.unary_unary(path)
            return Answer("OK", messages=(await unary(octets, **options),))
        except grpc.aio.AioRpcError as error:
            return _refused(error)


async def _streamed(stream: Any) -> Answer:
    found: list[bytes] = []
    try:
        async for each in stream:
            found.append(bytes(each))
            if len(found) >= MESSAGES_MAX:
                break
        return Answer("OK", messages=tuple(found))
    finally:
        stream.cancel()


def _refused(error: grpc.aio.AioRpcError) -> Answer:
    status = next((value for name, value in error.trailing_metadata() or () if name == DETAILS), b"")
    octets = status if isinstance(status, bytes) else b""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not _says(octets, code_pb2.DEADLINE_EXCEEDED):
        # The caller's own clock was a moment faster than the answer, whose trailer is there already.
        octets = b""
    return Answer(error.code().name, error.details() or "", octets)


def _says(octets: bytes, code: int) -> bool:
    try:
        return bool(status_pb2.Status.FromString(octets).code == code)
    except DecodeError:
        return False
