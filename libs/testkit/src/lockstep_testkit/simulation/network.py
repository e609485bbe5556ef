"""The network between processes: real messages as bytes, between the stubs that callers have and the servicers that processes serve.

A call may be lost on its way, or its answer; it may arrive twice, the second time much later; messages overtake one another; a link may be cut in one
direction or in both, or be clogged for a while. A caller learns what a caller of gRPC learns: an answer, an error that the server sent, UNAVAILABLE, or
that its deadline has passed, which says nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import grpc
from grpc.aio import AioRpcError, Metadata

from lockstep_kit.errors import as_error
from lockstep_kit.rpc import deadlines
from lockstep_kit.rpc.tls import TRUST_DOMAIN
from lockstep_testkit.simulation.loop import Process, VirtualLoop

#: A message of a stream that is cut is noticed by nobody; a new stream is refused after this.
REFUSED_SECONDS: Final = 0.05


@dataclass(slots=True)
class Weather:
    """What the network does to messages; changed while a simulation runs."""

    #: Share of the messages that are lost, each way.
    loss: float = 0.0
    #: Share of the requests that arrive a second time.
    replay: float = 0.0
    #: Longest time until they do.
    replay_seconds_max: float = 0.0
    #: Mean time of a message on its way.
    delay_seconds: float = 0.002
    #: Share of the messages that take much longer, and the longest.
    slow: float = 0.0
    slow_seconds_max: float = 0.0
    #: Share of the messages on streams with which the stream breaks.
    broken: float = 0.0
    #: (from, to): no message passes.
    cut: set[tuple[str, str]] = field(default_factory=set)
    #: (from, to): no message passes before this moment.
    clogged: dict[tuple[str, str], float] = field(default_factory=dict)
    #: What was done, by kind.
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str) -> None:
        """Note that something was done to a message."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def clear(self) -> None:
        """Let everything pass again, at once and once."""
        self.loss = self.replay = self.slow = self.broken = 0.0
        self.cut.clear()
        self.clogged.clear()


def failure(code: grpc.StatusCode, details: str) -> AioRpcError:
    """The error that a caller gets."""
    return AioRpcError(code, Metadata(), Metadata(), details)


@dataclass(frozen=True, slots=True)
class Method:
    """A method as a process serves it."""

    #: The servicer's own.
    handle: Callable[[Any, Any], Any]
    #: Bytes to request, and answer to bytes.
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


class _Collector:
    """Stands in for a server while a generated function registers a servicer's methods."""

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Needed by generated code; says again what the other says."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take the methods of a servicer."""
        for name, handler in handlers.items():
            handle = handler.unary_stream if handler.response_streaming else handler.unary_unary
            self.methods[f"/{service}/{name}"] = Method(handle, handler.request_deserializer, handler.response_serializer)


def methods_of(add: Callable[[Any, Any], None], servicer: object) -> dict[str, Method]:
    """A servicer's methods by their full names, as its generated function registers them."""
    collector = _Collector()
    add(servicer, collector)
    return collector.methods


