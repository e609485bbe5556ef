"""Drivers: processes that settle plans as a load says, and are not Lockstep. What they use of the processor is told apart.

Each takes every so-manieth plan of a load, so that the plans and their moments are the same however many drivers there are. A driver is told a load in one line
on its standard input and answers with one line of timelines on its standard output; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lockstep_bench.people import People, SettlementFailed
from lockstep_bench.schedule import Load, arrivals, work
from lockstep_bench.timelines import Timeline
from lockstep_kit.errors import LockstepError

#: Longest line of answers.
_LINE_BYTES_MAX: Final = 256 << 20
#: What a driver may take beyond its load.
_ANSWER_SECONDS: Final = 60.0
_END_SECONDS: Final = 20.0
_FAILED_SECONDS: Final = 1.0


class Drivers:
    """So many drivers over one run. An async context manager."""

    def __init__(self, run: Path, count: int) -> None:
        self._run = run
        self._count = count
        self._stack = AsyncExitStack()
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        try:
            for index in range(self._count):
                self._processes.append(await self._stack.enter_async_context(_process(self._run, index, self._count)))
            for each in self._processes:
                await _line(each, _ANSWER_SECONDS)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [each.pid for each in self._processes]

    async def settle(self, load: Load, began: float) -> list[Timeline]:
        """The timelines of a load that begins at a moment of the monotonic clock, which is the machine's; in the order of the plans.

        Raises:
            TimeoutError, RuntimeError: a driver did not answer, or ended.
        """
        for each in self._processes:
            assert each.stdin is not None
            each.stdin.write(json.dumps({"began": began, **asdict(load)}).encode() + b"\n")
            await each.stdin.drain()
        patience = max(began - time.monotonic(), 0.0) + load.until + load.grace_seconds + _ANSWER_SECONDS
        answers = await asyncio.gather(*(_line(each, patience) for each in self._processes))
        found = [Timeline(**each) for answer in answers for each in json.loads(answer)]
        return sorted(found, key=lambda each: (each.intended, each.number))


@asynccontextmanager
async def _process(run: Path, index: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "lockstep_bench.drivers", str(run), str(index), str(count))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=_LINE_BYTES_MAX)
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process, seconds: float) -> bytes:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), seconds)
    if not line:
        raise RuntimeError("a driver ended")
    return line


# -- inside a driver ---------------------------------------------------------------------------------------------------


class Share:
    """What one driver of several settles of a load."""

    def __init__(self, people: People, load: Load, began: float, index: int = 0, count: int = 1) -> None:
        self._people = people
        self._load = load
        self._began = began
        self._index = index
        self._count = count
        self._timelines: list[Timeline] = []

    async def settled(self) -> list[Timeline]:
        """The timelines of what was begun, finished or not, once all is done or the patience is over."""
        working = self._open() if self._load.rate is not None else self._closed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._loop_time(self._load.until + self._load.grace_seconds)):
                await working
        return self._timelines

    async def _open(self) -> None:
        """Plans begin when the schedule says, whatever became of those before."""
        async with asyncio.TaskGroup() as group:
            for number, moment in enumerate(arrivals(self._load)):
                if number % self._count == self._index:
                    await self._until(moment)
                    group.create_task(self._settle(number, moment))

    async def _closed(self) -> None:
        """So many plans at a time; each begins when the one before it is over."""
        concurrency = self._load.concurrency or 0

        async def worker(number: int) -> None:
            await self._until(0.0)
            while (now := time.monotonic() - self._began) < self._load.until:
                if (await self._settle(number, now)).failure:
                    # What is refused at once is not asked for as fast as it is refused.
                    await asyncio.sleep(_FAILED_SECONDS)
                number += concurrency

        async with asyncio.TaskGroup() as group:
            for number in range(self._index, concurrency, self._count):
                group.create_task(worker(number))

    async def _settle(self, number: int, intended: float) -> Timeline:
        timeline = Timeline(number, intended)
        self._timelines.append(timeline)
        # What went wrong stands in the timeline.
        with contextlib.suppress(LockstepError, SettlementFailed):
            await self._people.settle(work(self._load.seed, number, self._load.legs), timeline, self._began)
        return timeline

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(self._began + moment - time.monotonic(), 0.0))

    def _loop_time(self, moment: float) -> float:
        return asyncio.get_running_loop().time() + self._began + moment - time.monotonic()


async def drive(run: Path, index: int, count: int) -> None:
    """Settle what standard input says until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with People(run) as people:
        _say("ready")
        while line := await reader.readline():
            told: dict[str, Any] = json.loads(line)
            began = told.pop("began")
            _say([asdict(each) for each in await Share(people, Load(**told), began, index, count).settled()])


def _say(document: str | Sequence[dict[str, Any]]) -> None:
    print(json.dumps(document), flush=True)


def main() -> int:
    """Drive as the arguments say: the folder of a run, this driver's number, and how many there are."""
    run, index, count = sys.argv[1:]
    asyncio.run(drive(Path(run), int(index), int(count)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
