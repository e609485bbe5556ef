"""What clients send: refusals by name, answers for ever, access by identity."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any, cast

import grpc

from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.type.v1 import signature_pb2
from lockstep_kit.convert import gate_to_pb, header_to_pb, leg_to_pb, permit_from_pb, time_to_pb
from lockstep_kit.plan import LegKind
from lockstep_kit.rpc import channel
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import PARTICIPANTS, PlanCase, delivery_versus_payment
from lockstep_testkit.serving import refusal

CREATE = "/lockstep.coordinator.v1.SettlementService/CreatePlan"
SECONDS = 60.0


def create_request(plan: PlanCase, request_id: str | None = None) -> messages.CreatePlanRequest:
    return messages.CreatePlanRequest(
        request_id=request_id or str(uuid.uuid4()),
        header=header_to_pb(plan.header),
        legs=[leg_to_pb(leg) for leg in plan.legs],
        make=gate_to_pb(plan.gate(Gate.MAKE)),
    )


async def test_the_same_request_has_the_same_answer(world: Any) -> None:
    """The same id with the same content is answered byte for byte as before, whatever has happened since; with other content it is refused."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        request = create_request(plan)
        first = await world.api.CreatePlan(request, timeout=SECONDS)
        execute = messages.ExecutePlanRequest(
            request_id=str(uuid.uuid4()),
            plan_id=plan.plan_id,
            payer_signatures=[messages.PayerSignature(leg_id="tokens", signature=bytes(65))],
        )
        started = await world.api.ExecutePlan(execute, timeout=SECONDS)
        await world.sign(plan, plan.gate(Gate.APPROVE))
        await world.reaches(plan, "PREPARED")
        assert await world.api.CreatePlan(request, timeout=SECONDS) == first
        assert await world.api.ExecutePlan(execute, timeout=SECONDS) == started
        execute.payer_signatures[0].signature = bytes(64)
        found = await refusal(world.api.ExecutePlan(execute, timeout=SECONDS))
        assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        other = messages.CancelPlanRequest(
            request_id=request.request_id, plan_id=plan.plan_id, cancel=gate_to_pb(plan.gate(Gate.CANCEL))
        )
        assert (await refusal(world.api.CancelPlan(other, timeout=SECONDS))).reason == "REQUEST_ID_REUSED"


async def test_the_same_request_at_the_same_time(world: Any) -> None:
    """Sent many times at once, a request is done once, and every sender gets the same answer."""
    async with world.coordinator():
        request = create_request(delivery_versus_payment())
        answers = await asyncio.gather(*(world.api.CreatePlan(request, timeout=SECONDS) for _ in range(8)))
        assert all(each == answers[0] for each in answers)
    assert len(await world.rows("select from plan")) == 1


async def test_a_plan_id_is_used_once(world: Any) -> None:
    """Another request with a plan's id is refused."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)
        found = await refusal(world.create(plan))
        assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PLAN_EXISTS")


async def test_bad_plans_store_nothing(world: Any) -> None:
    """A plan that breaks a rule is refused by field and rule, and leaves no row behind."""
    bends: dict[str, Any] = {
        "header must be present": lambda request: request.ClearField("header"),
        "make must be present": lambda request: request.ClearField("make"),
        "legs must be 1 to 64": lambda request: request.ClearField("legs"),
        "header.plan_id must be a lower-case UUID": lambda request: setattr(request.header, "plan_id", "ABC"),
        "request_id must be a lower-case UUID": lambda request: setattr(request, "request_id", ""),
        "header.deadline must be in the future": lambda request: request.header.deadline.FromSeconds(1_000_000_000),
        "header.legs_root must be the Merkle root": lambda request: setattr(request.legs[0], "salt", bytes(16)),
        "legs[0].token_transfer.amount.minor_units must be greater than zero": lambda request: setattr(
            request.legs[0].token_transfer.amount, "minor_units", "0"
        ),
        "legs[0].token_transfer.amount.minor_units must be decimal digits": lambda request: setattr(
            request.legs[0].token_transfer.amount, "minor_units", "-1"
        ),
        "legs[0].token_transfer.payer must": lambda request: setattr(request.legs[0].token_transfer, "payer", "0x" + "ab" * 20),
        "legs[1].credit_transfer.debtor.iban must": lambda request: setattr(
            request.legs[1].credit_transfer.debtor, "iban", "DE00370400440532013000"
        ),
        "legs[1].credit_transfer.amount.scale must be 2": lambda request: setattr(
            request.legs[1].credit_transfer.amount, "scale", 3
        ),
        "legs[1].credit_transfer.charge_bearer must be": lambda request: setattr(
            request.legs[1].credit_transfer, "charge_bearer", 0
        ),
        "make.signature.signature must be 64 bytes": lambda request: setattr(request.make.signature, "signature", b""),
    }
    async with world.coordinator():
        for expected, bend in bends.items():
            request = create_request(delivery_versus_payment())
            bend(request)
            found = await refusal(world.api.CreatePlan(request, timeout=SECONDS))
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"), expected
            assert found.message.startswith(expected), found.message
            assert found.fields[0].field == found.metadata["field"]
        request = create_request(delivery_versus_payment())
        request.legs[1].credit_transfer.remittance = "x" * 300_000
        assert (await refusal(world.api.CreatePlan(request, timeout=SECONDS))).reason == "REQUEST_TOO_LARGE"
    for table in ("plan", "plan_leg", "request", "gate_signature", "decision_key", "plan_event", "journal_event", "lease"):
        assert not await world.rows(f"select from {table}"), table


async def test_makers_are_checked(world: Any) -> None:
    """A plan needs the signature of a registered maker over this very plan."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        for make, reason in (
            (plan.gate(Gate.MAKE, "bob"), "GATE_ROLE"),
            (plan.gate(Gate.MAKE, "mallory"), "GATE_SIGNATURE"),
            (delivery_versus_payment(deadline=plan.header.deadline).gate(Gate.MAKE), "GATE_PLAN_DIGEST"),
        ):
            request = create_request(plan)
            request.make.CopyFrom(gate_to_pb(make))
            found = await refusal(world.api.CreatePlan(request, timeout=SECONDS))
            assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)
    assert not await world.rows("select from plan")


