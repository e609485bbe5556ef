"""What one client, and one plan, may take up: counted in the coordinator's own transaction, refused by the quota's name, and never in another client's way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from coordinator.quotas import QuotaSettings, admit_plan, admit_signature, unspent
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk
from lockstep_kit.statements import Gate, GateStatement, Verdict
from lockstep_testkit.factories import BUYER, SELLER, delivery_versus_payment

SECONDS = 60.0
NOW = datetime(2026, 1, 5, tzinfo=UTC)
TWO = dict.fromkeys(
    ("test", "other"), CallerSettings(methods=("*",), parties=(BUYER.party_id, SELLER.party_id), desk=Desk.OPERATOR)
)
TIGHT = QuotaSettings(open_plans_max=3, plans_per_minute=6, gate_signatures_max=8)


async def refused(call: Any) -> LockstepError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if hasattr(call, "read") else call)
    return from_rpc(caught.value)


def test_so_many_plans_a_minute() -> None:
    """A minute's worth of plans at once, then one each ten seconds; the refusal says when, and a refused one costs nothing."""
    left = unspent(TIGHT, NOW)
    for _ in range(6):
        left = admit_plan(TIGHT, 0, left, NOW)
    for _ in range(2):
        with pytest.raises(LockstepError) as caught:
            admit_plan(TIGHT, 0, left, NOW)
        assert caught.value.reason == "QUOTA_PLANS_PER_MINUTE"
        assert caught.value.retry_after == timedelta(seconds=10)
    left = admit_plan(TIGHT, 0, left, NOW + timedelta(seconds=10.001))
    with pytest.raises(LockstepError):
        admit_plan(TIGHT, 0, left, NOW + timedelta(seconds=10.001))


def test_open_plans() -> None:
    """At the quota of open plans nothing more is created, however long ago the last was."""
    admit_plan(TIGHT, 2, unspent(TIGHT, NOW), NOW)
    with pytest.raises(LockstepError) as caught:
        admit_plan(TIGHT, 3, unspent(TIGHT, NOW), NOW)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_OPEN_PLANS")
    assert caught.value.retry_after is not None


def test_only_what_may_be_repeated_is_turned_away() -> None:
    """At the quota of signatures approvals are refused; a reject, a cancel and a validation are always taken, so that no plan hangs."""

    def statement(gate: Gate, verdict: Verdict) -> GateStatement:
        return GateStatement(gate=gate, verdict=verdict, plan_digest=b"d" * 32, nonce=b"n" * 16, expires_at=NOW)  # type: ignore[arg-type]

    for gate in (Gate.APPROVE, Gate.RELEASE):
        admit_signature(TIGHT, 7, statement(gate, Verdict.APPROVE))
        with pytest.raises(LockstepError) as caught:
            admit_signature(TIGHT, 8, statement(gate, Verdict.APPROVE))
        assert caught.value.reason == "QUOTA_GATE_SIGNATURES"
        admit_signature(TIGHT, 8, statement(gate, Verdict.REJECT))
    admit_signature(TIGHT, 8, statement(Gate.CANCEL, Verdict.APPROVE))
    admit_signature(TIGHT, 8, statement(Gate.VALIDATE, Verdict.APPROVE))


async def test_open_plans_are_counted_in_the_transaction(world: Any) -> None:
    """Plans that are created all at once never pass the quota; a refused one leaves nothing; a closed one makes room."""
    async with world.coordinator(quotas=QuotaSettings(open_plans_max=3)):
        plans = [delivery_versus_payment() for _ in range(8)]
        answers = await asyncio.gather(*(world.create(each) for each in plans), return_exceptions=True)
        errors = [from_rpc(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert {(each.code, each.reason, each.metadata["quota"]) for each in errors} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_OPEN_PLANS", "3")
        }
        assert len(errors) == 5
        assert all(each.retry_after is not None for each in errors)
        assert len(await world.rows("select from plan")) == len(await world.rows("select from open_plan")) == 3
        assert len(await world.rows("select from request")) == 3
        made = next(plan for plan, answer in zip(plans, answers, strict=True) if not isinstance(answer, BaseException))
        await world.cancel(made)
        await world.reaches(made, "CLOSED")
        await world.create(delivery_versus_payment())
        one_more = world.creation(delivery_versus_payment())
        assert (await refused(world.api.CreatePlan(one_more, timeout=SECONDS))).reason == "QUOTA_OPEN_PLANS"


async def test_one_clients_quota_is_not_anothers(world: Any) -> None:
    """A client that has used up its minute's plans is told when to come again, asks as often as it likes without harm, and another goes on."""
    async with world.coordinator(quotas=QuotaSettings(plans_per_minute=2), clients=TWO, operators={}):
        for _ in range(2):
            await world.create(delivery_versus_payment())
        request = world.creation(delivery_versus_payment())
        error = await refused(world.api.CreatePlan(request, timeout=SECONDS))
        assert error.reason == "QUOTA_PLANS_PER_MINUTE"
        assert error.retry_after is not None
        assert timedelta(seconds=1) < error.retry_after <= timedelta(seconds=30)
        other = world.stub(world.port, "spiffe://lockstep.local/client/other")
        await other.CreatePlan(request, timeout=SECONDS)
        # A request that is another client's is refused as such, and counts for nothing.
        assert (await refused(world.api.CreatePlan(request, timeout=SECONDS))).reason == "REQUEST_ID_REUSED"
        rows = await world.rows("select client, unspent from client_quota order by client")
        assert [row["client"].rpartition("/")[2] for row in rows] == ["other", "test"]
        assert rows[1]["unspent"] < 1 <= rows[0]["unspent"]


async def test_calls_and_watches_of_one_plan(world: Any) -> None:
    """One client asks about one plan so often and watches it so many times; another client, and other plans, are not touched."""
    quotas = QuotaSettings(plan_requests_per_second=0.5, plan_watches_max=2)
    async with world.coordinator(quotas=quotas, clients=TWO, operators={}):
        one, two = delivery_versus_payment(), delivery_versus_payment()
        await asyncio.gather(world.create(one), world.create(two))
        watch = messages.WatchPlanRequest(plan_id=one.plan_id)
        streams = [world.api.WatchPlan(watch, timeout=SECONDS) for _ in range(2)]
        for stream in streams:
            await stream.read()
        assert (await refused(world.api.WatchPlan(watch, timeout=SECONDS))).reason == "QUOTA_PLAN_WATCHES"
        reasons = set()
        for _ in range(12):
            try:
                await world.get(one)
            except grpc.aio.AioRpcError as error:
                reasons.add(from_rpc(error).reason)
        assert reasons == {"QUOTA_PLAN_REQUESTS"}
        await world.get(two)
        other = world.stub(world.port, "spiffe://lockstep.local/client/other")
        await other.GetPlan(messages.GetPlanRequest(plan_id=one.plan_id), timeout=SECONDS)
        for stream in streams:
            stream.cancel()
        of_all = [world.api.WatchPlans(messages.WatchPlansRequest(), timeout=SECONDS) for _ in range(2)]
        for stream in of_all:
            await stream.read()
        too_many = await refused(world.api.WatchPlans(messages.WatchPlansRequest(), timeout=SECONDS))
        assert (too_many.reason, too_many.metadata["quota"]) == ("QUOTA_PLAN_WATCHES", "2")
        for stream in of_all:
            stream.cancel()
