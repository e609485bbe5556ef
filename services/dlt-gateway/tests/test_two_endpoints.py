"""A gateway over two endpoints of its chain, of which one lies about the escrow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio
from gateway_world import GatewayWorld
from test_reorganisation import until_status

from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.escrow import LegStatus
from lockstep_kit.statements import Promise
from lockstep_testkit import commands, strict_node
from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.participant_conformance import CALL_SECONDS, DONE
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import Faults, StrictNode


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def liar(settlement_chain: SettlementChain) -> AsyncIterator[StrictNode]:
    """The second endpoint of the gateway."""
    async with StrictNode(settlement_chain.chain.node.url) as endpoint:
        yield endpoint


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, liar: StrictNode
) -> ParticipantProcess:
    node = settlement_chain.chain.node.url
    return await participant_for(
        "dlt-gateway",
        chain=settlement_chain.settings("dlt-gateway") | {"rpc_urls": [node, liar.url], "single_endpoint": False},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE},
        judge_seconds=0.2,
    )


async def test_a_lie_about_the_escrow(world: GatewayWorld, liar: StrictNode) -> None:
    """While one endpoint says otherwise of a leg's status, no vote is given and no outcome is told; then the true one is."""
    plan = world.plan()
    command = world.command(plan)
    liar.faults = Faults(lie=strict_node.other_state)
    await world.harness.stub.Prepare(commands.prepare_request(command), timeout=CALL_SECONDS)
    await until_status(world, plan.header.digest, LegStatus.PREPARED)
    await asyncio.sleep(2)
    report = await world.harness.get(plan)
    assert report is not None
    assert (report.phase, report.HasField("vote")) == (leg_pb2.LEG_PHASE_PREPARING, False)
    liar.faults = Faults()
    answer = await world.harness.settled(lambda: world.harness.send_prepare(command))
    assert isinstance(world.answer(answer), Promise)
    # The other endpoint alone, while the liar is away, is enough for the rest.
    liar.faults = Faults(down=True)
    assert (await world.harness.commit(plan, answer.report)).verdict == DONE
    assert await world.events(plan) == ["Prepared", "Committed"]
