"""Announcements of new blocks make the machine look sooner, and losing them makes it look later, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from chain_world import World, running

from lockstep_chain.newheads import NewHeads
from lockstep_chain.sender import TransactionMachine
from lockstep_kit.loops import TaskSupervisor


@contextlib.asynccontextmanager
async def announcing(machine: TransactionMachine, url: str) -> AsyncIterator[None]:
    supervisor = TaskSupervisor()
    supervisor.start(*NewHeads([url], machine.announced, reopen_seconds=0.1).loops())
    try:
        yield
    finally:
        await supervisor.stop()


async def test_announced(world: World) -> None:
    """A machine that would never poll again follows the chain by what is announced; without announcements it does not."""
    machine = await world.machine(poll_seconds=60.0)
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        await world.mine(6, pause=0.1)
        assert await world.told() == {}
        async with announcing(machine, world.node.url.replace("http", "ws")):
            assert await world.until_told(1) == {"one": "final"}


async def test_without_announcements(world: World) -> None:
    """A socket that is not there changes nothing: the machine polls."""
    machine = await world.machine()
    async with running(machine), announcing(machine, "ws://127.0.0.1:9"):
        await world.enqueue(machine, "one")
        assert await world.until_told(1) == {"one": "final"}


async def test_lost_and_found(world: World) -> None:
    """A socket that is lost is opened again."""
    connections = 0
    target = world.node.url.removeprefix("http://").split(":")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65_536):
                writer.write(octets)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        there, back = await asyncio.open_connection(target[0], int(target[1]))
        pipes = asyncio.gather(pipe(reader, back), pipe(there, writer))
        if connections == 1:
            await asyncio.sleep(0.2)
            back.close()
            writer.close()
        await asyncio.gather(pipes, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    machine = await world.machine(poll_seconds=60.0)
    try:
        async with running(machine), announcing(machine, f"ws://127.0.0.1:{port}"):

            async def opened_again() -> bool:
                return connections > 1

            await world.until(opened_again)
            await world.enqueue(machine, "one")
            assert await world.until_told(1) == {"one": "final"}
    finally:
        server.close()
