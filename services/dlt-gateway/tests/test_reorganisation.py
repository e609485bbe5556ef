"""A chain that takes back a reversal before it is final: nothing is answered too early, and nothing is taken twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest_asyncio
from gateway_world import LEG, GatewayWorld, terms_of

from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.escrow import LegStatus
from lockstep_contracts.token import encode_transfer
from lockstep_testkit import commands
from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.participant_conformance import CALL_SECONDS, DONE
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import StrictNode

FINALITY_DEPTH = 3


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, endpoint: StrictNode
) -> ParticipantProcess:
    """A gateway for which a block is final when three more stand on it."""
    return await participant_for(
        "dlt-gateway",
        chain=settlement_chain.settings("dlt-gateway") | {"rpc_urls": [endpoint.url], "finality_depth": FINALITY_DEPTH},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE},
        reversible=[settlement_chain.asset],
        judge_seconds=0.2,
    )


async def until_status(world: GatewayWorld, plan_digest: bytes, status: LegStatus) -> None:
    """Wait until the newest block says so."""
    for _ in range(6_000):
        if await world.chain.leg_status(plan_digest, LEG) is status:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the leg does not become {status.name}")


async def test_a_reversal_is_taken_back(world: GatewayWorld) -> None:
    """A reversal whose block the chain forgets is not answered, is sent again, and takes the tokens once."""
    plan = world.plan(800)
    before = await world.held(plan)
    async with world.chain.mining():
        done = await world.harness.commit(plan, (await world.harness.prepare(plan)).report)
        assert done.verdict == DONE
    payee = terms_of(plan).payee
    await world.chain.chain.transact(world.chain.token, encode_transfer(payee, 5_000), by="seller")
    command = commands.reverse(plan, LEG)
    await world.harness.stub.Reverse(commands.reverse_request(command), timeout=CALL_SECONDS)
    await until_status(world, plan.header.digest, LegStatus.REVERSED)
    await asyncio.sleep(1)
    report = await world.harness.get(plan)
    assert report is not None
    assert (report.phase, report.HasField("reversal")) == (leg_pb2.LEG_PHASE_REVERSING, False)
    await world.chain.chain.node.call("anvil_reorg", 1, [])
    assert await world.status(plan) is LegStatus.COMMITTED
    async with world.chain.mining():
        answer = await world.harness.settled(lambda: world.harness.send_reverse(command))
    assert (answer.verdict, answer.report.phase) == (DONE, leg_pb2.LEG_PHASE_REVERSED)
    assert await world.events(plan) == ["Prepared", "Committed", "Reversed"]
    assert await world.held(plan) == (before[0] - 5_000, 5_000)
