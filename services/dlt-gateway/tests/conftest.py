"""Fixtures: the gateway as its own process, over a real database and a real chain."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import StrictNode

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from gateway_world import GatewayWorld


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def endpoint(settlement_chain: SettlementChain) -> AsyncIterator[StrictNode]:
    """What the gateway takes for the chain: as strict as nodes of real networks."""
    async with StrictNode(settlement_chain.chain.node.url) as strict:
        yield strict


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, endpoint: StrictNode
) -> ParticipantProcess:
    return await participant_for(
        "dlt-gateway",
        chain=settlement_chain.settings("dlt-gateway") | {"rpc_urls": [endpoint.url]},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE, settlement_chain.uncontrolled_asset: SCALE},
        reversible=[settlement_chain.asset],
        judge_seconds=0.3,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess, settlement_chain: SettlementChain) -> GatewayWorld:
    return await GatewayWorld.around(service, settlement_chain)
