from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from lockstep_kit.db import Database
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import key_of, registry_of
from lockstep_testkit.scripted import ScriptedOperations

NAME = "bank-gateway"


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_for: Callable[..., Awaitable[TestDatabase]]) -> TestDatabase:
    return await database_for("kit_participant", Path(__file__).parent / "migrations")


@pytest_asyncio.fixture(loop_scope="session")
async def db(database: TestDatabase) -> AsyncIterator[Database]:
    db = await Database.connect(database.settings, application_name="test")
    yield db
    await db.close()


@pytest.fixture
def settings() -> ParticipantSettings:
    return ParticipantSettings(
        signing_key_file=Path("unused"), registry_file=Path("unused"), heartbeat_seconds=0.3, poll_seconds=0.2, watchers_max=8
    )


@pytest.fixture
def operations() -> ScriptedOperations:
    return ScriptedOperations()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(db: Database, settings: ParticipantSettings, operations: ScriptedOperations) -> AsyncIterator[ParticipantEngine]:
    """A bank gateway whose outside world is scripted, on a real database."""
    engine = ParticipantEngine(
        db=db, name=NAME, signing_key=key_of(NAME), registry=registry_of(), operations=operations, settings=settings
    )
    supervisor = TaskSupervisor()
    async with AsyncExitStack() as stack:
        supervisor.start(*engine.loops())
        stack.push_async_callback(supervisor.stop)
        stack.push_async_callback(engine.drain)
        yield engine
