"""What every call passes first: whether the caller has its due already, who it is, whether it may, how much it sends, how long it may take.

All this is found out before the request is read as a message, before a trace begins, and before the database is asked. A caller that is over its limits is
answered late, one refusal after another, so that a flood is as slow as its own answers; what others call goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import grpc
import structlog

from lockstep_kit.errors import LockstepError, permission_denied, to_status
from lockstep_kit.rpc import arrows, deadlines
from lockstep_kit.rpc.access import OPEN_METHODS, Access
from lockstep_kit.rpc.arrows import Arrow
from lockstep_kit.rpc.certificates import TLS_VERSION, Certificates, Peer
from lockstep_kit.rpc.counting import count_messages
from lockstep_kit.rpc.leaving import abort
from lockstep_kit.rpc.limits import OTHERS, Excess, Limiter, Over

_log = structlog.get_logger()

#: gRPC says "no deadline" by a time that is longer than anybody waits.
_NO_DEADLINE_SECONDS: Final = 10**8
#: gRPC sends what is left rounded up, and clocks are read one after the other.
_DEADLINE_TOLERANCE_SECONDS: Final = 1.0
#: So many octets of a request count for another call.
OCTETS_PER_COST: Final = 16 << 10
_MESSAGES: Final = {
    Excess.CALLS_TOO_FAST: "this caller calls faster than it may here",
    Excess.CALLS_TOO_MANY: "this caller has as many calls under way here as it may",
    Excess.WATCHERS_TOO_FAST: "this caller begins streams faster than it may here",
    Excess.WATCHERS_TOO_MANY: "this caller has as many streams open here as it may",
    Excess.SHARE_TAKEN: "this caller has the share of this replica that one caller may have",
}

Context = grpc.aio.ServicerContext[Any, Any]


class Gate:
    """Limits, identity, authorisation, sizes and deadlines, before everything else."""

    def __init__(
        self,
        access: Access,
        limiter: Limiter,
        certificates: Certificates,
        *,
        call_seconds_max: float,
        stream_seconds_max: float,
    ) -> None:
        self._access = access
        self._limiter = limiter
        self._certificates = certificates
        self._seconds_max = {False: call_seconds_max, True: stream_seconds_max}

    def around(self, method: str, handler: Any) -> Any:
        """The handler of a method with the gate before it; health is asked by whoever starts and stops services, as often as they like."""
        if method in OPEN_METHODS:
            return _asked_for_health(handler, self._admit_health, method)
        if handler.response_streaming:
            stream = self._stream(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
        unary = self._unary(method, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)

    def _unary(self, method: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def gated(octets: bytes, context: Context) -> Any:
            name = await self._enter(method, octets, context, stream=False)
            try:
                return await handle(octets, context)
            finally:
                self._limiter.end(name, stream=False)

        return gated

    def _stream(self, method: str, handle: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def gated(octets: bytes, context: Context) -> AsyncIterator[Any]:
            name = await self._enter(method, octets, context, stream=True)
            try:
                async with contextlib.aclosing(handle(octets, context)) as answers:  # type: ignore[type-var]  # the guard's are generators
                    async for message in answers:
                        yield message
            finally:
                self._limiter.end(name, stream=True)

        return gated

    def unknown(self) -> Any:
        """The handler of every method that is not there: asking for one counts as any call does."""

        async def refused(octets: bytes, context: Context) -> None:
            self._limiter.end(await self._begin(self._certificates.peer(context), octets, 1.0, context, stream=False), stream=False)
            await abort(context, grpc.StatusCode.UNIMPLEMENTED, "there is no such method here")

        return grpc.unary_unary_rpc_method_handler(refused)

    async def _enter(self, method: str, octets: bytes, context: Context, *, stream: bool) -> str:
        """Begin the call, under the name at which it ends; or end it with a refusal."""
        peer, arrow = self._certificates.peer(context), arrows.METHODS.get(method)
        found = await self._begin(peer, octets, 1.0 if arrow is None else _cost(arrow, octets), context, stream=stream)
        try:
            self._admit(method, peer, octets, context, stream=stream)
        except LockstepError as error:
            self._limiter.end(found, stream=stream)
            await _end(error, context)
        except BaseException:
            self._limiter.end(found, stream=stream)
            raise
        return found

    async def _begin(self, peer: Peer, octets: bytes, cost: float, context: Context, *, stream: bool) -> str:
        """The name under which the call ends, if its caller may have one more."""
        caller = peer.caller or OTHERS
        total = cost + len(octets) // OCTETS_PER_COST
        found = self._limiter.begin(caller, time.monotonic(), stream=stream, cost=total)
        if isinstance(found, Over):
            await self._refuse(found, caller, context)
            raise AssertionError("a refusal ends the call")
        return found

    async def _refuse(self, over: Over, caller: str, context: Context) -> None:
        left = context.time_remaining()
        hold = over.hold_seconds if left is None else min(over.hold_seconds, left - deadlines.MARGIN_SECONDS)
        name = self._limiter.keep(caller, time.monotonic()) if hold > 0 else None
        if name is not None:
            try:
                await asyncio.sleep(hold)
            finally:
                self._limiter.let_go(name)
        details = _details(over.excess, _milliseconds(over))
        await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, _MESSAGES[over.excess], (details,))

    def _admit(self, method: str, peer: Peer, octets: bytes, context: Context, *, stream: bool) -> None:
        self._check_peer(method, peer)
        most = arrows.METHODS[method].request_bytes_max if method in arrows.METHODS else arrows.REQUEST_BYTES_MAX_DEFAULT
        if len(octets) > most:
            message = f"a request of this method may have {most} octets, not {len(octets)}"
            raise LockstepError(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", message, {"octets_max": str(most)})
        left = context.time_remaining()
        if left is None or left > _NO_DEADLINE_SECONDS:
            raise LockstepError(grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED", "every call must carry a deadline")
        if left < deadlines.MARGIN_SECONDS:
            raise LockstepError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_CLOSE", "too little time is left for the call")
        longest = self._seconds_max[stream]
        if left > longest + _DEADLINE_TOLERANCE_SECONDS:
            message = f"this call may take {longest:.0f} seconds at the most"
            raise LockstepError(grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_TOO_FAR", message, {"seconds_max": f"{longest:.0f}"})
        deadlines.enter(left)

    def _admit_health(self, method: str, context: Context) -> None:
        self._check_peer(method, self._certificates.peer(context))

    def _check_peer(self, method: str, peer: Peer) -> None:
        """Whoever calls is who it says, and may.

        Raises:
            LockstepError: the call is refused.
        """
        if not self._access.allows(peer.caller, method):
            _log.warning("call_denied", method=method, caller=peer.caller)
            raise permission_denied("CALLER_NOT_ALLOWED", "this caller may not call this method")
        self._certificates.check(peer, time.time())
        if not peer.new_enough:
            raise permission_denied("TLS_TOO_OLD", f"calls must come over {TLS_VERSION}")


def _cost(arrow: Arrow, octets: bytes) -> float:
    """A batch is no way around the rate of its caller: each request in it counts as it would alone."""
    return arrow.cost * max(count_messages(octets, arrow.batch_max), 1) if arrow.batch_max else arrow.cost


def _asked_for_health(handler: Any, admit: Callable[[str, Context], None], method: str) -> Any:
    """Health behind the same checks of who calls; without limits and deadlines."""

    async def admitted(context: Context) -> None:
        try:
            admit(method, context)
        except LockstepError as error:
            await _end(error, context)

    async def checked(octets: bytes, context: Context) -> Any:
        await admitted(context)
        return await handler.unary_unary(octets, context)

    async def watched(octets: bytes, context: Context) -> AsyncIterator[Any]:
        await admitted(context)
        async with contextlib.aclosing(handler.unary_stream(octets, context)) as answers:
            async for message in answers:
                yield message

    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(watched, handler.request_deserializer, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(checked, handler.request_deserializer, handler.response_serializer)


async def _end(error: LockstepError, context: Context) -> None:
    status = to_status(error)
    await abort(context, error.code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))


def _milliseconds(over: Over) -> int:
    """When to come again, in few different values, so that the answers are made once."""
    tenths = max(int(over.retry_seconds * 10 + 0.999), 1)
    return min(tenths, 600) * 100


@functools.lru_cache(maxsize=1_024)
def _details(excess: Excess, milliseconds: int) -> tuple[str, bytes]:
    error = LockstepError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, excess.value, _MESSAGES[excess], retry_after=timedelta(milliseconds=milliseconds)
    )
    return "grpc-status-details-bin", to_status(error).SerializeToString()
