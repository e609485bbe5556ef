"""Fixtures: the gateway as its own process, over a real database and a real chain."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.participants import ParticipantProcess

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from gateway_world import GatewayWorld


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain
) -> ParticipantProcess:
    return await participant_for(
        "dlt-gateway",
        chain=settlement_chain.settings("dlt-gateway"),
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE, settlement_chain.uncontrolled_asset: SCALE},
        reversible=[settlement_chain.asset],
        judge_seconds=0.3,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess, settlement_chain: SettlementChain) -> GatewayWorld:
    return await GatewayWorld.around(service, settlement_chain)
