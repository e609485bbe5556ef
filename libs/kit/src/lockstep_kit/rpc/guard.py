"""What stands around every handler: whether the request is well formed, how errors leave, and when streams end.

Streams that are open when the server drains end with UNAVAILABLE, so that their callers go on elsewhere with their resume tokens; a stream whose caller's
certificate runs out ends then.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from lockstep_kit.errors import LockstepError, as_error, to_status, unavailable
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.rpc.certificates import Certificates, expired
from lockstep_kit.rpc.leaving import abort, gone
from lockstep_kit.rpc.tracing import plans_in
from lockstep_kit.spans import telling

_log = structlog.get_logger()

#: A certificate that counts for longer than this is looked at by the stream that follows.
_TIMER_SECONDS_MAX: Final = 10**6


class Guard:
    """Well-formedness, errors and the end of streams, around every handler."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        #: Tasks of open streams, and whether each is inside its handler now, rather than sending what the handler gave.
        self._streams: dict[asyncio.Task[Any], bool] = {}
        #: Tasks of streams whose callers' certificates have run out.
        self._expired: set[asyncio.Task[Any]] = set()
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

    def around(self, method: str, handler: Any) -> Any:
        """The handler of a method with the guard around it. Methods take one request; the server refuses to serve others."""
        # Deserialised inside the guard, so that malformed bytes are the caller's error and not ours.
        decode = handler.request_deserializer or bytes
        if handler.response_streaming:
            stream = self._stream(method, handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)
        unary = self._unary(method, handler.unary_unary, decode)
        return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)

    def _unary(
        self, method: str, handle: Callable[..., Awaitable[Any]], decode: Callable[[bytes], Any]
    ) -> Callable[..., Awaitable[Any]]:
        async def guarded(octets: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                request = _decoded(decode, octets)
                with telling(plans_in(request)):
                    return await handle(request, context)
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
            left = self._certificates.peer(context).not_after - time.time()
            ending = asyncio.get_running_loop().call_later(min(left, _TIMER_SECONDS_MAX), self._expire, task)
            try:
                if self._draining:
                    raise _draining()
                request = _decoded(decode, octets)
                with telling(plans_in(request)):
                    answers = handle(request, context)
                if inspect.isawaitable(answers):
                    # A handler that sends its answers itself.
                    await answers
                    return
                async for message in answers:
                    self._streams[task] = False
                    yield message
                    if (why := self._ended(task)) is not None:
                        raise why
                    self._streams[task] = True
            except asyncio.CancelledError:
                why = self._ended(task)
                if why is None or context.cancelled():
                    raise
                task.uncancel()
                await _leave(method, why, context)
            except (Exception, FailpointRaised) as error:  # noqa: BLE001 - every error leaves as a status
                await _leave(method, error, context)
            finally:
                ending.cancel()
                self._streams.pop(task, None)
                self._expired.discard(task)
                if inspect.isasyncgen(answers):
                    # Now, and not when it is collected: it may hold a connection.
                    await answers.aclose()

        return guarded

    def _expire(self, task: asyncio.Task[Any]) -> None:
        """End a stream: its caller's certificate has run out. One that is sending sees that itself."""
        self._expired.add(task)
        if self._streams.get(task):
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> LockstepError | None:
        """Why a stream is ended from here, if it is."""
        if task in self._expired:
            return expired()
        return _draining() if self._cut else None


def _draining() -> LockstepError:
    return unavailable("DRAINING", "the service is about to stop: go on at another replica, with the resume token")


def _decoded(decode: Callable[[bytes], Any], octets: bytes) -> Any:
    try:
        return decode(octets)
    except DecodeError as error:
        raise FieldInvalid("request", "must be a well-formed message of the method's request type") from error


async def _leave(method: str, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """End the call with the error as a status; an abort that the handler made itself stays as it is, and nothing is sent to a caller that is gone."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, grpc.aio.InternalError):
        raise gone() from error
    told = shown(method, error)
    status = to_status(told)
    await abort(context, told.code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))


def shown(method: str, error: BaseException) -> LockstepError:
    """The error as a caller may see it; what is our own trouble is logged."""
    told = as_error(error)
    if told.code is grpc.StatusCode.INTERNAL:
        _log.error("call_failed", method=method, exc_info=error)
    elif told is not error and told.code is grpc.StatusCode.UNAVAILABLE:
        _log.warning("call_unavailable", method=method, error=f"{type(error).__name__}: {error}")
    return told
