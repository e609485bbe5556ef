"""What every call passes before its handler: who calls, whether it may, how long it may take; and how errors leave.

One table (caller id -> methods), default deny. The server refuses to start when a registered method has no row. Streams that are open when the server
drains end with UNAVAILABLE, so that their callers go on elsewhere with their resume tokens.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from lockstep_kit.errors import LockstepError, as_error, permission_denied, to_status, unavailable
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.rpc import deadlines
from lockstep_kit.rpc.tls import TRUST_DOMAIN

_log = structlog.get_logger()

#: Anybody with a certificate of the authority may ask whether a service is healthy.
OPEN_METHODS: Final = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
ANYBODY: Final = "*"
#: gRPC negotiates the version itself; what is older than this is refused at the first call.
TLS_VERSION: Final = "TLSv1.3"
#: gRPC says "no deadline" by a time that is longer than anybody waits.
_NO_DEADLINE_SECONDS: Final = 10**8


class Access:
    """Which caller may call which method.

    Keys are SPIFFE ids, prefixes of them that end in "/", or "*" for every caller of the trust domain; values are full method names or "/service/*".
    """

    def __init__(self, table: Mapping[str, tuple[str, ...]], *, trust_domain: str = TRUST_DOMAIN) -> None:
        self._table = dict(table)
        self._domain = f"spiffe://{trust_domain}/"

    def allows(self, caller: str | None, method: str) -> bool:
        """Whether the caller may call the method."""
        if caller is None or not caller.startswith(self._domain):
            return False
        if method in OPEN_METHODS:
            return True
        return any(
            _matches(method, allowed)
            for who, methods in self._table.items()
            if who in (caller, ANYBODY) or (who.endswith("/") and caller.startswith(who))
            for allowed in methods
        )

    def covers(self, method: str) -> bool:
        """Whether any row is about the method."""
        return method in OPEN_METHODS or any(_matches(method, allowed) for methods in self._table.values() for allowed in methods)


def _matches(method: str, allowed: str) -> bool:
    return method == allowed or (allowed.endswith("/*") and method.startswith(allowed[:-1]))


def peer_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """SPIFFE id of the caller, as its certificate says; None without one."""
    found = tuple(context.auth_context().get("peer_spiffe_id", ()))
    return found[0].decode() if len(found) == 1 else None


class Guard(grpc.aio.ServerInterceptor):
    """Authorisation, deadlines, well-formedness and errors, around every handler."""

    def __init__(self, access: Access) -> None:
        self._access = access
        #: Tasks of open streams, and whether each is inside its handler now, rather than sending what the handler gave.
        self._streams: dict[asyncio.Task[Any], bool] = {}
        #: New streams are refused.
        self._draining = False
        #: Open streams are ended.
        self._cut = False

    async def end_streams(self, patience_seconds: float) -> None:
        """Let open streams end by themselves for a while, then end them with UNAVAILABLE, and those that begin from now on."""
        self._draining = True
        if self._streams:
            await asyncio.wait(self._streams, timeout=patience_seconds)
        self._cut = True
        for task, inside in self._streams.items():
            # One that is sending sees that the server drains once it has sent.
            if inside:
                task.cancel()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler with the guard around it. Methods take one request; the server refuses to serve others."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        # Deserialised inside the guard, so that malformed bytes are the caller's error and not ours.
        decode = handler.request_deserializer or bytes
        if handler.response_streaming:
            stream = self._stream(method, handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)
        unary = self._unary(method, handler.unary_unary, decode)
        return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)

    def _admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        caller = peer_id(context)
        if not self._access.allows(caller, method):
            _log.warning("call_denied", method=method, caller=caller)
            raise permission_denied("CALLER_NOT_ALLOWED", "this caller may not call this method")
        if context.auth_context().get("ssl_tls_version", ()) != [TLS_VERSION.encode()]:
            raise permission_denied("TLS_TOO_OLD", f"calls must come over {TLS_VERSION}")
        if method in OPEN_METHODS:
            return
        left = context.time_remaining()
        if left is None or left > _NO_DEADLINE_SECONDS:
            raise LockstepError(grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED", "every call must carry a deadline")
        if left < deadlines.MARGIN_SECONDS:
            raise LockstepError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_CLOSE", "too little time is left for the call")
        deadlines.enter(left)

    def _unary(
        self, method: str, handle: Callable[..., Awaitable[Any]], decode: Callable[[bytes], Any]
    ) -> Callable[..., Awaitable[Any]]:
        async def guarded(octets: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                self._admit(method, context)
                return await handle(_decoded(decode, octets), context)
            except (Exception, FailpointRaised) as error:  # noqa: BLE001 - every error leaves as a status
                await _leave(method, error, context)

        return guarded

    def _stream(self, method: str, handle: Callable[..., Any], decode: Callable[[bytes], Any]) -> Callable[..., AsyncIterator[Any]]:
        async def guarded(octets: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            task = asyncio.current_task()
            if task is None:
                raise AssertionError("gRPC runs every call as a task")
            self._streams[task] = True
            answers: Any = None
            try:
                self._admit(method, context)
                if self._draining:
                    raise _draining()
                answers = handle(_decoded(decode, octets), context)
                if inspect.isawaitable(answers):
                    # A handler that sends its answers itself.
                    await answers
                    return
                async for message in answers:
                    self._streams[task] = False
                    yield message
                    if self._cut:
                        raise _draining()
                    self._streams[task] = True
            except asyncio.CancelledError:
                if not self._cut or context.cancelled():
                    raise
                task.uncancel()
                await _leave(method, _draining(), context)
            except (Exception, FailpointRaised) as error:  # noqa: BLE001 - every error leaves as a status
                await _leave(method, error, context)
            finally:
                self._streams.pop(task, None)
                if inspect.isasyncgen(answers):
                    # Now, and not when it is collected: it may hold a connection.
                    await answers.aclose()

        return guarded


def _draining() -> LockstepError:
    return unavailable("DRAINING", "the service is about to stop: go on at another replica, with the resume token")


def _decoded(decode: Callable[[bytes], Any], octets: bytes) -> Any:
    try:
        return decode(octets)
    except DecodeError as error:
        raise FieldInvalid("request", "must be a well-formed message of the method's request type") from error


async def _leave(method: str, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """End the call with the error as a status; an abort that the handler made itself stays as it is."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    shown = as_error(error)
    if shown.code is grpc.StatusCode.INTERNAL:
        _log.error("call_failed", method=method, exc_info=error)
    elif shown is not error and shown.code is grpc.StatusCode.UNAVAILABLE:
        _log.warning("call_unavailable", method=method, error=f"{type(error).__name__}: {error}")
    status = to_status(shown)
    await context.abort(shown.code, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),))
