"""How requests are put together; what they are put to answers as it is told, without a sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_bench.transport import OVERLOADED, SETTINGS, TRIES_MAX, Grouped, asked
from lockstep_kit.errors import LockstepError
from lockstep_kit.rpc.arrows import BATCH_MAX


class _Service:
    """Refuses what is odd, and takes its time."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.down = False

    async def call(self, requests: Sequence[int]) -> list[Plan | LockstepError]:
        self.batches.append(list(requests))
        await asyncio.sleep(0.01)
        if self.down:
            raise LockstepError(grpc.StatusCode.UNAVAILABLE, "DOWN", "nobody answers")
        odd = LockstepError(grpc.StatusCode.INVALID_ARGUMENT, "ODD", "must be even")
        return [odd if number % 2 else Plan(transition_no=number) for number in requests]


async def test_each_request_has_its_own_answer() -> None:
    """One that is refused does not fail the others of its batch."""
    grouped = Grouped(_Service().call)
    answers = await asyncio.gather(*(grouped.ask(number) for number in range(20)), return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 2:
            assert isinstance(answer, LockstepError)
        else:
            assert isinstance(answer, Plan)
            assert answer.transition_no == number


async def test_what_waits_goes_together_and_what_is_alone_goes_at_once() -> None:
    """One call at a time, each with all that came meanwhile, and no more than a call may hold."""
    service = _Service()
    grouped = Grouped(service.call)
    alone = asyncio.create_task(grouped.ask(0))
    await asyncio.sleep(0.001)
    assert service.batches == [[0]]
    await asyncio.gather(*(grouped.ask(2 * number) for number in range(BATCH_MAX + 10)), alone)
    assert [len(each) for each in service.batches] == [1, BATCH_MAX, 10]


async def test_a_batch_that_fails_fails_all_that_is_in_it_and_the_next_goes_on() -> None:
    """Everybody is told, and nobody waits for ever."""
    service = _Service()
    grouped = Grouped(service.call)
    service.down = True
    answers = await asyncio.gather(*(grouped.ask(0) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, LockstepError) and each.reason == "DOWN" for each in answers)
    service.down = False
    assert (await grouped.ask(4)).transition_no == 4


async def test_nobody_waits_after_it_was_closed() -> None:
    """What is under way and what waits are both over."""
    grouped = Grouped(_Service().call)
    waiting = [asyncio.create_task(grouped.ask(0)) for _ in range(3)]
    await asyncio.sleep(0.001)
    waiting.append(asyncio.create_task(grouped.ask(0)))
    await asyncio.sleep(0.001)
    await grouped.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting[-1]
    await asyncio.wait(waiting, timeout=1.0)
    assert all(each.done() for each in waiting)


async def test_only_what_was_begun_waits_for_room() -> None:
    """A plan that is turned away is not brought again; one that is there is started once there is room; any other trouble is tried again, not for ever."""
    tried: list[str] = []

    async def full(requests: Sequence[int]) -> list[Plan | LockstepError]:
        tried.append("full")
        away = LockstepError(grpc.StatusCode.UNAVAILABLE, OVERLOADED, "too much is under way", retry_after=timedelta())
        return [away if len(tried) < TRIES_MAX + 3 else Plan() for _ in requests]

    async def down(requests: Sequence[int]) -> list[Plan | LockstepError]:
        tried.append("down")
        raise LockstepError(grpc.StatusCode.UNAVAILABLE, "DOWN", "nobody answers")

    brief = replace(SETTINGS, pause_seconds_max=0.001)
    with pytest.raises(LockstepError, match=OVERLOADED):
        await asked(Grouped(full), 1, patient=False, settings=brief)
    assert tried == ["full"]
    await asked(Grouped(full), 1, patient=True, settings=brief)
    assert tried == ["full"] * (TRIES_MAX + 3)
    with pytest.raises(LockstepError, match="DOWN"):
        await asked(Grouped(down), 1, patient=True, settings=brief)
    assert tried.count("down") == TRIES_MAX
