"""A server and a client over mutual TLS, around a servicer that does what a test tells it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings, channel

COORDINATOR = "spiffe://lockstep.local/coordinator"
STRANGER = "spiffe://lockstep.local/stranger"
SERVER = "spiffe://lockstep.local/event-journal"
SERVICE = "/lockstep.journal.v1.JournalReaderService/*"
VERIFY = "/lockstep.journal.v1.JournalReaderService/VerifyPlan"

Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
StreamHandler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Any]]


async def verified(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> messages.VerifyPlanResponse:
    return messages.VerifyPlanResponse()


async def silent(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[messages.WatchEntriesResponse]:
    return
    yield messages.WatchEntriesResponse()


class Scripted(stubs.JournalReaderServiceServicer):
    """Does what it is told."""

    def __init__(self) -> None:
        self.verify: Handler = verified
        self.watch: StreamHandler = silent
        self.calls = 0

    async def VerifyPlan(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return await self.verify(request, context)

    async def WatchEntries(self, request: Any, context: Any) -> Any:
        self.calls += 1
        async for message in self.watch(request, context):
            yield message


@dataclass
class World:
    """A running server."""

    server: Server
    servicer: Scripted
    tls_for: Callable[[str], TlsSettings]
    channels: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def target(self) -> str:
        return f"localhost:{self.server.port}"

    async def channel_as(self, caller: str) -> grpc.aio.Channel:
        return await self.channels.enter_async_context(channel(self.target, self.tls_for(caller)))

    async def stub_as(self, caller: str = COORDINATOR) -> stubs.JournalReaderServiceAsyncStub:
        return stubs.JournalReaderServiceStub(await self.channel_as(caller))


MakeServer = Callable[..., Awaitable[World]]


@pytest.fixture
async def serve(tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[MakeServer]:
    """Starts servers, which are stopped at the end of the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(table: Mapping[str, tuple[str, ...]] | None = None, tls: TlsSettings | None = None, **listen: Any) -> World:
            access = Access({COORDINATOR: (SERVICE,)} if table is None else table)
            settings = ListenSettings(**{"drain_seconds": 1.0, **listen})
            server, servicer = Server(settings, tls or tls_for(SERVER), access), Scripted()
            descriptor = messages.DESCRIPTOR.services_by_name["JournalReaderService"]
            server.add(stubs.add_JournalReaderServiceServicer_to_server, servicer, descriptor)
            world = World(server, servicer, tls_for)
            stack.push_async_callback(world.channels.aclose)
            await server.start()
            stack.push_async_callback(server.stop)
            return world

        yield start
