"""A plan whose last leg is an undertaking that the bank issues: everything takes effect and it comes last, or nothing does and its draft is withdrawn."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_client.convert import state_name
from lockstep_kit import ids
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.statements import Gate
from lockstep_sandbox import outside, scene
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.checker import collect, judge
from lockstep_testkit.crew import Crew, draw_address

IN_A_YEAR = (datetime.now(UTC).date() + timedelta(days=365)).isoformat()


def secured(crew: Crew, payee: str, **changes: Any) -> dict[str, Any]:
    """Bonds against money, and a standby letter of credit beside them."""
    document = crew.payments(payee=payee)
    # First in the plan, so that nothing but its kind makes it the last.
    document["legs"].insert(0, scene.guarantee(amount="25000.00", expiry_date=IN_A_YEAR) | changes)
    return document


async def undertaking(sandbox: Sandbox, plan: settlement.Plan) -> dict[str, Any]:
    reference = ids.uetr(PlanId(plan.header.plan_id), LegId("guarantee"))
    (found,) = (await outside.bank(sandbox, "/undertakings", uetr=reference))["undertakings"]
    return dict(found)


async def executed(crew: Crew, plan: settlement.Plan) -> list[str]:
    """Legs in the order of their execution, as the journal has it."""
    entries = await crew.entries(PlanId(plan.header.plan_id))
    return [json.loads(entry.payload)["leg"]["leg_id"] for entry in entries if entry.type == "leg.executed"]


async def violations(sandbox: Sandbox, plan: settlement.Plan) -> list[str]:
    """What the checker finds wrong with a plan; what other tests did to the same sandbox is theirs."""
    judgement = judge(await collect(sandbox, focus=[plan.header.plan_id]))
    return [
        f"{each.invariant} {each.leg_id} {each.sentence}" for each in judgement.violations if each.plan_id == plan.header.plan_id
    ]


async def test_settles_with_the_instrument_last(sandbox: Sandbox, crew: Crew) -> None:
    """Money, tokens and undertaking take effect, each once and the undertaking last; validator and checker find all of it outside."""
    payee = draw_address()
    plan = await crew.settled(secured(crew, payee))
    assert (state_name(plan.state), plan.outcome) == ("CLOSED", leg_pb2.PLAN_OUTCOME_COMMITTED)
    await crew.assert_settled_once(plan.header.plan_id, payee)
    order = await executed(crew, plan)
    assert (sorted(order), order[-1]) == (["bonds", "cash", "guarantee"], "guarantee")
    told = await undertaking(sandbox, plan)
    (leg,) = (each for each in plan.legs if each.leg.leg_id == "guarantee")
    evidence = leg.outcome.evidence.instrument
    assert (told["state"], told["number"], told["advised_to"]) == ("ISSUED", evidence.undertaking_number, scene.BANK_BIC)
    assert told["issuance_sha256"] == evidence.issuance_sha256.hex()
    assert await violations(sandbox, plan) == []


async def test_aborts_with_the_draft_withdrawn(sandbox: Sandbox, crew: Crew) -> None:
    """A plan that is cancelled once everything is prepared leaves no draft, and the applicant's facility is whole."""
    payee = draw_address()
    plan = await crew.started(secured(crew, payee))
    waiting = await crew.awaiting(plan.header.plan_id, "release")
    assert (await undertaking(sandbox, plan))["state"] == "LODGED"
    await crew.client.cancel_plan(plan.header.plan_id, crew.signature(waiting, Gate.CANCEL.name.lower(), person="maker"))
    closed = await crew.driven(plan.header.plan_id)
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_ABORTED
    assert (await undertaking(sandbox, plan))["state"] == "WITHDRAWN"
    await crew.assert_nothing_moved(plan.header.plan_id, payee, scene.BUYER)
    assert await violations(sandbox, plan) == []


async def test_a_facility_that_does_not_suffice_aborts_the_plan(sandbox: Sandbox, crew: Crew) -> None:
    """The bank's NO to the draft aborts everything; neither tokens nor money moved."""
    payee = draw_address()
    document = secured(crew, payee)
    document["legs"][0]["issue_instrument"]["amount"] = "99000000.00"
    plan = await crew.settled(document)
    assert plan.outcome == leg_pb2.PLAN_OUTCOME_ABORTED
    assert (await undertaking(sandbox, plan))["state"] == "REJECTED"
    await crew.assert_nothing_moved(plan.header.plan_id, payee, scene.BUYER)
