"""One real sandbox for all end-to-end tests: starting it takes seconds, and a plan disturbs no other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Everything, with a block each second."""
    async with Sandbox(RuntimeDirectory.create(tmp_path_factory.mktemp("sandbox"))) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crew(sandbox: Sandbox) -> AsyncIterator[Crew]:
    """The people around it."""
    async with Crew(sandbox, traced=True) as people:
        yield people
