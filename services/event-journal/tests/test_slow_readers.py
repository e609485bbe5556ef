"""A journal that cuts readers soon: in a module of its own, so that no other test's reader is cut because the machine is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from journal_world import JournalWorld
from test_streams import rest_of, watch, wide

from lockstep_kit.errors import from_rpc
from lockstep_testkit.participants import ParticipantProcess

SLOW_READER_SECONDS = 2.0
#: How long the reader takes nothing: time for a slow machine, too, to fill what lies between it and the journal, and then to be cut.
PAUSE_SECONDS = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path) -> ParticipantProcess:
    return await participant_for(
        "event-journal", payload_key_files=[str(payload_key_file)], poll_seconds=0.5, slow_reader_seconds=SLOW_READER_SECONDS
    )


async def test_a_slow_reader_is_cut(world: JournalWorld) -> None:
    """A reader that takes nothing is ended, with a status that says that it may resume, and with its token it has every entry once."""
    plan = await wide(world, 400)
    stream = watch(world.reader, plan.plan_id)
    first = await stream.read()
    found, tokens = [entry.sequence for entry in first.entries], [first.resume_token]
    await asyncio.sleep(PAUSE_SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest_of(stream, found, tokens)
    error = from_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCHER_SLOW")
    assert len(found) < 400
    async for message in watch(world.reader, plan.plan_id, tokens[-1]):
        found += [entry.sequence for entry in message.entries]
        if len(found) >= 400:
            break
    assert found == list(range(1, 401))
