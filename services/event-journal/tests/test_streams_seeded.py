"""One course of a stream through everything that can come between it and its entries; and the same with one rule broken, which must be seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from journal_world import JournalWorld, event_of

from event_journal import streams
from event_journal.payload_keys import read_vault
from lockstep_kit.db import Database
from lockstep_kit.errors import LockstepError
from lockstep_kit.migrate import renew_logs
from lockstep_testkit.factories import delivery_versus_payment

#: What is broken -> the code, and what it says then.
BUGS = {
    "what was read is handed out again": ("if entry.position > place.position]", "]"),
    "what is too much to hold is forgotten": (
        "HELD_BYTES_MAX:\n            self._drop(behind=True)",
        "HELD_BYTES_MAX:\n            self._drop(behind=False)",
    ),
    "only one plan's entries are handed out": (
        "for plan_id, own in of_plans.items():",
        "for plan_id, own in list(of_plans.items())[:1]:",
    ),
    "another log is gone on with": ("other = before is not None and (", "other = False and ("),
    "the common reading passes over what it has not handed out": ("self._hand_out(read)", "self._hand_out(read[1:])"),
}
#: Longest look at a stream of the code as it is; and of one that is broken, which may never end.
SECONDS_MAX, BROKEN_SECONDS_MAX = 240.0, 10.0


@pytest_asyncio.fixture(loop_scope="session")
async def db(world: JournalWorld) -> AsyncIterator[Database]:
    found = await Database.connect(world.service.database.settings, application_name="test")
    yield found
    await found.close()


def broken(before: str, after: str) -> ModuleType:
    """The module of streams with a text in the place of another."""
    source = Path(streams.__file__).read_text()
    assert source.count(before) == 1
    module = ModuleType(streams.__name__)
    exec(compile(source.replace(before, after), streams.__file__, "exec", dont_inherit=True), module.__dict__)
    return module


async def violations(
    module: Any, world: JournalWorld, db: Database, payload_key_file: Path, seconds_max: float = SECONDS_MAX
) -> list[str]:
    """What two plans' readers and one of all plans see that is not so."""
    module.HELD_ENTRIES_MAX = 3
    within = module.EntryStreams(db, read_vault([payload_key_file]), heartbeat_seconds=0.1)
    one, two = delivery_versus_payment(), delivery_versus_payment()
    everybody = within.stream(None, None)
    seen: dict[str, list[int]] = {one.plan_id: [], two.plan_id: [], "": []}

    async def look(stream: Any, plan_id: str) -> None:
        """Until there is nothing new."""
        async with asyncio.timeout(seconds_max):
            while (stretch := await anext(stream)).entries:
                # Of all plans' entries, those of these plans alone.
                seen[plan_id] += [
                    entry.sequence if plan_id else entry.position for entry in stretch.entries if plan_id or entry.plan_id in seen
                ]

    await look(everybody, "")
    await within.follow()
    await world.append(event_of(one, 1), event_of(two, 1))
    readers = {each.plan_id: within.stream(each.plan_id, None) for each in (one, two)}
    # Read from the database first, handed out then; then only handed out; then more than is held.
    for numbers in ((), (2, 3), range(4, 10)):
        for number in numbers:
            await world.append(event_of(one, number), event_of(two, number))
            await within.follow()
        for plan_id, stream in (*readers.items(), ("", everybody)):
            await look(stream, plan_id)
        await within.follow()
        for plan_id, stream in (*readers.items(), ("", everybody)):
            await look(stream, plan_id)
    found = [f"{plan_id}: {sequences}" for plan_id, sequences in seen.items() if plan_id and sequences != list(range(1, 10))]
    places = seen[""]
    found += [] if places == list(range(places[0], places[0] + 18)) else [f"all: {places}"]
    await asyncio.to_thread(renew_logs, world.service.database.owner_url)
    await world.append(event_of(one, 10))
    await within.follow()
    try:
        await look(readers[one.plan_id], one.plan_id)
        found.append("a stream went on over a restore")
    except LockstepError:
        pass
    for stream in (*readers.values(), everybody):
        await stream.aclose()
    return found


async def test_nothing_is_wrong(world: JournalWorld, db: Database, payload_key_file: Path) -> None:
    """Of the code as it is nothing is found."""
    assert await violations(broken("HELD_ENTRIES_MAX: Final = 1_024", "HELD_ENTRIES_MAX = 3"), world, db, payload_key_file) == []


@pytest.mark.parametrize("bug", BUGS)
async def test_every_seeded_bug_is_found(world: JournalWorld, db: Database, payload_key_file: Path, bug: str) -> None:
    """Each rule, broken, is seen."""
    try:
        found = await violations(broken(*BUGS[bug]), world, db, payload_key_file, BROKEN_SECONDS_MAX)
    except TimeoutError:
        found = ["it never ends"]
    assert found
