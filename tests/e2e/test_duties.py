"""Four eyes from an amount on, and agents below one: over all services, judged by the bank's book, the databases and the journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import certificate_pb2
from lockstep_client.agent import Conclusion, GateAgent
from lockstep_client.convert import plan_from_pb
from lockstep_client.policies import AssetPolicy, Policy, PolicyEyes
from lockstep_kit.errors import LockstepError
from lockstep_kit.registry_file import load_registry
from lockstep_kit.statements import Gate
from lockstep_sandbox import scene
from lockstep_testkit.crew import Crew, draw_address


def waits(plan: settlement.Plan) -> tuple[int, set[str]]:
    """How many persons the awaited gate still takes, and who can sign."""
    (found,) = (each for each in plan.waiting if each.kind == settlement.WAITING_KIND_GATE)
    return found.signatures_missing, set(found.who)


async def refused(crew: Crew, plan: settlement.Plan, gate: str, person: str) -> str:
    with pytest.raises(LockstepError) as refusal:
        await crew.client.sign_gate(plan.header.plan_id, crew.signature(plan, gate, person=person))
    return refusal.value.reason


async def test_four_eyes_settle_what_is_worth_them(crew: Crew) -> None:
    """From the matrix's amount on two persons approve and two release; participants and journal hold all four signatures."""
    payee = draw_address()
    started = await crew.started(crew.payments(payee=payee, price="50000.00") | {"sod_version": 2})
    plan_id = started.header.plan_id
    plan = await crew.voted(started)
    assert waits(plan) == (2, {"approver", "deputy", "second-approver"})
    assert await refused(crew, plan, "approve", "approver-agent") == "GATE_AGENT"
    plan = await crew.client.sign_gate(plan_id, crew.signature(plan, "approve", person="approver"))
    assert waits(plan) == (1, {"deputy", "second-approver"})
    assert await refused(crew, plan, "approve", "approver") == "GATE_ALREADY_OPEN"
    plan = await crew.client.sign_gate(plan_id, crew.signature(plan, "approve", person="second-approver"))
    assert plan.state == settlement.PLAN_STATE_PREPARED
    assert waits(plan) == (2, {"deputy", "releaser", "second-releaser"})
    plan = await crew.client.sign_gate(plan_id, crew.signature(plan, "release", person="releaser"))
    assert plan.state == settlement.PLAN_STATE_PREPARED
    assert await crew.bookings(plan_id, scene.SELLER.iban) == []
    assert waits(plan) == (1, {"deputy", "second-releaser"})
    await crew.client.sign_gate(plan_id, crew.signature(plan, "release", person="second-releaser"))
    closed = await crew.driven(plan_id, gates=("validate",))
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_COMMITTED
    await crew.assert_settled_once(plan_id, payee, price=50_000_00)
    for service in ("bank-gateway", "dlt-gateway", "notary", "event-journal"):
        async with crew.database(service) as database:
            octets = await database.fetchval("select certificate from participant_leg where plan_id = $1", plan_id)
        certificate = certificate_pb2.DecisionCertificate.FromString(octets)
        assert (len(certificate.further_approvals), len(certificate.further_releases)) == (1, 1)
    told = {each.type: json.loads(each.payload) for each in await crew.entries(plan_id) if each.payload}
    further = [each["actor"] for each in told["plan.approved"]["further_gates"]]
    deciding = [(each["gate"], each["actor"]) for each in told["plan.released"]["decision"]["gates"]]
    assert (told["plan.approved"]["gate"]["actor"], further) == ("second-approver", ["approver"])
    assert deciding == [
        ("MAKE", "maker"),
        ("APPROVE", "approver"),
        ("APPROVE", "second-approver"),
        ("RELEASE", "releaser"),
        ("RELEASE", "second-releaser"),
    ]


async def test_a_first_signature_alone_moves_nothing_and_is_journalled(crew: Crew) -> None:
    """A plan that is stopped before the second approval moved nothing; the first signature is in the journal all the same."""
    payee = draw_address()
    started = await crew.started(crew.payments(payee=payee, price="50000.00") | {"sod_version": 2})
    plan = await crew.voted(started)
    plan_id = plan.header.plan_id
    plan = await crew.client.sign_gate(plan_id, crew.signature(plan, "approve", person="approver"))
    assert plan.state == settlement.PLAN_STATE_READY_FOR_PREPARE
    await crew.client.cancel_plan(plan_id, crew.signature(plan, "cancel", person="maker"))
    await crew.driven(plan_id)
    await crew.assert_nothing_moved(plan_id, payee)
    aborted = next(json.loads(each.payload) for each in await crew.entries(plan_id) if each.type == "plan.aborted" and each.payload)
    assert [(each["gate"], each["actor"]) for each in aborted["further_gates"]] == [("APPROVE", "approver")]
    assert aborted["gate"]["gate"] == "CANCEL"


def agent(crew: Crew, gate: Gate, name: str, folder: Path, policy: Policy) -> GateAgent:
    """An agent with a key, a policy and a registry of its own."""
    key = crew.key(name)
    eyes = PolicyEyes(gate, key.public.key_id, load_registry(crew.configuration.registry_file), policy)
    return GateAgent(crew.client, eyes, key, folder / name, gate=gate)


async def test_agents_settle_a_small_plan_straight_through(crew: Crew, tmp_path: Path) -> None:
    """Below the matrix's amount an approving and a releasing agent sign by their own policy, and nobody for what it does not list."""
    payee = draw_address()
    started = await crew.started(crew.payments(payee=payee) | {"sod_version": 2})
    plan_id = started.header.plan_id
    view = plan_from_pb(started)
    assets = {
        each.leg.terms.amount.asset  # type: ignore[union-attr]  # settling legs have amounts
        for each in view.legs
        if each.leg.settling
    }
    seller = crew.sandbox.chain.address("seller")
    policy = Policy(
        assets=[AssetPolicy(asset=asset, minor_units_max=100_00) for asset in sorted(assets)],
        accounts=[scene.BUYER.iban, scene.SELLER.iban, seller, payee],
    )
    stranger = policy.model_copy(update={"accounts": [scene.BUYER.iban, scene.SELLER.iban, seller]})
    said = await agent(crew, Gate.APPROVE, "approver-agent", tmp_path / "strict", stranger).attend_one(plan_id)
    assert (said.conclusion, {each.rule for each in said.findings}) == (Conclusion.REFUSED, {"POLICY_ACCOUNT"})
    approved = await agent(crew, Gate.APPROVE, "approver-agent", tmp_path, policy).attend_one(plan_id)
    assert approved.conclusion is Conclusion.SIGNED
    released = await agent(crew, Gate.RELEASE, "releaser-agent", tmp_path, policy).attend_one(plan_id)
    assert released.conclusion is Conclusion.SIGNED
    closed = await crew.driven(plan_id, gates=("validate",))
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_COMMITTED
    assert [each.actor_id for each in closed.gates][:3] == ["maker", "approver-agent", "releaser-agent"]
    await crew.assert_settled_once(plan_id, payee)
