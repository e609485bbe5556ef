"""Counts and times every call, around everything else that stands before a handler: what is refused counts too. Health is not counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import grpc

from lockstep_kit.metrics.instruments import exemplar
from lockstep_kit.metrics.process import CALL_DURATION, CALLS, STREAMS_OPEN
from lockstep_kit.rpc import arrows
from lockstep_kit.rpc.access import OPEN_METHODS

#: Methods that are not there are one, whatever callers call them.
OTHER: Final = "other"
_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]


def begin(methods: Iterable[str]) -> None:
    """Show methods (`/service/method`) before they are called: whoever watches a counter sees its first step only if it saw the zero."""
    for method in methods:
        for code in (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL):
            CALLS.labels(method.removeprefix("/"), code.name)


def metered(method: str, handler: Any) -> Any:
    """The handler of a method, measured. What is not there is one method, whatever callers call it."""
    if method in OPEN_METHODS:
        return handler
    name = method.removeprefix("/") if method in arrows.METHODS else OTHER
    if handler.response_streaming:
        stream = _stream(name, handler.unary_stream)
        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
    unary = _unary(name, handler.unary_unary)
    return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)


def _unary(method: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def measured(request: Any, context: Context) -> Any:
        began, code = time.perf_counter(), "OK"
        try:
            return await handle(request, context)
        except BaseException as error:
            code = _code(error, context)
            raise
        finally:
            CALLS.labels(method, code).inc()
            CALL_DURATION.labels(method).observe(time.perf_counter() - began, _traced(context))

    return measured


def _stream(method: str, handle: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def measured(request: Any, context: Context) -> AsyncIterator[Any]:
        code = "OK"
        with STREAMS_OPEN.labels(method).track_inprogress():
            try:
                async with contextlib.aclosing(handle(request, context)) as answers:  # type: ignore[type-var]  # the gate's are generators
                    async for message in answers:
                        yield message
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                CALLS.labels(method, code).inc()

    return measured


def _traced(context: Context) -> dict[str, str] | None:
    traceparent = next((value for name, value in context.invocation_metadata() or () if name == "traceparent"), None)
    return exemplar(traceparent) if isinstance(traceparent, str) else None


def _code(error: BaseException, context: Context) -> str:
    """Name of the status with which a call ends."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return grpc.StatusCode.CANCELLED.name
    told: Any = context.code()
    number = told.value[0] if isinstance(told, grpc.StatusCode) else told
    return _NAMES.get(number or grpc.StatusCode.UNKNOWN.value[0], grpc.StatusCode.UNKNOWN.name)
