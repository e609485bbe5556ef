"""The shared engine and servicer, over mutual TLS on a real database, do what every participant must."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import cast

import grpc
import pytest
import pytest_asyncio

from lockstep.participant.v1 import participant_service_pb2, participant_service_pb2_grpc
from lockstep_kit.errors import from_rpc
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.servicer import ParticipantServicer
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings, channel
from lockstep_kit.rpc.arrows import PARTICIPANT
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.participant_conformance import CALL_SECONDS, ParticipantConformance, ParticipantHarness

COORDINATOR = "spiffe://lockstep.local/coordinator"


async def plan() -> PlanCase:
    return delivery_versus_payment()


@pytest_asyncio.fixture(loop_scope="session")
async def server(engine: ParticipantEngine, tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[Server]:
    server = Server(
        ListenSettings(drain_seconds=2.0),
        tls_for("spiffe://lockstep.local/bank-gateway"),
        Access({COORDINATOR: (f"/{PARTICIPANT}/*",)}),
    )
    descriptor = participant_service_pb2.DESCRIPTOR.services_by_name["ParticipantService"]
    server.add(participant_service_pb2_grpc.add_ParticipantServiceServicer_to_server, ParticipantServicer(engine), descriptor)
    server.on_drain(engine.drain)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def stub(
    server: Server, tls_for: Callable[[str], TlsSettings]
) -> AsyncIterator[participant_service_pb2_grpc.ParticipantServiceStub]:
    async with channel(f"localhost:{server.port}", tls_for(COORDINATOR)) as connection:
        yield participant_service_pb2_grpc.ParticipantServiceStub(connection)


class TestConformance(ParticipantConformance):
    @pytest_asyncio.fixture(loop_scope="session")
    async def harness(self, stub: participant_service_pb2_grpc.ParticipantServiceStub) -> ParticipantHarness:
        return ParticipantHarness("bank-gateway", stub, "cash", plan, reversible=True)


async def test_only_the_coordinator(server: Server, tls_for: Callable[[str], TlsSettings]) -> None:
    """Another service, with a good certificate, may not even ask what the participant is."""
    async with channel(f"localhost:{server.port}", tls_for("spiffe://lockstep.local/notary")) as connection:
        stub = participant_service_pb2_grpc.ParticipantServiceStub(connection)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Describe(participant_service_pb2.DescribeRequest(), timeout=CALL_SECONDS)
    assert from_rpc(caught.value).reason == "CALLER_NOT_ALLOWED"


async def test_heartbeats_and_drain(
    server: Server, engine: ParticipantEngine, stub: participant_service_pb2_grpc.ParticipantServiceStub
) -> None:
    """A silent stream beats with its cursor, and ends with UNAVAILABLE when the process drains, so that the watcher resumes elsewhere."""
    call = stub.WatchOutcomes(participant_service_pb2.WatchOutcomesRequest(), timeout=CALL_SECONDS)
    beats = [cast("participant_service_pb2.WatchOutcomesResponse", await call.read()) for _ in range(3)]
    await engine.drain()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert all(not beat.reports and beat.cursor.sequence == 0 and beat.cursor.incarnation for beat in beats)
    assert (from_rpc(caught.value).code, from_rpc(caught.value).reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


@pytest.mark.parametrize("token", ["x", "bGVncy8xLw==", "bGVncy8yLzE=", "é"])
async def test_page_token(stub: participant_service_pb2_grpc.ParticipantServiceStub, token: str) -> None:
    """A page token that was not given out is refused by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListLegs(participant_service_pb2.ListLegsRequest(page_token=token), timeout=CALL_SECONDS)
    error = from_rpc(caught.value)
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", "page_token")


async def test_watchers_are_bounded(engine: ParticipantEngine, stub: participant_service_pb2_grpc.ParticipantServiceStub) -> None:
    """More streams than the settings allow are refused; when one ends, another may open."""
    most = engine.settings.watchers_max
    request = participant_service_pb2.WatchOutcomesRequest()
    calls = [stub.WatchOutcomes(request, timeout=CALL_SECONDS) for _ in range(most)]
    for call in calls:
        await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.WatchOutcomes(request, timeout=CALL_SECONDS).read()
    assert from_rpc(caught.value).reason == "WATCHERS_TOO_MANY"
    for call in calls:
        call.cancel()
