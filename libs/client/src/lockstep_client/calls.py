"""Calls to a service: a deadline always, another try only where the same request may be sent again. No rules of the protocol live here.

Only UNAVAILABLE is tried again (AIP-194), CANCELLED, with which a server that stops drops what it has not looked at yet, and a limit that says it is soon over,
each a bounded number of times. A request carries the id that was drawn for it, so that a try whose answer was lost is the same request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import grpc

from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.loops import back_off_seconds
from lockstep_kit.rpc import TlsSettings, answers, call_seconds, channel
from lockstep_kit.values import dataclass

_Response = TypeVar("_Response")


class _Page(Protocol):
    """One page of a list."""

    next_page_token: str


_PageT = TypeVar("_PageT", bound=_Page)

MESSAGE_BYTES_MAX: Final = 16 << 20
#: A stream that ends so may be begun again: the connection was lost, the service drains, or the stream's own time is over.
_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
#: Answers that say that what was asked was not done, and will not be. Whatever else is answered leaves that open: the same request may be sent again.
REFUSES: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_TOKEN_EXPIRED: Final = "RESUME_TOKEN_EXPIRED"
_rng: Final = random.Random()  # noqa: S311 - jitter, no secret


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How long calls may take and how often they are tried."""

    #: Deadline of one try.
    deadline_seconds: float = 10.0
    #: Tries of one call at the most.
    attempts_max: int = 6
    #: Longest pause between tries.
    pause_seconds_max: float = 2.0
    #: Deadline of one stream; a watch then begins another where this one ended.
    stream_seconds: float = 300.0
    #: Longest silence of a stream, heartbeats included, before it is given up as dead.
    silence_seconds_max: float = 45.0
    #: Longest time in which a watch may fail to reach any replica before it gives up.
    unreachable_seconds_max: float = 120.0


class ServiceClient:
    """A service over one mTLS channel. An async context manager; not bound to one replica."""

    def __init__(self, target: str, tls: TlsSettings, settings: CallSettings | None = None) -> None:
        self._settings = settings or CallSettings()
        self._channel = channel(target, tls, message_bytes_max=MESSAGE_BYTES_MAX)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the channel; calls under way end."""
        await self._channel.close()


async def unary(call: Callable[[float], Awaitable[_Response]], settings: CallSettings) -> _Response:
    """The answer of a call; `call` is given the deadline of each try in seconds.

    Raises:
        LockstepError: the service's refusal, or UNAVAILABLE after the last try.
    """
    for attempt in range(settings.attempts_max):
        try:
            return await call(call_seconds(settings.deadline_seconds))
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure)
        if not worth_another(error, settings) or attempt + 1 == settings.attempts_max:
            raise error
        await pause(attempt, settings, error)
    raise AssertionError("a call has at least one try")


def worth_another(error: LockstepError, settings: CallSettings) -> bool:
    """Nothing was done, and it may be soon: a limit that asks for more patience than a pause is the caller's to heed."""
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.retry_after is not None and error.retry_after.total_seconds() <= settings.pause_seconds_max
    # A caller's own cancellation is no answer: it arrives as CancelledError.
    return error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def pages(call: Callable[..., Awaitable[_PageT]], request: Any, settings: CallSettings) -> AsyncIterator[_PageT]:
    """The pages of a list, each asked for once the one before was used up; `request` goes on from page to page.

    Raises:
        LockstepError: as `unary`.
    """
    while True:
        page = await unary(lambda seconds: call(request, timeout=seconds), settings)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def pause(attempt: int, settings: CallSettings, error: LockstepError | None = None) -> None:
    """Wait before the next try: capped exponential back-off with jitter, and no less than the service asked for, within the cap."""
    seconds = back_off_seconds(attempt, _rng, most=settings.pause_seconds_max)
    if error is not None and error.retry_after is not None:
        seconds = max(seconds, error.retry_after.total_seconds())
    await asyncio.sleep(min(seconds, settings.pause_seconds_max))


@dataclass(slots=True)
class Resumption:
    """Where a watch goes on after its connection was lost."""

    #: Resume after this; "" begins anew.
    token: str

    def starts_over(self, error: LockstepError) -> bool:
        """Give up a token that has grown too old."""
        if error.reason != _TOKEN_EXPIRED or not self.token:
            return False
        self.token = ""
        return True


async def stream(
    begin: Callable[[float], grpc.aio.UnaryStreamCall[Any, _Response]],
    settings: CallSettings,
    *,
    starts_over: Callable[[LockstepError], bool] = lambda _: False,
    lost: Callable[[LockstepError | None], None] = lambda _: None,
) -> AsyncIterator[_Response]:
    """The messages of a stream that is begun again, with capped back-off, whenever it is lost; ends when the service ends it.

    `begin` is given the deadline in seconds and asks from the caller's present place; `starts_over` may change that place after a refusal and say so;
    `lost` is told why the stream is away, and None with each message.

    Raises:
        LockstepError: the service's refusal, or nothing was heard for `unreachable_seconds_max`.
    """
    failures, heard_at = 0, time.monotonic()
    while True:
        call = begin(settings.stream_seconds)
        try:
            async with aclosing(answers(call)) as messages:
                while True:
                    async with asyncio.timeout(settings.silence_seconds_max):
                        message = await anext(messages)
                    failures, heard_at = 0, time.monotonic()
                    lost(None)
                    yield message
        except StopAsyncIteration:
            return
        except TimeoutError:
            error = LockstepError(grpc.StatusCode.UNAVAILABLE, "STREAM_SILENT", "the stream brought no heartbeat")
        except ConnectionError as failure:
            error = LockstepError(grpc.StatusCode.UNAVAILABLE, "STREAM_LOST", str(failure))
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure)
        finally:
            call.cancel()
        if starts_over(error):
            continue
        if error.code not in _AGAIN or time.monotonic() - heard_at > settings.unreachable_seconds_max:
            raise error
        failures += 1
        lost(error)
        await pause(failures, settings, error)
