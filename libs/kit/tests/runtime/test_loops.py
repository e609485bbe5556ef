from __future__ import annotations

import asyncio
import random

import pytest

from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.loops import Loop, Soon, TaskSupervisor, back_off_seconds


async def until(condition: asyncio.Event) -> None:
    await asyncio.wait_for(condition.wait(), 60)


async def test_a_loop_polls_and_is_woken() -> None:
    """The work is done at once, then when woken, and without a wake after the poll interval."""
    worked: asyncio.Queue[None] = asyncio.Queue()

    async def work() -> None:
        worked.put_nowait(None)

    slow, fast = Loop("slow", work, poll_seconds=600), Loop("fast", work, poll_seconds=0.02)
    supervisor = TaskSupervisor()
    async with asyncio.timeout(60):
        supervisor.start(slow)
        await worked.get()
        await asyncio.sleep(0.1)
        assert worked.empty()
        slow.wake.set()
        await worked.get()
        supervisor.start(fast)
        for _ in range(5):
            await worked.get()
    await supervisor.stop()


async def test_a_wake_during_the_work_is_not_lost() -> None:
    """Woken while it works, a loop works again."""
    rounds, done = 0, asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            loop.wake.set()
        else:
            done.set()

    loop = Loop("loop", work, poll_seconds=60)
    supervisor = TaskSupervisor()
    supervisor.start(loop)
    await until(done)
    await supervisor.stop()


async def test_work_that_is_due_soon_is_not_left_to_the_poll() -> None:
    """Work that says when it is due again is done then, and at the poll's time where that is sooner."""
    worked: asyncio.Queue[None] = asyncio.Queue()
    due = [0.01, 0.01]

    async def soon() -> Soon | None:
        worked.put_nowait(None)
        return Soon(due.pop()) if due else None

    async def late() -> Soon:
        worked.put_nowait(None)
        return Soon(600)

    supervisor = TaskSupervisor()
    async with asyncio.timeout(60):
        supervisor.start(Loop("soon", soon, poll_seconds=600))
        for _ in range(3):
            await worked.get()
        await asyncio.sleep(0.1)
        assert worked.empty()
        supervisor.start(Loop("late", late, poll_seconds=0.01))
        for _ in range(3):
            await worked.get()
    await supervisor.stop()


async def test_a_loop_rests() -> None:
    """What wakes a loop while it rests is seen to together; who wakes it later is heard at once."""
    done: list[float] = []
    clock = asyncio.get_running_loop()

    async def work() -> None:
        done.append(clock.time())

    loop = Loop("test", work, poll_seconds=60.0, rest_seconds=0.2)
    task = asyncio.create_task(loop.run())
    for _ in range(20):
        loop.wake.set()
        await asyncio.sleep(0.005)
    async with asyncio.timeout(10):
        while len(done) < 2:  # noqa: ASYNC110 - it says nothing when it is done
            await asyncio.sleep(0.005)
    assert done[1] - done[0] >= 0.2
    await asyncio.sleep(0.4)
    assert len(done) == 2
    loop.wake.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(done) == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_loop_outlives_errors() -> None:
    """Ordinary and transient errors are backed off from, and the work is done again."""
    errors, done = [RuntimeError("x"), ConnectionError("y"), TimeoutError("z")], asyncio.Event()

    async def work() -> None:
        if errors:
            raise errors.pop()
        done.set()

    supervisor = TaskSupervisor()
    supervisor.start(Loop("loop", work, poll_seconds=60))
    await until(done)
    await supervisor.stop()


async def test_a_loop_that_dies_ends_the_wait() -> None:
    """What no loop survives is raised where the process waits, and stopping then ends the others."""
    stopped = asyncio.Event()

    async def dies() -> None:
        raise FailpointRaised("test")

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    supervisor = TaskSupervisor()
    supervisor.start(Loop("works", works, poll_seconds=1), Loop("dies", dies, poll_seconds=1))
    with pytest.raises(FailpointRaised):
        await asyncio.wait_for(supervisor.wait(), 60)
    await supervisor.stop()
    assert stopped.is_set()


def test_back_off_grows_to_its_cap_with_full_jitter() -> None:
    """The pause is drawn between zero and a limit that doubles up to the cap, however many attempts there were."""
    rng = random.Random(1)
    for attempts, limit in ((0, 0.1), (1, 0.2), (5, 3.2), (10, 10.0), (10_000, 10.0)):
        drawn = [back_off_seconds(attempts, rng) for _ in range(300)]
        assert 0.0 <= min(drawn) < limit * 0.1
        assert limit * 0.9 < max(drawn) <= limit
    assert max(back_off_seconds(9, rng, first=1.0, most=2.0) for _ in range(300)) <= 2.0
