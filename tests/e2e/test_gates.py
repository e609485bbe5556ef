"""Who may not sign, may not: each refusal has its name, and leaves the plan as it was."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1.settlement_service_pb2 import GetPlanRequest
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.ids import NONCE_BYTES
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.statements import Gate, GateSignature
from lockstep_sandbox.authority import Authority
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew


async def refused(crew: Crew, plan: settlement.Plan, signature: GateSignature) -> str:
    """The reason of a refusal, which changes nothing."""
    plan_id = plan.header.plan_id
    before = await crew.client.get_plan(plan_id)
    with pytest.raises(LockstepError) as refusal:
        await crew.client.sign_gate(plan_id, signature)
    assert await crew.client.get_plan(plan_id) == before
    async with crew.database("coordinator") as database:
        stored = await database.fetchval("select count(*) from gate_signature where plan_id = $1", plan_id)
    assert stored == len(before.gates)
    return refusal.value.reason


async def test_gates_refuse_whoever_may_not_sign(crew: Crew) -> None:
    """Wrong role, maker, reused person, another plan's signature, an expired one, wrong votes, a reused nonce: nothing changes."""
    plan = await crew.voted(await crew.started(crew.payments()))
    other = await crew.voted(await crew.started(crew.payments(), maker="deputy"))
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    found = {
        "role": await refused(crew, plan, crew.signature(plan, "approve", person="releaser")),
        "maker": await refused(crew, plan, crew.signature(plan, "approve", person="maker")),
        "other plan": await refused(crew, plan, crew.signature(plan, "approve", digest=other.plan_digest)),
        "expired": await refused(crew, plan, crew.signature(plan, "approve", expires_at=past)),
    }
    found["maker who may approve"] = await refused(crew, other, crew.signature(other, "approve", person="deputy"))
    nonce = secrets.token_bytes(NONCE_BYTES)
    plan = await crew.client.sign_gate(plan.header.plan_id, crew.signature(plan, "approve", person="deputy", nonce=nonce))
    other = await crew.awaiting(other.header.plan_id, "release")
    plan = await crew.awaiting(plan.header.plan_id, "release")
    found["same person"] = await refused(crew, plan, crew.signature(plan, "release", person="deputy"))
    found["votes"] = await refused(crew, plan, crew.signature(plan, "release", votes=os.urandom(32)))
    assert found == {
        "role": "GATE_ROLE",
        "maker": "GATE_ROLE",
        "maker who may approve": "GATE_SAME_PERSON",
        "other plan": "GATE_PLAN_DIGEST",
        "expired": "GATE_EXPIRED",
        "same person": "GATE_SAME_PERSON",
        "votes": "GATE_VOTES_DIGEST",
    }
    cancelled = await crew.started(crew.payments())
    nonce = secrets.token_bytes(NONCE_BYTES)
    await crew.client.cancel_plan(cancelled.header.plan_id, crew.signature(cancelled, "cancel", person="maker", nonce=nonce))
    with pytest.raises(LockstepError) as reused:
        await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker", nonce=nonce))
    assert reused.value.reason == "GATE_NONCE_REUSED"
    for each in (plan, await crew.awaiting(other.header.plan_id, "release")):
        await crew.client.cancel_plan(each.header.plan_id, crew.signature(each, Gate.CANCEL.name.lower()))
        await crew.driven(each.header.plan_id)


async def test_validation_before_its_time_is_refused(crew: Crew) -> None:
    """Evidence that is not there yet cannot be validated."""
    plan = await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")
    signature = crew.signature(plan, "validate", person="validator", evidence=os.urandom(32))
    assert await refused(crew, plan, signature) == "PLAN_STATE"
    await crew.driven(plan.header.plan_id)


async def test_strangers_and_calls_without_deadline_are_refused(sandbox: Sandbox, crew: Crew) -> None:
    """A certificate of the same authority that nobody configured, and a call that could wait for ever, get nothing."""
    stranger = TlsSettings.model_validate(Authority(sandbox.run.path / "other-certs").issue("client/stranger").settings())
    bare, stub = crew.stub(stranger.model_copy(update={"ca_file": sandbox.tls("coordinator").ca_file}))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.GetPlan(GetPlanRequest(plan_id="x"), timeout=60)
    assert failure.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    await bare.close()
    # A service's certificate is of the right authority, but it is no client of the coordinator.
    bare, stub = crew.stub(sandbox.tls("notary"))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.GetPlan(GetPlanRequest(plan_id="x"), timeout=60)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await bare.close()
    bare, stub = crew.stub()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.GetPlan(GetPlanRequest(plan_id="x"))
    assert from_rpc(failure.value).reason == "DEADLINE_REQUIRED"
    await bare.close()
