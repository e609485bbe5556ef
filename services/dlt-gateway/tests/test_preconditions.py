"""What is proven before a leg is sent and promised: each NO says what was missing and costs no gas, and what a node does not answer is no NO."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from gateway_world import LEG, GatewayWorld, terms_of

from dlt_gateway.operations import leg_terms
from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.artifacts import parse_artifact
from lockstep_contracts.calldata import function
from lockstep_contracts.escrow import PAUSE, UNPAUSE, LegStatus, encode_abort, encode_commit, encode_prepare
from lockstep_contracts.roles import encode_grant_operator
from lockstep_contracts.token import PERMIT, decode_count, encode_allowance, encode_approve, encode_balance_of, encode_mint
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.permits import Permit
from lockstep_kit.statements import Promise, Refusal
from lockstep_sandbox.chain import CHAIN_ID
from lockstep_sandbox.deployment import PAUSER
from lockstep_sandbox.processes import ProgramFailed
from lockstep_testkit.chains import HOLDER, MINTED, SCALE, UNCONTROLLED, UNWILLING, SettlementChain, draw_address
from lockstep_testkit.commands import prepare_request
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import Faults, StrictNode

BLOCKING = parse_artifact((Path(__file__).parents[3] / "contracts/tests/artifacts/BlockingToken.json").read_text())
BLOCKING_SCALE = 18
SIMULATE = "eth_simulateV1"


@dataclass
class Blocking:
    """A token that refuses whom it is told to."""

    chain: SettlementChain
    address: str

    @property
    def asset(self) -> AssetId:
        return AssetId(f"eip155:{CHAIN_ID}/erc20:{self.address}")

    async def block(self, account: str, blocked: bool = True) -> None:
        await self.chain.chain.transact(self.address, function(BLOCKING, "setBlocked").encode(account, blocked))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(settlement_chain: SettlementChain) -> AsyncIterator[StrictNode]:
    async with StrictNode(settlement_chain.chain.node.url) as endpoint:
        yield endpoint


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def blocking(settlement_chain: SettlementChain) -> Blocking:
    chain = settlement_chain.chain
    address = await chain.deploy(BLOCKING.bytecode)
    await chain.transact(address, encode_mint(chain.address(HOLDER), 10**20))
    await chain.transact(address, encode_approve(settlement_chain.escrow, 2**256 - 1), by=HOLDER)
    return Blocking(settlement_chain, address)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]],
    settlement_chain: SettlementChain,
    node: StrictNode,
    blocking: Blocking,
) -> ParticipantProcess:
    return await participant_for(
        "dlt-gateway",
        chain=settlement_chain.settings("dlt-gateway") | {"rpc_urls": [node.url], "request_seconds_max": 1.0},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE, settlement_chain.uncontrolled_asset: SCALE, blocking.asset: BLOCKING_SCALE},
        judge_seconds=0.3,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess, settlement_chain: SettlementChain, node: StrictNode) -> AsyncIterator[GatewayWorld]:
    yield await GatewayWorld.around(service, settlement_chain)
    node.faults = Faults()


def cannot_rehearse(method: str, params: list[Any], result: Any) -> Any:
    """As a node that knows nothing of simulations of several calls."""
    del params
    return [] if method == SIMULATE else result


async def sent(world: GatewayWorld, plan: PlanCase) -> int:
    """Transactions that were ever queued for the plan's leg."""
    async with world.service.database.as_owner() as connection:
        return int(await connection.fetchval("select count(*) from chain_order where plan_id = $1", plan.header.plan_id))


async def assert_refused(world: GatewayWorld, plan: PlanCase, code: str, **changes: Any) -> Refusal:
    """A NO with this code, for which nothing was sent and nothing was taken."""
    before = await world.held(plan)
    found = await world.refusal(world.command(plan, **changes))
    assert (found.reason, found.outside_code) == ("DLT_PREPARE_FAILED", code)
    assert await sent(world, plan) == 0
    assert await world.status(plan) is LegStatus.NONE
    assert await world.held(plan) == before
    return found


@pytest.fixture(params=["rehearsed", "asked one by one"])
def manner(request: pytest.FixtureRequest, node: StrictNode) -> str:
    """Whether the node can simulate."""
    node.faults = Faults(lie=None if request.param == "rehearsed" else cannot_rehearse)
    return str(request.param)


