"""How a call ends without an answer, also where its caller is gone by then."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    message: str,
    metadata: tuple[tuple[str, str | bytes], ...] = (),
) -> NoReturn:
    """End a call with a status.

    Raises:
        AbortError: as gRPC ends it.
        CancelledError: nothing can be sent any more.
    """
    try:
        await context.abort(code, message, metadata)
    except grpc.aio.InternalError as failure:
        raise gone() from failure
    raise AssertionError("an abort ends the call")


def gone() -> asyncio.CancelledError:
    """What gRPC raises where nothing can be sent any more, as a call that was cancelled: it is the caller that is gone, and no defect of ours."""
    return asyncio.CancelledError()
