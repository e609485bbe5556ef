"""Unwinding a plan over gRPC, with real databases: who is told what, what is kept, and how the plan ends."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep.participant.v1 import leg_pb2
from lockstep_kit.convert import outcome_from_pb, resolution_to_pb
from lockstep_kit.fence import Finding
from lockstep_kit.participant.ports import AssetCapability, Completion
from lockstep_kit.plan import Policy
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.reversals import order_digest
from lockstep_kit.rpc import channel
from lockstep_kit.statements import OutcomeKind, Refusal
from lockstep_testkit.factories import PlanCase, delivery_versus_payment, key_of, token_terms

CLIENT = "spiffe://lockstep.local/client/test"
DEADLINE_SECONDS = 60.0
BROKEN = Refusal("BANK_EXECUTE_FAILED", "AC06", "the account is blocked")
UNWINDS = Policy(unwind_automatically=True)
TOKEN = token_terms().amount


async def partial(world: Any, plan: PlanCase | None = None) -> PlanCase:
    """A plan whose tokens moved, and whose bank then broke its promise."""
    bank = world.parties["bank-gateway"]
    plan = await world.started(plan)
    await world.reaches(plan, "PREPARED")
    bank.operations.at_once = False
    await world.release(plan)
    await world.until(plan, lambda found: found.legs[0].phase == leg_pb2.LEG_PHASE_COMMITTED and len(bank.operations.begun) == 2)
    work = bank.operations.begun[1]
    async with bank.db.transaction() as tx:
        await bank.engine.complete(tx, [Completion(work.plan_id, work.leg_id, Finding.REFUSED, refusal=BROKEN)])
    bank.operations.at_once = True
    return plan


async def order(world: Any, plan: PlanCase, *, seconds: float = 600, detail: str = "take it back") -> None:
    """Two operators order the unwind, by whichever ticket of the plan is open."""
    made = channel(f"127.0.0.1:{world.port}", world.tls_for(CLIENT))
    try:
        stub = OperatorServiceStub(made)
        open_tickets: list[messages.EscalationFile] = []
        for _ in range(3000):
            asked = messages.ListEscalationsRequest(plan_id=plan.plan_id)
            open_tickets = list((await stub.ListEscalations(asked, timeout=DEADLINE_SECONDS)).escalations)
            if open_tickets:
                break
            await asyncio.sleep(0.02)
        escalation_id = open_tickets[0].escalation.escalation_id
        resolution = Resolution(plan.header.digest, escalation_id, Verb.REVERSE, detail=detail)
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        for who in ("erin", "frank"):
            signed = sign_resolution(ResolutionStatement(resolution, os.urandom(16), until), key_of(who))
            request = messages.SignResolutionRequest(request_id=str(uuid.uuid4()), signature=resolution_to_pb(signed))
            answer = await world.again(stub.SignResolution, request)
        assert answer.took_effect
    finally:
        await made.close()


def reversal_of(found: settlement_pb2.Plan, leg_id: str) -> settlement_pb2.PlanLeg:
    """A leg as clients see it."""
    leg: settlement_pb2.PlanLeg = next(each for each in found.legs if each.leg.leg_id == leg_id)
    return leg


async def test_what_was_executed_is_reversed(world: Any) -> None:
    """By two operators' order the tokens come back; the plan is ABORTED and closes as REVERSED, with the signed reversal for all to see."""
    async with world.coordinator():
        plan = await partial(world)
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        await order(world, plan)
        found = await world.reaches(plan, "CLOSED")
        leg = reversal_of(found, "tokens")
        assert (leg.phase, outcome_from_pb(leg.outcome).outcome.kind) == (leg_pb2.LEG_PHASE_REVERSED, OutcomeKind.DONE)
        signed = outcome_from_pb(leg.reversal)
        assert signed.outcome.kind is OutcomeKind.REVERSED
    rows = await world.rows("select outcome, decision from plan where plan_id = $1", plan.plan_id)
    assert [tuple(row) for row in rows] == [("REVERSED", "COMMIT")]
    assert await world.parties["dlt-gateway"].phases(plan) == {"tokens": "REVERSED"}
    assert await world.parties["bank-gateway"].phases(plan) == {"cash": "REFUSED"}
    (told,) = [each for each in world.journal.payloads(plan) if "reversal" in each.get("leg", {})]
    assert told["leg"]["reversal"]["kind"] == "REVERSED"
    assert world.journal.types(plan).count("leg.reversed") == 1
    pending = await world.rows("select from leg_command where plan_id = $1 and not answered", plan.plan_id)
    assert pending == []