@pytest.mark.usefixtures("manner")
async def test_a_gateway_that_forgot_its_leg_judges_it_as_it_stands(world: GatewayWorld) -> None:
    """A leg that stands on the chain, and that this gateway does not know any more: executed, it is promised and found executed; ended, it is refused."""
    chain = world.chain.chain
    await chain.fund("operator")
    await chain.transact(world.chain.escrow, encode_grant_operator(chain.address("operator")))
    done, ended = world.plan(), world.plan()
    for plan in (done, ended):
        terms = leg_terms(plan.binding(LEG))
        await chain.transact(world.chain.escrow, encode_prepare(terms, world.chain.signature(terms, HOLDER)), by="operator")
    await chain.transact(world.chain.escrow, encode_commit(leg_terms(done.binding(LEG)), done.key(LEG)), by="operator")
    await chain.transact(world.chain.escrow, encode_abort(leg_terms(ended.binding(LEG))), by="operator")
    held = await world.held(done)
    again = await world.harness.prepare(done)
    assert isinstance(world.answer(again), Promise)
    committed = await world.harness.commit(done, again.report)
    assert committed.report.phase == leg_pb2.LEG_PHASE_COMMITTED
    assert isinstance(world.answer(await world.harness.prepare(ended)), Refusal)
    # Nothing is said of what stands in a block that is not final: a transaction finds out.
    assert await sent(world, ended) == 1
    assert await world.held(done) == held
    assert (await world.events(done)).count("Committed") == 1


@pytest.mark.usefixtures("manner")
async def test_what_is_missing_is_named(world: GatewayWorld) -> None:
    """Too few tokens, too small an allowance, a wrong signature: refused before anything is sent."""
    found = await assert_refused(world, world.plan(payer=UNWILLING), "ALLOWANCE_LOW", signer=UNWILLING)
    assert found.detail == "the payer allows the escrow 0 minor units, the leg needs 1000"
    await assert_refused(world, world.plan(MINTED + 1), "BALANCE_LOW")
    await assert_refused(world, world.plan(), "SignatureInvalid", signer=UNWILLING)


@pytest.mark.usefixtures("manner")
async def test_a_paused_escrow(world: GatewayWorld) -> None:
    """While the escrow takes nothing, the answer is NO at once; afterwards it is YES again."""
    chain = world.chain.chain
    await chain.transact(world.chain.escrow, PAUSE.encode(), by=PAUSER)
    try:
        await assert_refused(world, world.plan(), "ESCROW_PAUSED")
    finally:
        await chain.transact(world.chain.escrow, UNPAUSE.encode(), by=PAUSER)
    assert (await world.harness.prepare(world.plan())).verdict == DONE


@pytest.mark.usefixtures("manner")
async def test_a_token_without_code(world: GatewayWorld) -> None:
    """An address at which there is no contract any more is named."""
    address, node = world.chain.chain.tokens[UNCONTROLLED], world.chain.chain.node
    code = await node.call("eth_getCode", address, "latest")
    await node.call("anvil_setCode", address, "0x")
    try:
        plan = world.plan(amount=Amount(world.chain.uncontrolled_asset, 1_000, SCALE))
        found = await world.refusal(world.command(plan))
        assert (found.outside_code, await sent(world, plan)) == ("NO_CODE", 0)
        assert address in found.detail
    finally:
        await node.call("anvil_setCode", address, code)


async def test_a_payee_whom_the_token_does_not_pay(world: GatewayWorld, blocking: Blocking) -> None:
    """A commit that could not pay is no commit: the answer is NO before anything is taken."""
    payee = draw_address()
    await blocking.block(payee)
    found = await assert_refused(world, world.plan(amount=Amount(blocking.asset, 7, BLOCKING_SCALE), payee=payee), "PAYEE_BLOCKED")
    assert payee in found.detail
    await blocking.block(payee, blocked=False)
    plan = world.plan(amount=Amount(blocking.asset, 7, BLOCKING_SCALE), payee=payee)
    assert (await world.harness.prepare(plan)).verdict == DONE


async def test_a_leg_that_cannot_be_held_takes_nothing_from_another(world: GatewayWorld, blocking: Blocking) -> None:
    """Tried out together, the payout of a leg that is not held takes what is held for another: that is no reason to refuse the other."""
    chain = world.chain.chain
    held = decode_count(await chain.node.read(blocking.address, encode_balance_of(world.chain.escrow)))
    good = world.plan(amount=Amount(blocking.asset, 5, BLOCKING_SCALE))
    poor = good
    # The rehearsal takes them in this order.
    while poor.plan_id >= good.plan_id:
        poor = world.plan(amount=Amount(blocking.asset, held + 5, BLOCKING_SCALE), payer=UNWILLING)
    together = prepare_request(world.command(poor, signer=UNWILLING), world.command(good), wait=1.0)
    await world.harness.stub.Prepare(together, timeout=60)
    assert (await world.harness.prepare(good)).verdict == DONE
    assert (await world.refusal(world.command(poor, signer=UNWILLING))).outside_code in ("BALANCE_LOW", "ALLOWANCE_LOW")


