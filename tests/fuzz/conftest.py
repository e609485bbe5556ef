"""One sandbox for all tests of this folder that need one, with plans to forge from."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.running import Fuzzing, fuzzing


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ready(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fuzzing]:
    """Everything, with nobody at work but the callers."""
    async with fuzzing(tmp_path_factory.mktemp("fuzz")) as running:
        yield running