async def test_a_refused_reversal_calls_people(world: Any) -> None:
    """A reversal that is refused brings the plan back to PARTIALLY_EXECUTED with a ticket; another order can then succeed."""
    dlt = world.parties["dlt-gateway"].operations
    async with world.coordinator():
        plan = await partial(world)
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        dlt.irreversible.add("tokens")
        await order(world, plan)
        await world.until(plan, lambda found: any(each.reason == "REVERSAL_REFUSED" for each in found.escalations))
        found = await world.reaches(plan, "PARTIALLY_EXECUTED")
        first = outcome_from_pb(reversal_of(found, "tokens").reversal).outcome
        assert first.kind is OutcomeKind.REVERSAL_REFUSED
        dlt.irreversible.clear()
        await order(world, plan, detail="now it can be")
        found = await world.reaches(plan, "CLOSED")
        second = outcome_from_pb(reversal_of(found, "tokens").reversal).outcome
        assert (second.kind, second.order != first.order) == (OutcomeKind.REVERSED, True)


async def test_the_policy_unwinds_by_itself(world: Any) -> None:
    """A plan whose signed policy says so is unwound without operators, by the bank's own signed refusal."""
    dlt = world.parties["dlt-gateway"].operations
    dlt.assets = (AssetCapability(TOKEN.asset, TOKEN.scale, reversible=True),)
    async with world.coordinator():
        plan = await partial(world, delivery_versus_payment(policy=UNWINDS))
        await world.reaches(plan, "CLOSED")
    assert not await world.rows("select from resolution")
    rows = await world.rows("select outcome, unwound_by_policy from plan where plan_id = $1", plan.plan_id)
    assert [tuple(row) for row in rows] == [("REVERSED", True)]
    assert await world.parties["dlt-gateway"].phases(plan) == {"tokens": "REVERSED"}


@pytest.mark.parametrize("told", ["before", "after"])
async def test_a_policy_that_cannot_be_carried_out(world: Any, told: str) -> None:
    """A plan that says it unwinds by itself is refused where its token can never be taken back, at the latest before anything is prepared."""
    dlt = world.parties["dlt-gateway"].operations
    dlt.assets = (AssetCapability(TOKEN.asset, TOKEN.scale, reversible=True),)
    plan = delivery_versus_payment(policy=UNWINDS)
    async with world.coordinator():
        if told == "before":
            dlt.assets = (AssetCapability(TOKEN.asset, TOKEN.scale),)
        await world.create(plan)
        dlt.assets = (AssetCapability(TOKEN.asset, TOKEN.scale),)
        await asyncio.sleep(1)
        await world.execute(plan)
        found = await world.reaches(plan, "ABORTED")
    assert found.reason == "UNWIND_IMPOSSIBLE"
    assert await world.parties["dlt-gateway"].phases(plan) == {}


async def test_an_order_that_ran_out_on_the_way(world: Any, clocks: Any) -> None:
    """An order that expires before its participant hears of it reverses nothing; operators order anew, and the plan is unwound."""
    dlt = world.parties["dlt-gateway"]
    async with world.coordinator():
        plan = await partial(world)
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        await dlt.down()
        await order(world, plan, seconds=120)
        await world.reaches(plan, "UNWIND_PENDING")
        await clocks.go_on(timedelta(seconds=120))
        await dlt.up()
        for _ in range(3000):
            rows = await world.rows(
                "select last_rejection from leg_command where plan_id = $1 and command = 'REVERSE'", plan.plan_id
            )
            if rows[0]["last_rejection"]:
                break
            await asyncio.sleep(0.02)
        assert rows[0]["last_rejection"] == "RESOLUTION_EXPIRED"
        assert await dlt.phases(plan) == {"tokens": "COMMITTED"}
        await order(world, plan, detail="once more, in time")
        await world.reaches(plan, "CLOSED")
    assert await dlt.phases(plan) == {"tokens": "REVERSED"}


async def test_a_silent_reversal_survives_the_coordinator(world: Any) -> None:
    """A coordinator that dies while a reversal is under way: the next one hears of it, orders nothing twice, and closes the plan."""
    dlt = world.parties["dlt-gateway"]
    async with world.coordinator(crash=True):
        plan = await partial(world)
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        dlt.operations.at_once = False
        await order(world, plan)
        await world.until(plan, lambda found: reversal_of(found, "tokens").phase == leg_pb2.LEG_PHASE_REVERSING)
    begun = len(dlt.operations.begun)
    await dlt.find(dlt.operations.begun[-1])
    dlt.operations.at_once = True
    async with world.coordinator():
        found = await world.reaches(plan, "CLOSED")
    assert outcome_from_pb(reversal_of(found, "tokens").reversal).outcome.kind is OutcomeKind.REVERSED
    assert len([each for each in dlt.operations.begun if each.leg_id == "tokens"]) == begun


def test_orders_have_names() -> None:
    """Two orders of the same operators about the same are two orders."""
    plan = delivery_versus_payment()
    assert order_digest(plan.reversal()) != order_digest(plan.reversal())
