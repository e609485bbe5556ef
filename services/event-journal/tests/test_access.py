"""Who reads what of the journal: parties' clients the plans of their parties, nobody what is not theirs, and a refusal tells nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from journal_world import CALL_SECONDS, JournalWorld, event_of

from lockstep.journal.v1 import journal_reader_service_pb2 as reader_pb2
from lockstep.journal.v1 import journal_reader_service_pb2_grpc, key_history_pb2
from lockstep.participant.v1 import leg_pb2
from lockstep_kit.errors import from_rpc
from lockstep_kit.ids import PartyId
from lockstep_kit.plan import Journal, Party
from lockstep_testkit.factories import BUYER, PlanCase, delivery_versus_payment, leg_of, plan_of
from lockstep_testkit.participants import ParticipantProcess

PREFIX = "spiffe://lockstep.local/client/"


def requests_about(plan_id: str) -> dict[str, Any]:
    """One request of each method that names a plan."""
    return {
        "ListEntries": reader_pb2.ListEntriesRequest(plan_id=plan_id),
        "VerifyPlan": reader_pb2.VerifyPlanRequest(plan_id=plan_id),
        "GetInclusionProof": reader_pb2.GetInclusionProofRequest(plan_id=plan_id, sequence=1, tree_size=1_000_000_000),
        "ExportBundle": reader_pb2.ExportBundleRequest(plan_id=plan_id, tree_size_min=1_000_000_000),
        "WatchEntries": reader_pb2.WatchEntriesRequest(plan_id=plan_id),
    }


async def answers(service: ParticipantProcess, client: str, plan_id: str) -> dict[str, Any]:
    """What a client is answered about a plan: "" or the refusal as it is on the wire."""
    stub = journal_reader_service_pb2_grpc.JournalReaderServiceStub(await service.channel(PREFIX + client))
    found: dict[str, Any] = {}
    for method, request in requests_about(plan_id).items():
        call = getattr(stub, method)(request, timeout=CALL_SECONDS)
        try:
            await (call.read() if method == "WatchEntries" else call)
            call.cancel()
            found[method] = ""
        except grpc.aio.AioRpcError as error:
            trailers = sorted((str(key), value) for key, value in error.trailing_metadata() or ())
            found[method] = (from_rpc(error).reason, error.code(), error.details(), trailers)
    return found


def reasons(found: dict[str, Any]) -> set[str]:
    return {each[0] if each else "" for each in found.values()}


async def test_parties_read_their_plans(world: JournalWorld, service: ParticipantProcess) -> None:
    """Once the plan's signed head has come, its parties' clients read its entries; a stranger is answered, byte for byte, as when there was no such plan."""
    plan: PlanCase = delivery_versus_payment()
    before = {name: await answers(service, name, plan.plan_id) for name in ("buyer", "seller", "stranger")}
    for found in before.values():
        assert reasons(found) == {"PLAN_NOT_FOUND"}
    await world.append(*(event_of(plan, sequence) for sequence in (1, 2, 3)))
    # The journal is told no party by what is appended.
    assert {name: await answers(service, name, plan.plan_id) for name in before} == before
    await world.harness.prepare(plan)
    for name in ("buyer", "seller"):
        # The log is not as long as it was asked to be: who may see the plan is told so.
        assert reasons(await answers(service, name, plan.plan_id)) == {"", "CHECKPOINT_PENDING"}
    assert await answers(service, "stranger", plan.plan_id) == before["stranger"]


async def test_parties_read_theirs_of_many(world: JournalWorld, service: ParticipantProcess) -> None:
    """Of many plans a party is given the entries of its own, as if the others were not there; who sees all is given all."""
    plan, other = delivery_versus_payment(), delivery_versus_payment()
    for each in (plan, other):
        await world.append(*(event_of(each, sequence) for sequence in (1, 2, 3)))
    await world.harness.prepare(plan)
    request = reader_pb2.ListEntriesRequest(plan_ids=[plan.plan_id, other.plan_id])
    found = {}
    for name in ("buyer", "stranger"):
        stub = journal_reader_service_pb2_grpc.JournalReaderServiceStub(await service.channel(PREFIX + name))
        found[name] = [each.plan_id for each in (await stub.ListEntries(request, timeout=CALL_SECONDS)).entries]
    assert found == {"buyer": [plan.plan_id] * 3, "stranger": []}
    assert len(await world.chains([plan.plan_id, other.plan_id])) == 6


async def test_what_is_of_all_plans(service: ParticipantProcess) -> None:
    """A stream of every plan is refused to parties' clients; what is of no plan is read by whoever has the method."""
    stub = journal_reader_service_pb2_grpc.JournalReaderServiceStub(await service.channel(f"{PREFIX}buyer"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.WatchEntries(reader_pb2.WatchEntriesRequest(), timeout=CALL_SECONDS).read()
    found = from_rpc(refused.value)
    assert (found.reason, found.metadata["field"]) == ("FIELD_INVALID", "plan_id")
    await stub.GetKeyHistory(key_history_pb2.GetKeyHistoryRequest(), timeout=CALL_SECONDS)
    await stub.GetConsistencyProof(reader_pb2.GetConsistencyProofRequest(from_size=0, to_size=0), timeout=CALL_SECONDS)


async def test_two_heads_under_one_id(world: JournalWorld, service: ParticipantProcess) -> None:
    """A plan under whose id the head of another one came is shown to no party: a head that was slipped in makes nobody a reader, and auditors see both."""
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in (1, 2, 3)))
    await world.harness.prepare(plan)
    stranger = Party(PartyId("stranger"), "Stranger SA")
    other = plan_of([leg_of("slipped", Journal())], parties=(BUYER, stranger), plan_id=plan.plan_id)
    answer = await replace(world.harness, leg_id="slipped").prepare(other)
    assert answer.verdict == leg_pb2.COMMAND_VERDICT_REFUSED
    for name in ("buyer", "stranger"):
        assert reasons(await answers(service, name, plan.plan_id)) == {"PLAN_NOT_FOUND"}
    assert len(await world.entries(plan.plan_id)) == 3
