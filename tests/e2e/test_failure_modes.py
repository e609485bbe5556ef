"""What must work as named when something fails half-way: judged by the chain, the bank's book, the databases and the journal."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest_asyncio

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_client.making import create
from lockstep_client.operators import OperatorClient
from lockstep_contracts import token
from lockstep_kit import ids
from lockstep_kit.convert import VERBS
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.statements import Verdict
from lockstep_sandbox import outside, scene
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew, draw_address

SECONDS_MAX = 180.0
LOOK_SECONDS = 0.1


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def desk(sandbox: Sandbox) -> AsyncIterator[OperatorClient]:
    """Operators at their desk."""
    async with OperatorClient(sandbox.address("coordinator"), sandbox.tls(CLIENT)) as client:
        yield client


async def ticket(desk: OperatorClient, plan_id: str, reason: str) -> operators.EscalationFile:
    """The open escalation of a plan with that reason, once it is there."""
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        found = [each async for each in desk.list_escalations(plan_id=plan_id)]
        for each in found:
            if each.escalation.reason == reason:
                return each
        assert time.monotonic() < give_up, found
        await asyncio.sleep(LOOK_SECONDS)


async def resolved(crew: Crew, desk: OperatorClient, file: operators.EscalationFile, verb: Verb, detail: str) -> None:
    """Two operators sign the same; it takes effect with the second."""
    resolution = Resolution(Digest(file.plan_digest), file.escalation.escalation_id, verb, detail=detail)
    told = []
    for person in ("operator-one", "operator-two"):
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        statement = ResolutionStatement(resolution, secrets.token_bytes(NONCE_BYTES), expires_at)
        told.append((await desk.sign_resolution(sign_resolution(statement, crew.key(person)))).took_effect)
    assert told == [False, True]


def verbs(file: operators.EscalationFile) -> set[str]:
    return {VERBS[each.verb].value for each in file.options}


async def held(sandbox: Sandbox) -> int:
    """Money that the bank holds for plans, in minor units."""
    audit = await outside.bank(sandbox, "/audit")
    assert audit["violations"] == []
    return sum(int(each["held_minor"]) for each in audit["currencies"].values())


async def until(what: Any, holds: Any) -> Any:
    """What is found once it holds."""
    give_up = time.monotonic() + SECONDS_MAX
    while not holds(found := await what()):
        assert time.monotonic() < give_up, found
        await asyncio.sleep(LOOK_SECONDS)
    return found


def phase(plan: settlement.Plan, leg_id: str) -> str:
    leg = next(each for each in plan.legs if each.leg.leg_id == leg_id)
    return leg_pb2.LegPhase.Name(leg.phase).removeprefix("LEG_PHASE_")


@asynccontextmanager
async def without_allowance(sandbox: Sandbox) -> AsyncIterator[None]:
    """The seller has withdrawn the escrow's allowance meanwhile."""
    escrow, bond = sandbox.chain.contracts["SettlementEscrow"], sandbox.chain.tokens[scene.BOND.symbol]
    await sandbox.chain.transact(bond, token.encode_approve(escrow, 0), by="seller")
    try:
        yield
    finally:
        await sandbox.chain.transact(bond, token.encode_approve(escrow, 2**256 - 1), by="seller")


async def test_the_chain_leg_fails_after_the_banks_hold(sandbox: Sandbox, crew: Crew) -> None:
    """Failure mode A: the chain refuses once the bank holds the money; the plan is aborted, the hold released, nothing moved."""
    payee = draw_address()
    await crew.settled(crew.payments())
    before = await held(sandbox)
    await sandbox.supervisor.stop("dlt-gateway")
    try:
        plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
        await until(lambda: crew.client.get_plan(plan_id), lambda plan: phase(plan, "cash") == "PREPARED")
        assert await held(sandbox) == before + 100_00
        async with without_allowance(sandbox):
            await sandbox.supervisor.restart("dlt-gateway")
            closed = await crew.driven(plan_id)
    finally:
        if not sandbox.supervisor.is_running("dlt-gateway"):
            await sandbox.supervisor.restart("dlt-gateway")
    assert (closed.outcome, closed.reason, closed.reason_leg_id) == (leg_pb2.PLAN_OUTCOME_ABORTED, "DLT_PREPARE_FAILED", "bonds")
    assert "ALLOWANCE_LOW" in closed.reason_detail
    assert await held(sandbox) == before
    await crew.assert_nothing_moved(plan_id, payee)
    assert not closed.escalations