class Network:
    """All links. Who serves under which name may change; a name that nobody serves is refused."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, weather: Weather) -> None:
        self.loop: Final = loop
        self.weather: Final = weather
        #: Errors of handlers that their callers must not see as they are: bugs.
        self.internal: list[str] = []
        self._chance = chance
        self._served: dict[str, tuple[Process, Mapping[str, Method]]] = {}

    def serve(self, name: str, process: Process, methods: Mapping[str, Method]) -> None:
        """A process serves methods under a name, until it is killed."""
        self._served[name] = process, methods

    def channel(self, process: Process, name: str) -> grpc.aio.Channel:
        """How a process reaches whoever serves under a name."""
        return cast("grpc.aio.Channel", Channel(self, process, name))

    def found(self, name: str) -> tuple[Process, Mapping[str, Method]] | None:
        """Who serves under a name now; nobody, while it is down."""
        served = self._served.get(name)
        return served if served is not None and served[0].alive else None

    def passage(self, source: str, target: str) -> float | None:
        """Seconds that a message takes; None: it is lost."""
        weather, chance = self.weather, self._chance
        if (source, target) in weather.cut:
            weather.count("cut")
            return None
        if weather.loss and chance.random() < weather.loss:
            weather.count("lost")
            return None
        seconds = chance.random() * 2 * weather.delay_seconds
        if weather.slow and chance.random() < weather.slow:
            weather.count("slow")
            seconds += chance.random() * weather.slow_seconds_max
        until = weather.clogged.get((source, target))
        if until is not None and until > self.loop.time():
            weather.count("clogged")
            seconds += until - self.loop.time()
        return seconds

    def replayed(self) -> float | None:
        """Seconds after which a request arrives a second time; None: it does not."""
        weather, chance = self.weather, self._chance
        if not weather.replay or chance.random() >= weather.replay:
            return None
        weather.count("replayed")
        return chance.random() * weather.replay_seconds_max

    def breaks(self) -> BaseException | None:
        """What a stream ends with that breaks now, if it does: its connection is lost, or, every other time, its channel is closed under its reader."""
        if not self.weather.broken or self._chance.random() >= self.weather.broken:
            return None
        self.weather.count("stream_broken")
        if self.weather.counts["stream_broken"] % 2:
            return failure(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        return asyncio.CancelledError()


def identity(process: str) -> str:
    """What a process's certificate names it."""
    return f"spiffe://{TRUST_DOMAIN}/client/{process}"


class Caller:
    """Who calls, as the caller's certificate would say it."""

    def __init__(self, process: str) -> None:
        self._identity = identity(process).encode()

    def auth_context(self) -> Mapping[str, tuple[bytes, ...]]:
        """As of a call over mutual TLS."""
        return {"peer_spiffe_id": (self._identity,)}


class Channel:
    """What generated stubs are made with."""

    def __init__(self, network: Network, process: Process, target: str) -> None:
        self._network = network
        self._process = process
        self._target = target
        self._calls: dict[str, Any] = {}

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Callable[..., Awaitable[Any]]:
        """A method with one answer."""
        call = self._calls.get(path)
        if call is None:
            call = self._calls[path] = _Unary(
                self._network, self._process, self._target, path, request_serializer, response_deserializer
            )
        return cast("Callable[..., Awaitable[Any]]", call)

    def unary_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Callable[..., Stream]:
        """A method with a stream of answers."""

        def call(request: Any, *, timeout: float) -> Stream:
            octets = request_serializer(request)
            return Stream(self._network, self._process, self._target, path, octets, response_deserializer, timeout)

        return call


