"""Reading a stream of answers that may go on for hours, longer than the channel that it was begun over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TypeVar

_Answer = TypeVar("_Answer")


async def answers(call: AsyncIterable[_Answer]) -> AsyncGenerator[_Answer, None]:
    """A stream's answers; whoever leaves them before the end closes them (`contextlib.aclosing`).

    gRPC ends what goes on over a channel that is closed as if its reader had been cancelled: a task that believes it ends, and whoever waits for what it reads
    waits for ever. Only a reader that was cancelled is.

    Raises:
        grpc.aio.AioRpcError: the service ended it, or it broke.
        ConnectionAbortedError: its channel was closed.
    """
    try:
        async for each in call:
            yield each
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionAbortedError("the channel of the stream was closed") from None
