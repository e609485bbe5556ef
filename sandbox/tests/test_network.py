"""A door lets bytes pass, holds them back or ends connections, as it is told, and finds a replica that lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lockstep_sandbox.network import Door, Weather
from lockstep_sandbox.ports import LOOPBACK, free_ports

SECONDS_MAX = 60.0
SILENCE_SECONDS = 0.3


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(b"heard " + line)
    writer.close()


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    """A door before two replicas, the first of which is down."""
    front, down, up = free_ports(3)
    server = await asyncio.start_server(echo, LOOPBACK, up)
    async with Door(front, [down, up]) as standing:
        yield standing
    server.close()


async def ask(door: Door, text: bytes, seconds: float = SECONDS_MAX) -> bytes:
    reader, writer = await asyncio.open_connection(LOOPBACK, door.port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(text + b"\n")
            return await reader.readline()
    finally:
        writer.transport.abort()


async def until_taken(door: Door) -> None:
    """Wait until the door has a connection: what a caller opens reaches it a moment later."""
    async with asyncio.timeout(SECONDS_MAX):
        while not door.connections:  # noqa: ASYNC110 - a door's connections have no event of their own
            await asyncio.sleep(0.01)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What a connection still brings before it ends, in order or not."""
    try:
        return await asyncio.wait_for(reader.read(), SECONDS_MAX)
    except ConnectionResetError:
        return b""


async def answered(door: Door, text: bytes) -> bytes:
    """The answer over a door that may refuse."""
    try:
        return await ask(door, text)
    except OSError:
        return b""


async def test_a_door_finds_a_replica_that_lives(door: Door) -> None:
    """Each connection reaches a replica that accepts it, however many are down."""
    assert [await ask(door, b"x") for _ in range(4)] == [b"heard x\n"] * 4


async def test_a_cut_ends_connections_and_accepts_none(door: Door) -> None:
    """While a door is cut, open connections end and new ones too; afterwards new ones pass."""
    reader, writer = await asyncio.open_connection(LOOPBACK, door.port)
    writer.write(b"a\n")
    assert await reader.readline() == b"heard a\n"
    await door.turn(Weather.CUT)
    assert await rest_of(reader) == b""
    assert await answered(door, b"b") == b""
    await door.turn(Weather.FAIR)
    assert await ask(door, b"c") == b"heard c\n"


@pytest.mark.parametrize("weather", [Weather.STALLED, Weather.DEAF, Weather.MUTE])
async def test_nothing_is_answered_while_a_direction_is_held_back(door: Door, weather: Weather) -> None:
    """Who asks over such a door waits in vain."""
    await door.turn(weather)
    with pytest.raises(TimeoutError):
        await ask(door, b"d", SILENCE_SECONDS)


@pytest.mark.parametrize("weather", [Weather.STALLED, Weather.DEAF, Weather.MUTE])
async def test_what_is_held_back_is_lost_with_its_connection(door: Door, weather: Weather) -> None:
    """A connection that something was held back from ends when it clears up, and brings nothing more."""
    await door.turn(weather)
    reader, writer = await asyncio.open_connection(LOOPBACK, door.port)
    writer.write(b"e\n")
    await until_taken(door)
    await door.turn(Weather.FAIR)
    assert await rest_of(reader) == b""


async def test_what_is_slow_arrives_late(door: Door) -> None:
    """An answer over a slow door takes at least the delay of both directions, and is whole."""
    await door.turn(Weather.SLOW, 0.1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await ask(door, b"f") == b"heard f\n"
    assert loop.time() - began >= 0.2
