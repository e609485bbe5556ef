"""Calls that are cancelled as soon as they are made, over real connections: what they may take of the server, and that nobody else notices."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit.metrics.process import HELD
from lockstep_kit.rpc import arrivals
from lockstep_testkit.serving import COORDINATOR, REQUEST, STRANGER, VERIFY, Context, MakeServer, Served
from lockstep_testkit.serving import SERVICE as NAME

pytestmark = pytest.mark.integration

FOREVER = messages.VerifyPlanRequest(plan_id="forever")
TWO = dict.fromkeys((COORDINATOR, STRANGER), (f"/{NAME}/*",))
BURST = 5


class Cancelling:
    """A server whose calls for one plan never end, and a stranger who cancels them."""

    def __init__(self, world: Served) -> None:
        self.world = world
        self.begun = asyncio.Semaphore(0)
        self.ended = asyncio.Semaphore(0)
        world.servicer.verify = self._verify

    async def _verify(self, request: messages.VerifyPlanRequest, _: Context) -> messages.VerifyPlanResponse:
        if request.plan_id == "forever":
            self.begun.release()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.release()
        return messages.VerifyPlanResponse()

    async def cancel(self, stub: Any, times: int) -> None:
        """Have so many calls begin and be cancelled, and wait until the server knows."""
        calls = [stub.VerifyPlan(FOREVER, timeout=60) for _ in range(times)]
        for _ in calls:
            await asyncio.wait_for(self.begun.acquire(), 60)
        for call in calls:
            call.cancel()
        for _ in calls:
            await asyncio.wait_for(self.ended.acquire(), 60)
        # The server is told of the handlers' ends in the turns of the loop after them.
        await asyncio.sleep(0.05)


async def cancelling(make: MakeServer, per_second: float, **listen: Any) -> Cancelling:
    """A server that lets the stranger cancel a few calls."""
    cancelled = {"cancelled_per_second": per_second, "cancelled_burst": BURST - 1}
    limits = {"named": {STRANGER: {**cancelled, "streams_per_second": 1e-6, "streams_burst": 1, "calls_burst": 1_000}}}
    return Cancelling(await make(table=TWO, limits=limits, **listen))


async def test_who_cancels_at_once_is_taken_late(guarded_server: MakeServer) -> None:
    """After the burst a caller's next call waits for its turn, and is answered; others are served meanwhile; it is counted, and logged by name."""
    at = await cancelling(guarded_server, per_second=0.5)
    stranger, other = await at.world.stub_as(STRANGER), await at.world.stub_as()
    await stranger.VerifyPlan(REQUEST, timeout=60)
    # More of them than the burst, so that what comes in meanwhile makes no difference.
    await at.cancel(stranger, 2 * BURST)
    held: float = HELD._value.get()
    with capture_logs() as logged:
        began = time.monotonic()
        call = asyncio.ensure_future(stranger.VerifyPlan(REQUEST, timeout=60))
        await other.VerifyPlan(REQUEST, timeout=60)
        await call
    assert time.monotonic() - began >= 1.9
    assert [each["caller"] for each in logged if each["event"] == "calls_held"] == [STRANGER]
    assert HELD._value.get() - held == 1


async def test_calls_that_are_answered_cost_nothing(guarded_server: MakeServer) -> None:
    """Refusals, errors and answers are no cancellations, nor is a call whose caller waited for it."""
    at = await cancelling(guarded_server, per_second=0.01)
    made: Any = await at.world.channel_as(STRANGER)
    stub = await at.world.stub_as(STRANGER)
    for _ in range(BURST):
        for refused in (
            made.unary_unary(VERIFY)(b"\xff\xff", timeout=60),
            made.unary_unary("/lockstep.Nothing/Here")(b"", timeout=60),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await refused
    slow = [stub.VerifyPlan(FOREVER, timeout=3) for _ in range(2 * BURST)]
    results = await asyncio.gather(*slow, return_exceptions=True)
    assert {each.code() for each in results if isinstance(each, grpc.aio.AioRpcError)} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    # Its turn would come after a minute and more.
    await stub.VerifyPlan(REQUEST, timeout=60)


async def test_what_waits_fills_its_connection(guarded_server: MakeServer) -> None:
    """Calls that are cancelled while they wait keep their places, so that the transport refuses that connection's next ones."""
    at = await cancelling(guarded_server, per_second=0.05, connection_streams_max=4)
    stranger = await at.world.stub_as(STRANGER)
    for _ in range(BURST):
        await at.cancel(stranger, 1)
    calls = at.world.servicer.calls
    codes = []
    for _ in range(12):
        call = stranger.VerifyPlan(REQUEST, timeout=0.3)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            codes.append(error.code())
    assert grpc.StatusCode.UNAVAILABLE in codes
    assert at.world.servicer.calls == calls
    await (await at.world.stub_as()).VerifyPlan(REQUEST, timeout=60)


async def test_so_many_wait_and_no_more(guarded_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the places are taken, a further call ends at once; it does not wait, and it is not served."""
    monkeypatch.setattr(arrivals, "WAITING_MAX", 1)
    at = await cancelling(guarded_server, per_second=0.02)
    stranger = await at.world.stub_as(STRANGER)
    await at.cancel(stranger, BURST)
    calls = at.world.servicer.calls
    waiting = asyncio.ensure_future(stranger.VerifyPlan(REQUEST, timeout=60))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await stranger.VerifyPlan(REQUEST, timeout=60)
    assert time.monotonic() - began < 30
    assert at.world.servicer.calls == calls
    assert not waiting.done()
    waiting.cancel()


async def test_a_server_stops_while_calls_wait(guarded_server: MakeServer) -> None:
    """What waits for its turn does not keep a server that stops, and its caller is told."""
    at = await cancelling(guarded_server, per_second=0.02)
    stranger = await at.world.stub_as(STRANGER)
    await at.cancel(stranger, BURST)
    waiting = asyncio.ensure_future(stranger.VerifyPlan(REQUEST, timeout=300))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    began = time.monotonic()
    await at.world.server.stop()
    assert time.monotonic() - began < 60
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await waiting
