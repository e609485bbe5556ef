"""Who reads what stands on chain about a plan: its parties, operators and auditors; a refusal tells nothing."""

from __future__ import annotations

from typing import Any

import grpc
from notary_world import NotaryWorld

from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_kit.errors import from_rpc
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participants import CLIENT

PREFIX = "spiffe://lockstep.local/client/"
CLIENTS = (f"{PREFIX}buyer", f"{PREFIX}seller", f"{PREFIX}stranger", CLIENT)


async def answer(world: NotaryWorld, client: str, plan: PlanCase) -> Any:
    """The plan's digest as a client is told it, or the refusal as it is on the wire."""
    stub = notary_service_pb2_grpc.NotaryServiceStub(await world.service.channel(client))
    try:
        found = await stub.GetNotarisation(notary_service_pb2.GetNotarisationRequest(plan_id=plan.plan_id), timeout=60)
    except grpc.aio.AioRpcError as error:
        trailers = sorted((str(key), value) for key, value in error.trailing_metadata() or ())
        return from_rpc(error).reason, error.code(), error.details(), trailers
    return found.plan_digest


async def test_parties_read_their_plans(world: NotaryWorld) -> None:
    """Parties and auditors read what the notary has of a plan; a stranger is answered, byte for byte, as when there was no such plan."""
    plan = await world.harness.plan()
    before = [await answer(world, client, plan) for client in CLIENTS]
    assert {each[0] for each in before} == {"PLAN_NOT_FOUND"}
    assert all(each == before[0] for each in before)
    await world.harness.prepare(plan)
    digest = plan.header.digest
    assert [await answer(world, client, plan) for client in CLIENTS] == [digest, digest, before[0], digest]


async def test_checkpoints_are_of_no_plan(world: NotaryWorld) -> None:
    """What the witness has seen is read by whoever has the method, whomever it stands for."""
    stub = notary_service_pb2_grpc.NotaryServiceStub(await world.service.channel(f"{PREFIX}stranger"))
    await stub.GetWitnessStatus(notary_service_pb2.GetWitnessStatusRequest(), timeout=60)