def two_payments(crew: Crew, payee: str, buyer: scene.Holder = scene.BUYER, thousands: str = "") -> dict[str, Any]:
    """A delivery against two payments whose holds both end: their signers accept that one may be kept and the other not."""
    document = crew.payments(payee=payee, buyer=buyer, price=f"60{thousands}.00")
    other: dict[str, Any] = json.loads(json.dumps(document["legs"][1])) | {"id": "fee"}
    other["credit_transfer"]["amount"] = f"40{thousands}.00"
    document["legs"].append(other)
    document["policy"] = {"accept_expiry_risk": True}
    return document


async def test_the_bank_breaks_one_of_two_promises(sandbox: Sandbox, crew: Crew, desk: OperatorClient, tmp_path: Path) -> None:
    """Failure mode B: the bank refuses one leg after the other took effect; operators see the money at risk, and say how it was settled."""
    payee = draw_address()
    plan_id = (await crew.started(two_payments(crew, payee))).header.plan_id
    await crew.awaiting(plan_id, "release")
    uetr = uetr_of(plan_id, "fee")
    await outside.bank_command(sandbox, "/misbehaviours", {"kind": "refuse", "stage": "release", "reason": "AC06", "uetr": uetr})
    await crew.driven(plan_id, until=("PARTIALLY_EXECUTED",))
    plan = await until(lambda: crew.client.get_plan(plan_id), lambda plan: phase(plan, "cash") == "COMMITTED")
    assert (phase(plan, "fee"), phase(plan, "bonds")) == ("REFUSED", "PREPARED")
    assert await crew.bookings(plan_id, scene.SELLER.iban) == [60_00]
    assert await crew.bookings(plan_id, scene.SELLER.iban, "fee") == []

    file = await ticket(desk, plan_id, plan.reason)
    # What is held is let go before anything is settled outside.
    assert verbs(file) == {"RETRY", "REVERSE"}
    assert [(each.asset, each.minor_units) for each in file.at_risk if each.asset == scene.CURRENCY] == [("EUR", "6000")]
    totals, legs = await desk.list_in_doubt()
    mine = {
        each.leg_id: operators.DoubtKind.Name(each.kind).removeprefix("DOUBT_KIND_") for each in legs if each.plan_id == plan_id
    }
    assert mine == {"cash": "EXECUTED_ALONE", "bonds": "HELD"}
    assert scene.CURRENCY in {each.amount.asset for each in totals}

    # By the command, as operators do it.
    document = await printed(sandbox, "escalations", "show", file.escalation.escalation_id)
    assert {each["verb"] for each in document["options"]} == verbs(file)
    told = []
    for person in ("operator-one", "operator-two"):
        key = sandbox.keys[person].private_file
        options = ("--verb", "reverse", "--detail", "the seller does not want half of its price", "--key", str(key))
        told.append((await printed(sandbox, "escalations", "sign", file.escalation.escalation_id, *options))["took_effect"])
    assert told == [False, True]
    stays = await ticket(desk, plan_id, "REVERSAL_REFUSED")
    assert stays.escalation.leg_id == "cash"
    await until(lambda: crew.client.get_plan(plan_id), lambda plan: phase(plan, "bonds") == "RELEASED")
    stays = await ticket(desk, plan_id, "REVERSAL_REFUSED")
    assert verbs(stays) == {"RETRY", "REVERSE", "RESOLVE"}
    await resolved(crew, desk, stays, Verb.RESOLVE, "the seller pays back what it got")
    closed = await crew.driven(plan_id)
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_MIXED
    types = [each.type for each in await crew.entries(plan_id)]
    assert types[-1] == "plan.closed"
    assert {"exception.raised", "exception.resolved"} <= set(types)
    # MIXED for ever, and the ticket is open until operators close it.
    for each in (file, stays):
        await resolved(crew, desk, each, Verb.FORGET, "booked by hand on both sides")
    assert [each async for each in desk.list_escalations(plan_id=plan_id)] == []
    assert (await crew.client.get_plan(plan_id)).outcome == leg_pb2.PLAN_OUTCOME_MIXED


