"""Fixtures for tests that leave behind what would be in other tests' way: a sandbox of the module's own, and the people around it.

A folder's conftest.py imports them under their names, which then stand before those of the folder above.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew

__all__ = ["crew", "sandbox"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Everything, with a block each second."""
    async with Sandbox(RuntimeDirectory.create(tmp_path_factory.mktemp("own"))) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crew(sandbox: Sandbox) -> AsyncIterator[Crew]:
    """The people around it."""
    async with Crew(sandbox) as people:
        yield people
