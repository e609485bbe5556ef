"""Spans of calls, as OpenTelemetry's conventions for RPC have them, on both sides.

A call of a service begins a span only inside other work; one that is served always has one, in its caller's trace or in one of its own. The span of a stream
ends with the stream's first message: what follows may take hours, and is told by spans of its own. Of a request a span tells no more than its plans.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId, plan_id
from lockstep_kit.rpc.access import OPEN_METHODS
from lockstep_kit.spans import current_traceparent, is_recording, serving, span

RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.response.status_code"
HEADER: Final = "traceparent"
#: Plans of a request that are told.
PLANS_TOLD_MAX: Final = 64
#: What is the server's own failure; anything else is an answer to its caller.
_FAILURES: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_CODES: Final = {each.value[0]: each for each in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]


def spanned(method: str, handler: Any) -> Any:
    """The handler of a method with a span for each call that it serves; none for health checks."""
    if method in OPEN_METHODS:
        return handler
    if handler.response_streaming:
        stream = _streamed(method, handler.unary_stream)
        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
    unary = _answered(method, handler.unary_unary)
    return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)


def _caller(context: Context) -> str | None:
    headers = [str(value) for key, value in context.invocation_metadata() or () if key == HEADER]
    # Of several nobody knows which one is meant (W3C Trace Context, section 4.3).
    return headers[0] if len(headers) == 1 else None


def _answered(method: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def traced(request: Any, context: Context) -> Any:
        with serving(method[1:], _caller(context), _attributes(method)) as current:
            try:
                return await handle(request, context)
            finally:
                _served(current, context)

    return traced


def _streamed(method: str, handle: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def traced(request: Any, context: Context) -> AsyncIterator[Any]:
        answers = handle(request, context)
        try:
            with serving(method[1:], _caller(context), _attributes(method)) as current:
                try:
                    first = await anext(answers, None)
                finally:
                    _served(current, context)
            if first is None:
                return
            yield first
            async for message in answers:
                yield message
        finally:
            await answers.aclose()  # type: ignore[attr-defined]  # the guard's are generators

    return traced


def plans_in(request: Any) -> list[PlanId]:
    """Plans that a request names, as far as they have the form of plan ids; of a batch the first ones."""
    commands = [getattr(getattr(each, "binding", None), "plan", None) for each in getattr(request, "commands", ())[:PLANS_TOLD_MAX]]
    parts = [part for name in ("events", "statements", "requests") for part in getattr(request, name, ())[:PLANS_TOLD_MAX]]
    heads = [getattr(each, "header", None) for each in (request, *parts)]
    named = (getattr(each, "plan_id", "") for each in (request, *heads, *commands, *parts))
    found: dict[PlanId, None] = {}
    for each in named:
        with contextlib.suppress(FieldInvalid):
            found[plan_id(each)] = None
    return list(found)


def _served(current: Span, context: Context) -> None:
    if current.is_recording():
        # The library says it as a number, whatever its types say; none yet is 0, which is OK.
        code: Any = context.code()
        _ended(current, code if isinstance(code, grpc.StatusCode) else _CODES[code or 0], _FAILURES)


def _ended(current: Span, code: grpc.StatusCode, failures: frozenset[grpc.StatusCode]) -> None:
    current.set_attribute(RPC_STATUS, code.name)
    if code in failures:
        current.set_attribute("error.type", code.name)
        current.set_status(Status(StatusCode.ERROR))


def _attributes(method: str) -> dict[str, str]:
    return {RPC_SYSTEM: "grpc", RPC_METHOD: method[1:]}


class UnaryClientSpans(grpc.aio.UnaryUnaryClientInterceptor):
    """A span for each call that is made inside other work, whose server goes on in its trace."""

    def __init__(self, target: str) -> None:
        self._server = _server(target)

    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """The call, once it has ended."""
        if current_traceparent() is None:
            return await continuation(client_call_details, request)
        if not is_recording():
            return await continuation(_with_trace(client_call_details), request)
        method = _method(client_call_details)
        with span(method[1:], kind=SpanKind.CLIENT, attributes={**_attributes(method), **self._server}) as current:
            call = await continuation(_with_trace(client_call_details), request)
            _ended(current, await call.code(), _NOT_OK)
            return call


class StreamClientSpans(grpc.aio.UnaryStreamClientInterceptor):
    """The same for streams: the span tells that one was asked for."""

    def __init__(self, target: str) -> None:
        self._server = _server(target)

    async def intercept_unary_stream(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """The stream."""
        if current_traceparent() is None:
            return await continuation(client_call_details, request)
        if not is_recording():
            return await continuation(_with_trace(client_call_details), request)
        method = _method(client_call_details)
        with span(method[1:], kind=SpanKind.CLIENT, attributes={**_attributes(method), **self._server}):
            return await continuation(_with_trace(client_call_details), request)


#: To a client every other code is a failure.
_NOT_OK: Final = frozenset(grpc.StatusCode) - {grpc.StatusCode.OK}


def _method(details: grpc.aio.ClientCallDetails) -> str:
    # The library says it in bytes, whatever its types say.
    method: str | bytes = details.method
    return method.decode() if isinstance(method, bytes) else method


def _with_trace(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    """The call with the current trace context; one that it has already is another's."""
    told = current_traceparent()
    kept = [(key, value) for key, value in details.metadata or () if key != HEADER]
    metadata = grpc.aio.Metadata(*kept, (HEADER, told)) if told is not None else details.metadata
    return grpc.aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


def _server(target: str) -> dict[str, str | int]:
    host, _, port = target.rpartition(":")
    return {"server.address": host or target, **({"server.port": int(port)} if port.isdecimal() else {})}