async def test_payers_sign_exactly_the_token_transfers(world: Any) -> None:
    """A missing, an additional, a double or an oversized payer's signature is refused, and the plan stays a draft."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)

        def asked(*signed: tuple[str, bytes]) -> messages.ExecutePlanRequest:
            made = [messages.PayerSignature(leg_id=leg, signature=octets) for leg, octets in signed]
            return messages.ExecutePlanRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id, payer_signatures=made)

        good = ("tokens", bytes(65))
        for request in (asked(), asked(good, ("cash", bytes(65))), asked(good, good), asked(("tokens", bytes(4097)))):
            assert (await refusal(world.api.ExecutePlan(request, timeout=SECONDS))).reason == "FIELD_INVALID"
        assert (await world.get(plan)).state == 1
        await world.api.ExecutePlan(asked(good), timeout=SECONDS)
        found = await refusal(world.api.ExecutePlan(asked(good), timeout=SECONDS))
        assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_STATE")


def payers_request(plan: PlanCase) -> messages.ExecutePlanRequest:
    signed = messages.PayerSignature(leg_id="tokens", signature=bytes(65))
    return messages.ExecutePlanRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id, payer_signatures=[signed])


def permit(plan: PlanCase, **changes: object) -> signature_pb2.Permit:
    made = {"value": "1000000000", "deadline": time_to_pb(plan.header.deadline.replace(microsecond=0)), "signature": bytes(65)}
    return signature_pb2.Permit(**(made | changes))  # type: ignore[arg-type]


async def test_a_permit_must_be_able_to_do_what_it_is_for(world: Any) -> None:
    """A permit over less than the leg, one that ends too early and one of another form are refused by the field's name; the plan stays a draft."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)
        early = time_to_pb(plan.header.deadline.replace(microsecond=0) - timedelta(seconds=1))
        fraction = time_to_pb(plan.header.deadline.replace(microsecond=1))
        wrong = {
            "value": ({"value": "1"}, {"value": "0"}, {"value": "01"}, {"value": "-1"}, {"value": str(2**256)}),
            "deadline": ({"deadline": early}, {"deadline": fraction}, {"deadline": None}),
            "signature": ({"signature": bytes(64)},),
        }
        for field, changes in wrong.items():
            for change in changes:
                request = payers_request(plan)
                request.payer_signatures[0].permit.CopyFrom(permit(plan, **change))
                found = await refusal(world.api.ExecutePlan(request, timeout=SECONDS))
                assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
                assert f"payer_signatures[0].permit.{field}" in str(found)
        assert (await world.get(plan)).state == 1


