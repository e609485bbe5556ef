"""Streams that watch all plans, from a process of their own: so many of them, until it is told to stop.

python -m lockstep_bench.watchers RUN COUNT
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from lockstep_bench.transport import SETTINGS
from lockstep_client.client import LockstepClient
from lockstep_client.configuration import ClientConfiguration, read_configuration
from lockstep_sandbox.stack import Sandbox

#: Streams over one connection.
OF_A_CONNECTION: Final = 100
_BEGIN_SECONDS: Final = 120.0
_END_SECONDS: Final = 20.0


@asynccontextmanager
async def watching(sandbox: Sandbox, count: int) -> AsyncIterator[None]:
    """So many streams are open inside.

    Raises:
        TimeoutError, RuntimeError: they could not be begun.
    """
    command = (sys.executable, "-m", "lockstep_bench.watchers", str(sandbox.run.path), str(count))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not await asyncio.wait_for(process.stdout.readline(), _BEGIN_SECONDS):
            raise RuntimeError("the watchers ended")
        yield
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


# -- inside the process ------------------------------------------------------------------------------------------------


async def watch(run: Path, count: int) -> None:
    """Watch until standard input ends; one line is printed when every stream has brought its snapshot.

    Raises:
        LockstepError: a stream was refused.
    """
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    configuration = read_configuration(run / "client.yaml")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(_client(configuration)) for _ in range((count + OF_A_CONNECTION - 1) // OF_A_CONNECTION)
        ]
        tasks = await opened([clients[index // OF_A_CONNECTION].watch_plans() for index in range(count)])
        print("watching", flush=True)
        await reader.read()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def opened(streams: Sequence[AsyncIterator[object]]) -> Sequence[asyncio.Task[None]]:
    """What reads each stream, once all of them have brought something.

    Raises:
        LockstepError, RuntimeError: one was refused, or has ended; nothing is read any more.
    """
    seen = [asyncio.Event() for _ in streams]
    tasks = [asyncio.create_task(_read(stream, each)) for stream, each in zip(streams, seen, strict=True)]
    begun: asyncio.Future[Any] = asyncio.gather(*(each.wait() for each in seen))
    waited: list[asyncio.Future[Any]] = [begun, *tasks]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    over = [task for task in tasks if task.done()]
    if not over:
        return tasks
    for each in waited:
        each.cancel()
    await asyncio.gather(*waited, return_exceptions=True)
    over[0].result()
    raise RuntimeError("a stream has ended")


async def _read(stream: AsyncIterator[object], seen: asyncio.Event) -> None:
    async for _ in stream:
        seen.set()


def _client(configuration: ClientConfiguration) -> LockstepClient:
    return LockstepClient(configuration.coordinator, configuration.tls, SETTINGS)


def main() -> int:
    """Watch as the arguments say."""
    run, count = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch(Path(run), int(count)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