async def test_the_bank_breaks_the_one_promise_that_can_lapse(sandbox: Sandbox, crew: Crew) -> None:
    """Failure mode B where the bank decides: it is commanded alone and first, so that its refusal gives the plan up whole."""
    payee, before = draw_address(), await held(sandbox)
    plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
    await crew.awaiting(plan_id, "release")
    await outside.bank_command(
        sandbox, "/misbehaviours", {"kind": "refuse", "stage": "release", "reason": "AC06", "uetr": uetr_of(plan_id, "cash")}
    )
    closed = await crew.driven(plan_id)
    assert (closed.outcome, closed.reason, closed.reason_leg_id) == (leg_pb2.PLAN_OUTCOME_ABORTED, "BANK_COMMIT_FAILED", "cash")
    assert await held(sandbox) == before
    await crew.assert_nothing_moved(plan_id, payee)
    assert not closed.escalations


async def test_the_bank_takes_back_its_word(sandbox: Sandbox, crew: Crew, desk: OperatorClient) -> None:
    """Failure mode B once the tokens have moved: people are called at once, the tokens are taken back, and what the bank keeps is settled by hand."""
    payee, seller = draw_address(), sandbox.chain.address("seller")
    before = await outside.token_balance(sandbox, scene.BOND.symbol, seller)
    plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
    waiting = await crew.awaiting(plan_id, "release")
    uetr = uetr_of(plan_id, "cash")
    script = {"kind": "contradict", "stage": "release", "reason": "AC06", "delay_ms": 3_600_000, "uetr": uetr}
    await outside.bank_command(sandbox, "/misbehaviours", script)
    async with crew.paused_validator():
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
        await crew.awaiting(plan_id, "validate")
        assert await outside.token_balance(sandbox, scene.BOND.symbol, payee) == 10_00
        # What the bank would say an hour later it says now.
        assert await outside.bank_command(sandbox, f"/payments/{uetr}/deliver", {}) == {"delivered": 1}
        await until(lambda: crew.client.get_plan(plan_id), lambda plan: plan.state == settlement.PLAN_STATE_PARTIALLY_EXECUTED)
    file = await ticket(desk, plan_id, "EVIDENCE_CONTRADICTED")
    assert file.escalation.leg_id == "cash"
    assert len(file.at_risk) == 2
    await resolved(crew, desk, file, Verb.REVERSE, "the bank says that it did not pay")
    refused = await ticket(desk, plan_id, "REVERSAL_REFUSED")
    await until(lambda: crew.client.get_plan(plan_id), lambda plan: phase(plan, "bonds") == "REVERSED")
    assert await outside.token_balance(sandbox, scene.BOND.symbol, payee) == 0
    assert await outside.token_balance(sandbox, scene.BOND.symbol, seller) == before
    assert await crew.bookings(plan_id, scene.SELLER.iban) == [100_00]
    await resolved(crew, desk, refused, Verb.RESOLVE, "the seller pays the money back by another transfer")
    closed = await crew.driven(plan_id)
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_MIXED
    for each in (file, refused):
        await resolved(crew, desk, each, Verb.FORGET, "settled by hand")


