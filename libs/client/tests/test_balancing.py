"""Replicas behind one name: calls take turns over them, one that stops is survived, and one that takes its place is found."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import pytest

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep_client.calls import CallSettings, unary
from lockstep_kit.rpc import TlsSettings, channel
from lockstep_sandbox.authority import Authority
from lockstep_testkit.serving import COORDINATOR, Served, serve

pytestmark = pytest.mark.integration

#: RFC 6761 keeps this ending for tests.
NAME: Final = "replicas.test"
REQUEST: Final = messages.VerifyPlanRequest(plan_id="p")
_A, _IN, _TTL_SECONDS = 1, 1, 0
_ANSWERED: Final = 0x8580


class NameServer(asyncio.DatagramProtocol):
    """Says of every name that it stands for these addresses, as a cluster says of a headless service."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take questions."""
        # The event loop's own class is none by inheritance.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        """Answer one question (RFC 1035, section 4.1)."""
        end = data.index(0, 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        found = [ipaddress.IPv4Address(each).packed for each in self.addresses] if kind == _A else []
        # Each answer points back to the question's name, at octet 12.
        records = b"".join(struct.pack("!HHHIH", 0xC00C, _A, _IN, _TTL_SECONDS, 4) + each for each in found)
        head = data[:2] + struct.pack("!HHHHH", _ANSWERED, 1, len(found), 0, 0)
        assert self.transport is not None
        self.transport.sendto(head + data[12:end] + records, addr)


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, int]]:
    """A name server of one test, and its port."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield names, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def verified(stub: stubs.JournalReaderServiceStub) -> None:
    """One call, as clients make it.

    Raises:
        LockstepError: it failed for good.
    """
    await unary(lambda seconds: stub.VerifyPlan(REQUEST, timeout=seconds), CallSettings(deadline_seconds=60))


async def reached(stub: stubs.JournalReaderServiceStub, *replicas: Served) -> None:
    """Calls, none of which fails, until each of the replicas has served one more."""
    before = [each.servicer.calls for each in replicas]
    async with asyncio.timeout(60):
        while any(each.servicer.calls == count for each, count in zip(replicas, before, strict=True)):
            await verified(stub)
            await asyncio.sleep(0.01)


async def test_calls_take_turns_over_the_replicas_of_a_name(authority: Authority, tls_for: Callable[[str], TlsSettings]) -> None:
    """Calls divide over a name's replicas; one is replaced by another elsewhere, and no call fails meanwhile."""
    tls = TlsSettings.model_validate(authority.issue("event-journal", hosts=[NAME]).settings())
    async with contextlib.AsyncExitStack() as stack:
        names, port = await stack.enter_async_context(name_server())
        first = await serve(stack, tls_for, tls=tls, host="127.0.0.1")
        second = await serve(stack, tls_for, tls=tls, host="127.0.0.2", port=first.server.port)
        names.addresses = ["127.0.0.1", "127.0.0.2"]
        target = f"dns://127.0.0.1:{port}/{NAME}:{first.server.port}"
        stub = stubs.JournalReaderServiceStub(await stack.enter_async_context(channel(target, tls_for(COORDINATOR))))
        await reached(stub, first, second)
        before = [each.servicer.calls for each in (first, second)]
        for _ in range(20):
            await verified(stub)
        served = [each.servicer.calls - count for each, count in zip((first, second), before, strict=True)]
        # Turns, but for where they begin anew when the name is looked up meanwhile.
        assert sum(served) == 20
        assert min(served) >= 8
        third = await serve(stack, tls_for, tls=tls, host="127.0.0.3", port=first.server.port)
        names.addresses = ["127.0.0.2", "127.0.0.3"]
        stopping = asyncio.create_task(first.server.stop())
        await reached(stub, second, third)
        await stopping
        await reached(stub, second, third)
