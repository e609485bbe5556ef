"""Fixtures: the notary as its own process, over a real database and a real chain."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from lockstep_kit.rpc import TlsSettings
from lockstep_testkit.chains import SettlementChain
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.participants import READERS, ParticipantProcess
from lockstep_testkit.strict_node import StrictNode

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from notary_world import NotaryWorld
from witness_world import WitnessWorld


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def endpoint(settlement_chain: SettlementChain) -> AsyncIterator[StrictNode]:
    """What the notary takes for the chain: as strict as nodes of real networks."""
    async with StrictNode(settlement_chain.chain.node.url) as strict:
        yield strict


#: Clients of parties.
PARTIES = {name: {"methods": ["*"], "parties": [name]} for name in ("buyer", "seller", "stranger")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, endpoint: StrictNode
) -> ParticipantProcess:
    return await participant_for(
        "notary",
        chain=settlement_chain.settings("notary") | {"rpc_urls": [endpoint.url]},
        registry=settlement_chain.registry,
        judge_seconds=0.3,
        batch_seconds=0.2,
        readers={**READERS["notary"], **PARTIES},
    )


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess, settlement_chain: SettlementChain) -> NotaryWorld:
    return await NotaryWorld.around(service, settlement_chain)


@pytest_asyncio.fixture(loop_scope="session")
async def witnessed(
    database_for: Callable[..., Awaitable[TestDatabase]], tls_for: Callable[[str], TlsSettings]
) -> AsyncIterator[WitnessWorld]:
    """A journal's log, and a database for its witnesses."""
    async with contextlib.AsyncExitStack() as stack:
        yield await WitnessWorld.around(stack, tls_for, await database_for("notary"))
