"""A name that stands for several replicas: every channel to it has its calls answered by each of them in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep_kit.rpc import TlsSettings, channel, client
from lockstep_testkit.serving import COORDINATOR, Served

pytestmark = pytest.mark.integration

CHANNELS = 20
CALLS = 12
REQUEST = messages.VerifyPlanRequest(plan_id="p")


async def test_replicas_behind_one_name_take_turns(
    guarded_server: Callable[..., Awaitable[Served]], tls_for: Callable[[str], TlsSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever replica a channel reaches first, soon both answer, and from then on each as often as the other; on every one of many channels."""
    replicas = [await guarded_server(), await guarded_server()]
    # As a resolver gives a headless service's name: every replica's address. What it is called stands in the certificates.
    monkeypatch.setattr(client, "_OPTIONS", (*client._OPTIONS, ("grpc.ssl_target_name_override", "localhost")))
    target = "ipv4:" + ",".join(f"127.0.0.1:{each.server.port}" for each in replicas)

    def answered(before: Counter[int]) -> Counter[int]:
        return Counter({place: each.servicer.calls for place, each in enumerate(replicas)}) - before

    for _ in range(CHANNELS):
        # gRPC keeps connections among the channels of a process that are alike; the channel before has closed its own.
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(channel(target, tls_for(COORDINATOR)))
            stub, before = stubs.JournalReaderServiceStub(made), answered(Counter())
            async with asyncio.timeout(60):
                while len(answered(before)) < len(replicas):
                    await stub.VerifyPlan(REQUEST, timeout=30)
            before = answered(Counter())
            await asyncio.gather(*(stub.VerifyPlan(REQUEST, timeout=30) for _ in range(CALLS)))
            assert set(answered(before).values()) == {CALLS // len(replicas)}
