"""A real server over mutual TLS around a servicer that does what a test tells it: for tests of what stands between callers and servicers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings, channel

COORDINATOR: Final = "spiffe://lockstep.local/coordinator"
STRANGER: Final = "spiffe://lockstep.local/stranger"
SERVER: Final = "spiffe://lockstep.local/event-journal"
SERVICE: Final = "lockstep.journal.v1.JournalReaderService"
VERIFY: Final = f"/{SERVICE}/VerifyPlan"
WATCH: Final = f"/{SERVICE}/WatchEntries"
REQUEST: Final = messages.VerifyPlanRequest(plan_id="p")

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[messages.VerifyPlanRequest, Context], Awaitable[messages.VerifyPlanResponse]]
StreamHandler = Callable[[messages.WatchEntriesRequest, Context], AsyncIterator[messages.WatchEntriesResponse]]


async def _verified(_: messages.VerifyPlanRequest, __: Context) -> messages.VerifyPlanResponse:
    return messages.VerifyPlanResponse()


async def _silent(_: messages.WatchEntriesRequest, __: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
    nothing: tuple[messages.WatchEntriesResponse, ...] = ()
    for message in nothing:
        yield message


class ScriptedReader(stubs.JournalReaderServiceServicer):
    """Answers one method and one stream as it is told, and counts the calls that reach it; the third method is as generated, unimplemented."""

    ListEntries = stubs.JournalReaderServiceServicer.ListEntries

    def __init__(self) -> None:
        self.verify: Handler = _verified
        self.watch: StreamHandler = _silent
        self.calls = 0

    async def VerifyPlan(self, request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:  # noqa: N802 - named by the protocol
        """As told by `verify`."""
        self.calls += 1
        return await self.verify(request, context)

    async def WatchEntries(  # noqa: N802 - named by the protocol
        self, request: messages.WatchEntriesRequest, context: Context
    ) -> AsyncIterator[messages.WatchEntriesResponse]:
        """As told by `watch`."""
        self.calls += 1
        async for message in self.watch(request, context):
            yield message


@dataclass
class Served:
    """A running server, and callers of it."""

    #: The server.
    server: Server
    #: What it serves.
    servicer: ScriptedReader
    #: Makes certificates.
    tls_for: Callable[[str], TlsSettings]
    #: Closes what callers opened.
    channels: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"localhost:{self.server.port}"

    async def channel_as(self, caller: str) -> grpc.aio.Channel:
        """A channel that shows a caller's certificate."""
        return await self.channels.enter_async_context(channel(self.target, self.tls_for(caller)))

    async def stub_as(self, caller: str = COORDINATOR) -> stubs.JournalReaderServiceStub:
        """A stub over such a channel."""
        return stubs.JournalReaderServiceStub(await self.channel_as(caller))


#: Starts a server: `serve` with a stack and certificates of the test's.
MakeServer = Callable[..., Awaitable[Served]]


async def token(stream: Any) -> str:
    """The resume token of a stream's next message."""
    message: messages.WatchEntriesResponse = await stream.read()
    return message.resume_token


async def refusal(call: Any) -> LockstepError:
    """The error that a call or a stream ends with.

    Raises:
        AssertionError: it ends with none.
    """
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return from_rpc(error)
    raise AssertionError("the call did not fail")


async def serve(
    stack: contextlib.AsyncExitStack,
    tls_for: Callable[[str], TlsSettings],
    *,
    table: Mapping[str, tuple[str, ...]] | None = None,
    tls: TlsSettings | None = None,
    **listen: Any,
) -> Served:
    """Start a server, which the stack stops; the coordinator may call everything unless a table says otherwise."""
    access = Access({COORDINATOR: (f"/{SERVICE}/*",)} if table is None else table)
    settings = ListenSettings(**{"drain_seconds": 1.0, **listen})
    server, servicer = Server(settings, tls or tls_for(SERVER), access), ScriptedReader()  # type: ignore[abstract]  # it answers what tests ask
    descriptor = messages.DESCRIPTOR.services_by_name["JournalReaderService"]
    server.add(stubs.add_JournalReaderServiceServicer_to_server, servicer, descriptor)
    served = Served(server, servicer, tls_for)
    await server.start()
    stack.push_async_callback(server.stop)
    stack.push_async_callback(served.channels.aclose)
    return served
