"""Fixtures: the notary as its own process, over a real database and a real chain."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from lockstep_testkit.chains import SettlementChain
from lockstep_testkit.participants import ParticipantProcess

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from notary_world import NotaryWorld


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain
) -> ParticipantProcess:
    return await participant_for(
        "notary", chain=settlement_chain.settings("notary"), registry=settlement_chain.registry, judge_seconds=0.3
    )


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess, settlement_chain: SettlementChain) -> NotaryWorld:
    return await NotaryWorld.around(service, settlement_chain)
