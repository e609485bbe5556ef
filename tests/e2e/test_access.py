"""Each client of the sandbox sees what is its own, at the coordinator, the journal and the notary: with real certificates, after a real settlement."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from lockstep.coordinator.v1 import operator_service_pb2, settlement_service_pb2
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep.journal.v1 import journal_reader_service_pb2
from lockstep.journal.v1.journal_reader_service_pb2_grpc import JournalReaderServiceStub
from lockstep.notary.v1 import notary_service_pb2
from lockstep.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from lockstep_client.client import LockstepClient
from lockstep_client.making import create
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.rpc import channel
from lockstep_sandbox import callers
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew

SECONDS = 60.0


async def reason(sandbox: Sandbox, client: str, service: str, stub_of: Any, method: str, request: Message) -> str:
    """How a client's call ends: "", or why it is refused."""
    async with channel(sandbox.address(service), sandbox.tls(f"client/{client}")) as opened:
        try:
            await getattr(stub_of(opened), method)(request, timeout=SECONDS)
        except grpc.aio.AioRpcError as error:
            return from_rpc(error).reason
    return ""


async def test_each_client_sees_its_own(sandbox: Sandbox, crew: Crew) -> None:
    """The buyer and the seller, operators and the auditor see a settled plan everywhere; to another party it is nowhere."""
    plan_id = (await crew.driven((await crew.started(crew.payments())).header.plan_id)).header.plan_id
    asked: tuple[tuple[str, Any, str, Message], ...] = (
        ("coordinator", SettlementServiceStub, "GetPlan", settlement_service_pb2.GetPlanRequest(plan_id=plan_id)),
        ("event-journal", JournalReaderServiceStub, "ListEntries", journal_reader_service_pb2.ListEntriesRequest(plan_id=plan_id)),
        ("event-journal", JournalReaderServiceStub, "VerifyPlan", journal_reader_service_pb2.VerifyPlanRequest(plan_id=plan_id)),
        ("notary", NotaryServiceStub, "GetNotarisation", notary_service_pb2.GetNotarisationRequest(plan_id=plan_id)),
    )
    hidden = {"pauper", "borrower"}
    for client in callers.CLIENTS:
        told = [await reason(sandbox, client, *each) for each in asked]
        assert told == ["PLAN_NOT_FOUND" if client in hidden else ""] * len(asked), client
        request = operator_service_pb2.ListEscalationsRequest()
        listing = await reason(sandbox, client, "coordinator", OperatorServiceStub, "ListEscalations", request)
        assert listing == ("CALLER_NOT_ALLOWED" if client in callers.PARTIES else ""), client


@pytest.mark.parametrize(("client", "refusal"), [("pauper", "CLIENT_NO_PARTY"), ("desk", "CALLER_NOT_ALLOWED"), ("buyer", "")])
async def test_who_brings_a_plan(sandbox: Sandbox, crew: Crew, client: str, refusal: str) -> None:
    """Only a client of one of its parties brings a plan; a desk of operators brings none."""
    draft = crew.draft(crew.payments())
    async with LockstepClient(sandbox.address("coordinator"), sandbox.tls(f"client/{client}")) as own:
        if not refusal:
            plan = await create(own, draft, crew.key("maker"))
            await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker"))
            return
        with pytest.raises(LockstepError) as refused:
            await create(own, draft, crew.key("maker"))
    assert refused.value.reason == refusal
