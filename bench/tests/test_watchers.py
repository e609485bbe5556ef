"""Streams that watch: they count once each has brought something, and one that is refused is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from lockstep_bench.stage import COORDINATOR
from lockstep_bench.watchers import OF_A_CONNECTION, opened
from lockstep_kit.errors import LockstepError


async def _shows() -> AsyncIterator[object]:
    yield "snapshot"
    await asyncio.Event().wait()


async def _refused(*shown: object) -> AsyncIterator[object]:
    for each in shown:
        yield each
    raise LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_PLAN_WATCHES", "as many as it may", {})


async def test_streams_that_bring_something_are_open() -> None:
    """All are read on."""
    tasks = await opened([_shows() for _ in range(3)])
    assert [task.done() for task in tasks] == [False] * 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_refused_stream_is_told() -> None:
    """Nobody waits for what does not come, and nothing is left running."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(5):
        with pytest.raises(LockstepError, match="as many as it may"):
            await opened([_shows(), _refused(), _shows()])
    assert asyncio.all_tasks() == before


def test_as_many_as_are_measured_may_be_open() -> None:
    """The stage lets one client watch all plans as often as `bench-growth` does, and more."""
    assert COORDINATOR["quotas"]["plan_watches_max"] > 10 * OF_A_CONNECTION
    assert COORDINATOR["watchers_max"] > 10 * OF_A_CONNECTION
