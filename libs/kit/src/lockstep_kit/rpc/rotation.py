"""A channel that changes to a new certificate while it is in use.

gRPC reads a channel's certificate once; a service lives longer than its certificates. When the files have changed, calls that begin later go over a new
channel; those under way end on the old one, which is closed after them. It is the server that ends a stream whose certificate has run out, so that whoever
reads it is told as of any other end: what a channel ends that is closed looks to its reader as if it had been cancelled itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Self

import grpc

from lockstep_kit.rpc.tls import Identity, TlsSettings, read_again

#: How often the files are looked at while calls are made.
LOOK_SECONDS: Final = 10.0
#: How long after its certificate has run out the old channel is closed, whatever goes on over it.
OVERDUE_SECONDS: Final = 60.0


class RotatingChannel(grpc.aio.Channel):
    """A channel over the newest certificate."""

    def __init__(
        self, tls: TlsSettings, connect: Callable[[Identity], grpc.aio.Channel], *, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._tls = tls
        self._connect = connect
        self._look_seconds = look_seconds
        self._identity = Identity.read(tls)
        self._channel = connect(self._identity)
        self._looked_at = time.monotonic()
        self._closing: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def current(self) -> grpc.aio.Channel:
        """The channel for calls that begin now."""
        now = time.monotonic()
        if now - self._looked_at >= self._look_seconds:
            self._looked_at = now
            found = read_again(self._tls, self._identity)
            if found is not None:
                old, left = self._channel, self._identity.not_after.timestamp() - time.time()
                self._identity, self._channel = found, self._connect(found)
                task = asyncio.create_task(old.close(max(left, 0.0) + OVERDUE_SECONDS), name="channel.close")
                self._closing[task] = old
                task.add_done_callback(self._closing.pop)
        return self._channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel, and those before it that still have calls, which are given as long."""
        waiting = dict(self._closing)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(self._channel.close(grace), *(old.close(grace) for old in waiting.values()))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """State of the present channel."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the present channel has left the state."""
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return when the present channel is connected."""
        await self.current().channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A method with one request and one answer."""
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A method with one request and a stream of answers."""
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A method with a stream of requests and one answer."""
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A method with streams both ways."""
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))


class _Method:
    """A stub's method, bound to whichever channel is the present one."""

    def __init__(self, owner: RotatingChannel, bind: Callable[[grpc.aio.Channel], Callable[..., Any]]) -> None:
        self._owner = owner
        self._bind = bind
        self._channel = owner.current()
        self._call = bind(self._channel)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._channel, self._call = channel, self._bind(channel)
        return self._call(*args, **kwargs)
