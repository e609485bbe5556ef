"""Deadlines that shrink downstream: what a call may take is the least of its own limit and what is left of the caller's."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

import grpc

from lockstep_kit.errors import LockstepError

#: Left to the caller's side for its own work and the way back.
MARGIN_SECONDS: Final = 0.02

_until: ContextVar[float | None] = ContextVar("lockstep_deadline", default=None)


def enter(seconds: float | None) -> None:
    """Note what is left of the call that is being served."""
    _until.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def remaining_seconds() -> float | None:
    """What is left of the call that is being served; None outside one."""
    until = _until.get()
    return None if until is None else until - asyncio.get_running_loop().time()


def call_seconds(limit: float) -> float:
    """Time-out of an outgoing call.

    Raises:
        LockstepError: DEADLINE_TOO_CLOSE; too little is left for the call to be of use.
    """
    left = remaining_seconds()
    if left is None:
        return limit
    if left <= 2 * MARGIN_SECONDS:
        raise LockstepError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_CLOSE", "too little time is left for the call")
    return min(limit, left - MARGIN_SECONDS)
