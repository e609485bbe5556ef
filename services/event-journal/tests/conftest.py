"""Fixtures: the journal as its own process over a real database, and whoever writes to it and reads it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from lockstep_testkit.participants import ParticipantProcess

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from journal_world import JournalWorld


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(participant_for: Callable[..., Awaitable[ParticipantProcess]]) -> ParticipantProcess:
    return await participant_for("event-journal", poll_seconds=0.5, heartbeat_seconds=0.5)


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess) -> AsyncIterator[JournalWorld]:
    yield await JournalWorld.around(service)
