"""Requests that come one by one and go in batches: what waits while a call is under way goes together with the next, and one that is alone goes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_kit.errors import LockstepError
from lockstep_kit.rpc.arrows import BATCH_MAX

_RequestT = TypeVar("_RequestT")


class Gathered(Generic[_RequestT]):
    """Requests of one kind, one call at a time. `call` answers each by itself, in their order."""

    def __init__(self, call: Callable[[Sequence[_RequestT]], Awaitable[Sequence[Plan | LockstepError]]]) -> None:
        self._call = call
        self._waiting: list[tuple[_RequestT, asyncio.Future[Plan]]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, request: _RequestT) -> Plan:
        """The answer of a request.

        Raises:
            LockstepError: it was refused.
        """
        answer: asyncio.Future[Plan] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Ask no more; what waits or is under way is cancelled."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        for _, answer in self._waiting:
            answer.cancel()
        self._waiting = []

    async def _work(self) -> None:
        try:
            while self._waiting:
                # What was taken stays at the head until it is answered, so that closing finds it.
                taken = self._waiting[:BATCH_MAX]
                try:
                    answers = await self._call([request for request, _ in taken])
                except LockstepError as error:
                    answers = [error] * len(taken)
                del self._waiting[: len(taken)]
                for (_, waiting), answer in zip(taken, answers, strict=True):
                    _give(waiting, answer)
        finally:
            self._working = None


def _give(waiting: asyncio.Future[Plan], answer: Plan | LockstepError) -> None:
    if waiting.done():
        return
    if isinstance(answer, LockstepError):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
