"""Fixtures: the journal as its own process over a real database, and whoever writes to it and reads it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from lockstep_testkit.participants import READERS, ROOMY, ParticipantProcess

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from journal_world import JournalWorld, write_payload_key

#: Clients that may have few streams.
EIGHT_STREAMS = {f"spiffe://lockstep.local/client/{name}": {"streams_max": 8} for name in ("many", "again")}


@pytest.fixture(scope="module")
def payload_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the journal of this module wraps its payload keys by."""
    return write_payload_key(tmp_path_factory.mktemp("payload-key") / "payload.key")


#: Who reads besides.
READING = {
    **{name: {"methods": ["WatchEntries"], "desk": "auditor"} for name in ("many", "again")},
    **{name: {"methods": ["*"], "parties": [name]} for name in ("buyer", "seller", "stranger")},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path) -> ParticipantProcess:
    return await participant_for(
        "event-journal",
        poll_seconds=0.5,
        heartbeat_seconds=0.5,
        slow_reader_seconds=60.0,
        listen={"limits": {"clients": ROOMY.model_dump(), "named": EIGHT_STREAMS}},
        payload_key_files=[str(payload_key_file)],
        readers={**READERS["event-journal"], **READING},
    )


@pytest_asyncio.fixture(loop_scope="session")
async def world(service: ParticipantProcess) -> AsyncIterator[JournalWorld]:
    yield await JournalWorld.around(service)
