"""Requests that come twice, and requests that are wrong, against the real coordinator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client.client import draw_request_id
from lockstep_client.convert import plan_from_pb
from lockstep_client.making import consent
from lockstep_kit.convert import header_from_pb, leg_from_pb
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.plan import legs_root
from lockstep_testkit.crew import Crew

SECONDS = 60.0
CREATE = "/lockstep.coordinator.v1.SettlementService/CreatePlan"


def create_request(crew: Crew) -> messages.CreatePlanRequest:
    """A request that would be accepted."""
    return crew.create_request(crew.payments())


async def rows(crew: Crew, plan_id: str = "", request_id: str = "") -> tuple[int, ...]:
    """How many plans the coordinator has, and what it has stored and means to send of this one; what it still does about others is theirs."""
    tables = ("plan_leg", "journal_event", "leg_command", "gate_signature")
    async with crew.database("coordinator") as database:
        plans = [await database.fetchval(f"select count(*) from {table}") for table in ("plan", "plan_leg")]
        of_plan = [await database.fetchval(f"select count(*) from {table} where plan_id = $1", plan_id) for table in tables]
        asked = await database.fetchval("select count(*) from request where request_id::text = $1", request_id)
    return (*plans, *of_plan, asked)


async def test_the_same_request_has_the_same_answer(crew: Crew) -> None:
    """A request that is sent again gets the first answer byte for byte; its id with other content is refused."""
    bare, stub = crew.stub()
    request = create_request(crew)
    first = await stub.CreatePlan(request, timeout=SECONDS)
    again = await stub.CreatePlan(request, timeout=SECONDS)
    assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)
    other = create_request(crew)
    other.request_id = request.request_id
    await assert_reused(stub.CreatePlan(other, timeout=SECONDS))

    view = plan_from_pb(first.plan)
    signatures = consent(view, {str(account.address): account for account in crew.sandbox.chain.accounts.values()})
    execute = messages.ExecutePlanRequest(
        request_id=draw_request_id(),
        plan_id=view.header.plan_id,
        payer_signatures=[messages.PayerSignature(leg_id=leg_id, signature=octets) for leg_id, octets in signatures.items()],
    )
    began = await stub.ExecutePlan(execute, timeout=SECONDS)
    repeated = await stub.ExecutePlan(execute, timeout=SECONDS)
    assert repeated.SerializeToString(deterministic=True) == began.SerializeToString(deterministic=True)
    execute.payer_signatures[0].signature = bytes(65)
    await assert_reused(stub.ExecutePlan(execute, timeout=SECONDS))
    await bare.close()
    await crew.driven(view.header.plan_id)


async def assert_reused(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    assert failure.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert from_rpc(failure.value).reason == "REQUEST_ID_REUSED"


Spoil = Callable[[messages.CreatePlanRequest], object]


def _set(path: str, value: object) -> Spoil:
    """Sets a field of the request; legs are counted by number."""

    def spoil(request: messages.CreatePlanRequest) -> None:
        *places, name = path.split(".")
        place: object = request
        for each in places:
            place = place[int(each)] if each.isdigit() else getattr(place, each)  # type: ignore[index]
        setattr(place, name, value)

    return spoil


def _cycle(request: messages.CreatePlanRequest) -> None:
    request.legs[0].depends_on.append("cash")
    request.legs[1].depends_on.append("bonds")
    # Bound to its legs as they now are, so that nothing else is wrong with it.
    header = header_from_pb(request.header)
    request.header.legs_root = legs_root([leg_from_pb(leg, header) for leg in request.legs])


def _too_many(request: messages.CreatePlanRequest) -> None:
    for number in range(70):
        request.legs.add().CopyFrom(request.legs[0])
        request.legs[-1].leg_id = f"bonds-{number}"
    request.header.leg_count = len(request.legs)


BROKEN: dict[str, tuple[Spoil, str]] = {
    "unknown asset": (_set("legs.1.credit_transfer.amount.asset", "XQX"), "asset"),
    "zero": (_set("legs.1.credit_transfer.amount.minor_units", "0"), "amount"),
    "negative": (_set("legs.1.credit_transfer.amount.minor_units", "-1"), "minor_units"),
    "too many decimals": (_set("legs.1.credit_transfer.amount.scale", 3), "scale"),
    "IBAN checksum": (_set("legs.1.credit_transfer.debtor.iban", "DE89370400440532013001"), "iban"),
    "BIC form": (_set("legs.1.credit_transfer.debtor.agent_bic", "NOBIC"), "bic"),
    "address without checksum": (_set("legs.0.token_transfer.payee", "0x" + "ab" * 20), "payee"),
    "duplicate leg id": (_set("legs.1.leg_id", "bonds"), "leg"),
    "dependency cycle": (_cycle, "depends_on"),
    "deadline in the past": (lambda request: request.header.deadline.FromSeconds(1_600_000_000), "deadline"),
    "too many legs": (_too_many, "leg"),
    "other legs_root": (_set("header.legs_root", bytes(32)), "legs_root"),
    "no maker's signature": (lambda request: request.ClearField("make"), "make"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_plan_is_refused_and_leaves_nothing(crew: Crew, name: str) -> None:
    """The refusal names field and rule; nothing is stored, so nothing can be sent."""
    spoil, field = BROKEN[name]
    request = create_request(crew)
    spoil(request)
    of = request.header.plan_id, request.request_id
    before = await rows(crew, *of)
    bare, stub = crew.stub()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.CreatePlan(request, timeout=SECONDS)
    await bare.close()
    error: LockstepError = from_rpc(failure.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"), error
    assert error.fields
    assert field in error.fields[0].field
    assert error.fields[0].rule
    assert await rows(crew, *of) == before


async def test_malformed_bytes_are_refused(crew: Crew) -> None:
    """What is no protobuf message is a caller's mistake, and leaves nothing."""
    before = await rows(crew)
    bare, _ = crew.stub()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await bare.unary_unary(CREATE, request_serializer=bytes, response_deserializer=bytes)(b"\xff\xff\xff\x07", timeout=SECONDS)
    await bare.close()
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await rows(crew) == before
