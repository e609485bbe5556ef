"""How requests are put together; what they are put to answers as it is told, without a sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_client.gathering import Gathered
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
    gathered = Gathered(_Service().call)
    answers = await asyncio.gather(*(gathered.ask(number) for number in range(20)), return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 2:
            assert isinstance(answer, LockstepError)
        else:
            assert isinstance(answer, Plan)
            assert answer.transition_no == number


async def test_what_waits_goes_together_and_what_is_alone_goes_at_once() -> None:
    """One call at a time, each with all that came meanwhile, and no more than a call may hold."""
    service = _Service()
    gathered = Gathered(service.call)
    alone = asyncio.create_task(gathered.ask(0))
    await asyncio.sleep(0.001)
    assert service.batches == [[0]]
    await asyncio.gather(*(gathered.ask(2 * number) for number in range(BATCH_MAX + 10)), alone)
    assert [len(each) for each in service.batches] == [1, BATCH_MAX, 10]


async def test_a_batch_that_fails_fails_all_that_is_in_it_and_the_next_goes_on() -> None:
    """Everybody is told, and nobody waits for ever."""
    service = _Service()
    gathered = Gathered(service.call)
    service.down = True
    answers = await asyncio.gather(*(gathered.ask(0) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, LockstepError) and each.reason == "DOWN" for each in answers)
    service.down = False
    assert (await gathered.ask(4)).transition_no == 4


async def test_nobody_waits_after_it_was_closed() -> None:
    """What is under way and what waits are both over."""
    gathered = Gathered(_Service().call)
    waiting = [asyncio.create_task(gathered.ask(0)) for _ in range(3)]
    await asyncio.sleep(0.001)
    waiting.append(asyncio.create_task(gathered.ask(0)))
    await asyncio.sleep(0.001)
    await gathered.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting[-1]
    await asyncio.wait(waiting, timeout=1.0)
    assert all(each.done() for each in waiting)