class _Unary:
    """Calls of one method."""

    def __init__(self, network: Network, process: Process, target: str, path: str, encode: Any, decode: Any) -> None:
        self._network = network
        self._process = process
        self._target = target
        self._path = path
        self._encode = encode
        self._decode = decode

    async def __call__(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as stubs have it
        network, loop = self._network, self._network.loop
        octets = self._encode(request)
        answer: asyncio.Future[Any] = loop.create_future()
        source, target = self._process.name, self._target
        seconds = network.passage(source, target)
        if seconds is not None:
            loop.call_later(seconds, self._arrive, octets, answer, timeout, context=_no_process())
            again = network.replayed()
            if again is not None:
                loop.call_later(seconds + again, self._arrive, octets, None, timeout, context=_no_process())
        try:
            async with asyncio.timeout(timeout):
                found = await answer
        except TimeoutError:
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        return self._decode(found)

    def _arrive(self, octets: bytes, answer: asyncio.Future[Any] | None, seconds: float) -> None:
        served = self._network.found(self._target)
        if served is None:
            self._reply(answer, failure(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"))
            return
        process, methods = served
        task = process.spawn(self._serve(methods[self._path], octets, answer, seconds))
        if answer is not None:
            # The server learns of the deadline by itself, and stops the handler wherever it is.
            self._network.loop.call_later(seconds, task.cancel, context=process.context())
            process.on_kill.append(lambda: self._gone(answer))

    def _gone(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            self._reply(answer, failure(grpc.StatusCode.UNAVAILABLE, "Socket closed"))

    async def _serve(self, method: Method, octets: bytes, answer: asyncio.Future[Any] | None, seconds: float) -> None:
        deadlines.enter(seconds)
        reply: Any
        try:
            reply = method.encode(await method.handle(method.decode(octets), Caller(self._process.name)))
        except Exception as error:  # noqa: BLE001 - every error leaves as a status
            reply = self._network_error(error)
        self._reply(answer, reply)

    def _network_error(self, error: Exception) -> AioRpcError:
        shown = as_error(error)
        if shown.code is grpc.StatusCode.INTERNAL:
            self._network.internal.append(f"{self._target} {self._path}: {type(error).__name__}: {error}")
        return failure(shown.code, f"{shown.reason}: {shown.message}")

    def _reply(self, answer: asyncio.Future[Any] | None, reply: Any) -> None:
        if answer is None:
            return
        seconds = self._network.passage(self._target, self._process.name)
        if seconds is not None:
            self._network.loop.call_later(seconds, _resolve, answer, reply, context=_no_process())


def _resolve(answer: asyncio.Future[Any], reply: Any) -> None:
    if answer.done():
        return
    if isinstance(reply, AioRpcError):
        answer.set_exception(reply)
        # Its caller may be gone.
        answer.exception()
    else:
        answer.set_result(reply)


def _no_process() -> Any:
    """Messages on their way belong to no process: neither end can stop them."""
    return contextvars.Context()


class Stream:
    """One call with a stream of answers, in order; when it is lost, it stays lost."""

    def __init__(
        self, network: Network, process: Process, target: str, path: str, octets: bytes, decode: Any, seconds: float
    ) -> None:
        self._network = network
        self._source = process.name
        self._target = target
        self._decode = decode
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None
        self._last = 0.0
        self._lost = False
        self._cancelled = False
        delay = network.passage(self._source, target)
        if delay is not None:
            network.loop.call_later(delay, self._arrive, path, octets, context=_no_process())
        network.loop.call_later(seconds, self._send, failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""), context=_no_process())

    def cancel(self) -> bool:
        """The caller wants no more; the server learns of it."""
        self._cancelled = True
        if self._pump is not None:
            self._pump.cancel()
        return True

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Any]:
        while True:
            found = await self._queue.get()
            if isinstance(found, AioRpcError | asyncio.CancelledError):
                raise found
            yield self._decode(found)

    def _arrive(self, path: str, octets: bytes) -> None:
        served = self._network.found(self._target)
        if self._cancelled:
            return
        if served is None:
            self._send(failure(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"))
            return
        process, methods = served
        self._pump = process.spawn(self._serve(methods[path], octets))
        process.on_kill.append(self._closed)

    async def _serve(self, method: Method, octets: bytes) -> None:
        answers = method.handle(method.decode(octets), Caller(self._source))
        try:
            async for each in answers:
                if not self._send(method.encode(each)):
                    return
        except Exception as error:  # noqa: BLE001 - every error leaves as a status
            shown = as_error(error)
            if shown.code is grpc.StatusCode.INTERNAL:
                self._network.internal.append(f"{self._target}: {type(error).__name__}: {error}")
            self._send(failure(shown.code, shown.message))
        finally:
            if inspect.isasyncgen(answers):
                await answers.aclose()

    def _closed(self) -> None:
        self._send(failure(grpc.StatusCode.UNAVAILABLE, "Socket closed"))

    def _send(self, message: Any) -> bool:
        """Put a message on its way; False once the stream is broken."""
        network = self._network
        if self._lost or self._cancelled:
            return False
        seconds = network.passage(self._target, self._source)
        if seconds is None:
            # Nobody is told: the reader waits until it loses patience.
            self._lost = True
            return False
        if (broken := network.breaks()) is not None:
            self._lost = True
            message = broken
        # Nothing overtakes on one connection.
        self._last = max(self._last, network.loop.time() + seconds)
        network.loop.call_at(self._last, self._queue.put_nowait, message, context=_no_process())
        return not self._lost
