"""A caller that is gone before its answer could be sent is no defect of the service's, whoever notices it first."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from lockstep_kit.errors import not_found
from lockstep_kit.rpc.gate import _end
from lockstep_kit.rpc.guard import _leave


class Unsendable(grpc.aio.InternalError):
    """As gRPC raises it when a batch of operations fails."""


class Gone:
    """As much of a call as is left: nothing can be sent over it."""

    def __init__(self) -> None:
        self.aborted = 0

    async def abort(self, *_: Any, **__: Any) -> None:
        self.aborted += 1
        raise Unsendable


@pytest.mark.parametrize(("error", "aborted"), [(not_found("plan", "one"), 1), (Unsendable(), 0), (ValueError("ours"), 1)])
async def test_a_caller_that_is_gone_is_let_go(error: Exception, aborted: int) -> None:
    """The call ends as one that was cancelled; only what is our own defect is logged as one, and nothing is sent twice."""
    context: Any = Gone()
    with capture_logs() as logged, pytest.raises(asyncio.CancelledError):
        await _leave("/service/Method", error, context)
    assert context.aborted == aborted
    assert [each["event"] for each in logged if each["log_level"] == "error"] == (
        ["call_failed"] if isinstance(error, ValueError) else []
    )


async def test_a_caller_that_is_gone_is_not_refused_anything() -> None:
    """Who was to be turned away, and is gone by then, is no defect either."""
    context: Any = Gone()
    with pytest.raises(asyncio.CancelledError):
        await _end(not_found("plan", "one"), context)
    assert context.aborted == 1
