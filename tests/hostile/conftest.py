"""A hostile coordinator against the participants of a sandbox of its own, since what it leaves contradicts the books, and one plan that all have prepared."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from lockstep_testkit.crew import Crew, draw_address
from lockstep_testkit.hostile import Held, HostileCoordinator
from lockstep_testkit.own_sandbox import crew, sandbox

__all__ = ["crew", "held", "hostile", "sandbox"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hostile(crew: Crew) -> AsyncIterator[HostileCoordinator]:
    """Whoever holds the coordinator's certificate."""
    async with HostileCoordinator(crew) as coordinator:
        yield coordinator


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def held(hostile: HostileCoordinator, crew: Crew) -> AsyncIterator[Held]:
    """Tokens in the escrow, money on hold, and nothing decided; released in the end."""
    payee = draw_address()
    plan = hostile.plan(crew.payments(payee=payee))
    votes = await hostile.prepared(plan)
    yield Held(plan, payee, votes, hostile.certificate(plan, votes))
    await hostile.released(plan)