async def test_a_permit_reaches_the_participant_as_it_came(world: Any) -> None:
    """It is kept with the payer's signature, once and for good, and goes out with the Prepare; another one is another request."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)
        request = payers_request(plan)
        request.payer_signatures[0].permit.CopyFrom(permit(plan))
        await world.api.ExecutePlan(request, timeout=SECONDS)
        request.payer_signatures[0].permit.value = "2000000000"
        assert (await refusal(world.api.ExecutePlan(request, timeout=SECONDS))).reason == "REQUEST_ID_REUSED"
        (row,) = await world.rows("select permit from plan_leg where plan_id = $1 and permit is not null", plan.plan_id)
        assert signature_pb2.Permit.FromString(row["permit"]) == permit(plan)
        await world.reaches(plan, "READY_FOR_PREPARE")
        operations = world.parties[PARTICIPANTS[LegKind.TOKEN_TRANSFER]].operations
        await world.until(plan, lambda _: any(each.plan_id == plan.plan_id for each in operations.begun))
        (work,) = (each for each in operations.begun if each.plan_id == plan.plan_id)
        assert work.permit == permit_from_pb(permit(plan))


async def test_gates_over_the_wire(world: Any) -> None:
    """Refusals of gates carry their reasons; a nonce counts once for a key, over all plans."""
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        early = plan.gate(Gate.RELEASE, votes=plan.votes())
        found = await refusal(world.sign(plan, early))
        assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATE_VOTES_DIGEST")
        found = await refusal(world.sign(plan, plan.gate(Gate.VALIDATE, outcomes=[])))
        assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_STATE")
        found = await refusal(world.sign(plan, plan.gate(Gate.CANCEL)))
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        found = await refusal(world.sign(delivery_versus_payment(), plan.gate(Gate.APPROVE)))
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND")
        (approve,) = await world.rows("select nonce from gate_signature where plan_id = $1 and gate = 'APPROVE'", plan.plan_id)
        from dataclasses import replace

        from lockstep_kit.statements import sign_gate
        from lockstep_testkit.factories import key_of

        other = delivery_versus_payment()
        await world.create(other)
        again = sign_gate(replace(other.gate(Gate.APPROVE).statement, nonce=approve["nonce"]), key_of("bob"))
        found = await refusal(world.sign(other, again))
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GATE_NONCE_REUSED")
        assert len((await world.get(other)).gates) == 1


async def test_lists(world: Any) -> None:
    """Plans come newest first, page by page, filtered by state; transitions in order."""
    async with world.coordinator():
        plans = [delivery_versus_payment() for _ in range(5)]
        for plan in plans:
            await world.create(plan)
        await world.cancel(plans[0])
        seen: list[str] = []
        token = ""
        while True:
            page = await world.api.ListPlans(messages.ListPlansRequest(page_size=2, page_token=token), timeout=SECONDS)
            seen += [each.header.plan_id for each in page.plans]
            token = page.next_page_token
            if not token:
                break
        assert seen == [each.plan_id for each in reversed(plans)]
        drafts = await world.api.ListPlans(messages.ListPlansRequest(states=[settlement_pb2.PLAN_STATE_DRAFT]), timeout=SECONDS)
        assert len(drafts.plans) == 4
        for bad in (
            messages.ListPlansRequest(page_token="x"),
            messages.ListPlansRequest(page_size=201),
            messages.ListPlansRequest(states=[cast("Any", 77)]),
        ):
            assert (await refusal(world.api.ListPlans(bad, timeout=SECONDS))).reason == "FIELD_INVALID"
        await world.reaches(plans[0], "CLOSED")
        found, token = [], ""
        while True:
            request = messages.ListTransitionsRequest(plan_id=plans[0].plan_id, page_size=1, page_token=token)
            response = await world.api.ListTransitions(request, timeout=SECONDS)
            found += [(each.transition_no, each.to_state) for each in response.transitions]
            token = response.next_page_token
            if not token:
                break
        assert found == [(1, 1), (2, 10), (3, 9)]
        unknown = messages.ListTransitionsRequest(plan_id=str(uuid.uuid4()))
        assert (await refusal(world.api.ListTransitions(unknown, timeout=SECONDS))).reason == "PLAN_NOT_FOUND"


async def test_access(world: Any) -> None:
    """Who has no row may call nothing, who has one only what it names; every call has a deadline, every message a form."""
    async with world.coordinator():
        port = int(world.port)
        request = create_request(delivery_versus_payment())
        for who in (
            "spiffe://lockstep.local/client/reader",
            "spiffe://lockstep.local/client/other",
            "spiffe://lockstep.local/notary",
        ):
            found = await refusal(world.stub(port, who).CreatePlan(request, timeout=SECONDS))
            assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        reader = world.stub(port, "spiffe://lockstep.local/client/reader")
        assert (
            await refusal(reader.GetPlan(messages.GetPlanRequest(plan_id=str(uuid.uuid4())), timeout=SECONDS))
        ).reason == "PLAN_NOT_FOUND"
        assert (await refusal(world.api.CreatePlan(request))).reason == "DEADLINE_REQUIRED"
        raw = channel(f"127.0.0.1:{port}", world.tls_for("spiffe://lockstep.local/client/test"))
        try:
            call: Any = raw.unary_unary(CREATE)
            assert (await refusal(call(b"\xff\xff\xff", timeout=SECONDS))).reason == "FIELD_INVALID"
        finally:
            await raw.close()
    assert not await world.rows("select from request")