def uetr_of(plan_id: str, leg_id: str) -> str:
    """Under which the bank knows a payment."""
    return str(ids.uetr(ids.plan_id(plan_id), ids.leg_id(leg_id)))


async def printed(sandbox: Sandbox, *arguments: str) -> Any:
    """What the `lockstep` command prints for programs."""
    code, out, errors = await lockstep(*arguments, "--json", sandbox=sandbox, seconds_max=SECONDS_MAX)
    assert code == 0, errors
    return json.loads(out)


async def test_the_liquidity_provider_denies_credit(sandbox: Sandbox, crew: Crew) -> None:
    """Failure mode C: credit is lent for one payment and denied for the next; the plan is aborted, every hold released, nothing is owed."""
    payee, before = draw_address(), await held(sandbox)
    draft = crew.draft(two_payments(crew, payee, scene.BORROWER, "000"))
    plan = await create(crew.client, draft, crew.key("maker"))
    plan_id = plan.header.plan_id
    uetr = uetr_of(plan_id, "fee")
    await outside.bank_command(sandbox, "/misbehaviours", {"kind": "deny_credit", "uetr": uetr})
    await crew.executed(plan)
    closed = await crew.driven(plan_id)
    assert (closed.outcome, closed.reason, closed.reason_leg_id) == (leg_pb2.PLAN_OUTCOME_ABORTED, "LIQUIDITY_DENIED", "fee")
    assert await held(sandbox) == before
    lines = (await outside.bank(sandbox, "/book"))["credit_lines"]
    assert [each["drawn_minor"] for each in lines if each["account"] == scene.BORROWER.iban] == [0]
    assert await crew.transfers_to(payee) == []
    assert (
        sum(await crew.bookings(plan_id, scene.BORROWER.iban)) == sum(await crew.bookings(plan_id, scene.BORROWER.iban, "fee")) == 0
    )
    assert await crew.bookings(plan_id, scene.SELLER.iban) == []


def tokens_alone(crew: Crew, payee: str) -> dict[str, Any]:
    """A delivery for nothing: every leg of it can be reversed."""
    document = crew.payments(payee=payee)
    del document["legs"][1]
    return document


async def test_operators_have_a_delivery_reversed(sandbox: Sandbox, crew: Crew, desk: OperatorClient) -> None:
    """Failure mode B where the token can be reversed: two operators sign, the tokens go back to their payer, and the plan closes as REVERSED."""
    payee, seller = draw_address(), sandbox.chain.address("seller")
    before = await outside.token_balance(sandbox, scene.BOND.symbol, seller)
    document = tokens_alone(crew, payee)
    plan_id = (await crew.started(document)).header.plan_id
    waiting = await crew.awaiting(plan_id, "release")
    # A validator who looks first, and is not convinced.
    async with crew.paused_validator():
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
        plan = await crew.awaiting(plan_id, "validate")
        assert await outside.token_balance(sandbox, scene.BOND.symbol, payee) == 10_00
        refusal = crew.signature(plan, "validate", person="validator", verdict=Verdict.REJECT)
        await crew.client.sign_gate(plan_id, refusal)
    file = await ticket(desk, plan_id, "EVIDENCE_REJECTED")
    assert {each.leg_id for each in (await desk.get_escalation(file.escalation.escalation_id)).legs} == {"bonds"}
    await resolved(crew, desk, file, Verb.REVERSE, "delivered to the wrong buyer")
    closed = await crew.driven(plan_id)
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_REVERSED
    assert await outside.token_balance(sandbox, scene.BOND.symbol, payee) == 0
    assert await outside.token_balance(sandbox, scene.BOND.symbol, seller) == before
    assert "leg.reversed" in [each.type for each in await crew.entries(plan_id)]
    await resolved(crew, desk, file, Verb.FORGET, "reversed")
