"""One campaign for all tests of this folder: its sandbox stays up, and only what was killed is started again."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path as File

import pytest
import pytest_asyncio

sys.path.insert(0, str(File(__file__).parents[1]))

from crash.campaign import MAIN, Campaign, campaign_over


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def campaign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    """Everything, surveyed on the main paths."""
    async with campaign_over(tmp_path_factory.mktemp("crash")) as running:
        await running.survey(MAIN)
        yield running