async def test_a_payee_is_asked_about_again_when_the_hold_stands(world: GatewayWorld, node: StrictNode, blocking: Blocking) -> None:
    """Where nothing could be rehearsed, the payout is tried out at the block of the hold: the hold is ended first, and then the answer is NO."""
    node.faults = Faults(lie=cannot_rehearse)
    payee = draw_address()
    await blocking.block(payee)
    plan = world.plan(amount=Amount(blocking.asset, 9, BLOCKING_SCALE), payee=payee)
    found = await world.refusal(world.command(plan))
    assert (found.reason, found.outside_code) == ("DLT_PREPARE_FAILED", "Aborted")
    assert await world.events(plan) == ["Prepared", "Aborted"]
    assert await sent(world, plan) == 2


async def test_a_node_that_does_not_answer_is_no_refusal(world: GatewayWorld, node: StrictNode) -> None:
    """Where preconditions cannot be asked about, the transaction finds out, for good and for bad."""
    node.faults = Faults(unanswered=frozenset({SIMULATE}))
    good, bad = world.plan(), world.plan(payer=UNWILLING)
    assert (await world.harness.prepare(good)).verdict == DONE
    found = await world.refusal(world.command(bad, signer=UNWILLING))
    assert found.outside_code == "ERC20InsufficientAllowance"
    assert await sent(world, bad) == 1


@pytest.mark.parametrize("wrong", ["escrow", "tokens"])
async def test_what_is_not_on_the_chain_keeps_the_gateway_from_starting(
    service: ParticipantProcess, settlement_chain: SettlementChain, wrong: str
) -> None:
    """An escrow without code, and decimals that are not the token's, are refused at start, by the settings' names."""
    nobody = draw_address()
    told = {
        "escrow": (nobody, f"escrow must be a contract on the chain; there is none at {nobody}"),
        "tokens": (
            json.dumps({settlement_chain.asset: SCALE + 1}),
            f"tokens.{settlement_chain.asset} must be {SCALE}, as the contract says",
        ),
    }
    value, sentence = told[wrong]
    with pytest.raises(ProgramFailed, match=re.escape(sentence)):
        await service.restart(environ={f"LOCKSTEP_{wrong.upper()}": value})
    await service.restart()


# -- permits -------------------------------------------------------------------------------------------------------------


async def allowance(world: GatewayWorld, plan: PlanCase) -> int:
    calldata = encode_allowance(terms_of(plan).payer, world.chain.escrow)
    return int.from_bytes(await world.chain.chain.node.read(world.chain.token, calldata))


async def permit(world: GatewayWorld, plan: PlanCase, value: int, signer: str = UNWILLING) -> Permit:
    return await world.chain.permit(value, plan.header.deadline + timedelta(hours=1), signer)


@pytest.mark.usefixtures("manner")
async def test_a_permit_is_used_with_the_prepare(world: GatewayWorld) -> None:
    """A payer who sent no transaction is held to exactly what it signed; a commit pays the payee."""
    plan = world.plan(600, payer=UNWILLING)
    payer, _ = await world.held(plan)
    command = world.command(plan, signer=UNWILLING, permit=await permit(world, plan, 600))
    vote = await world.harness.settled(lambda: world.harness.send_prepare(command))
    assert vote.verdict == DONE
    assert await world.held(plan) == (payer - 600, 0)
    assert await allowance(world, plan) == 0
    await world.harness.commit(plan, vote.report)
    assert await world.held(plan) == (payer - 600, 600)


async def test_a_permit_that_somebody_used_first(world: GatewayWorld) -> None:
    """Handed to the token by a stranger before the gateway came: the allowance is there, and the leg is prepared."""
    plan = world.plan(700, payer=UNWILLING)
    signed = await permit(world, plan, 700)
    r, s, v = signed.signature[:32], signed.signature[32:64], signed.signature[64]
    terms = (terms_of(plan).payer, world.chain.escrow, 700, int(signed.deadline.timestamp()), v, r, s)
    await world.chain.chain.transact(world.chain.token, PERMIT.encode(*terms))
    command = world.command(plan, signer=UNWILLING, permit=signed)
    assert (await world.harness.settled(lambda: world.harness.send_prepare(command))).verdict == DONE
    assert await world.status(plan) is LegStatus.PREPARED


@pytest.mark.usefixtures("manner")
async def test_a_permit_of_somebody_else(world: GatewayWorld) -> None:
    """A permit that the payer did not sign gives no allowance: NO, and nothing is sent."""
    plan = world.plan(500, payer=UNWILLING)
    await assert_refused(world, plan, "PERMIT_INVALID", signer=UNWILLING, permit=await permit(world, plan, 500, signer=HOLDER))
