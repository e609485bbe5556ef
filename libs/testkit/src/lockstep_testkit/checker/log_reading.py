"""Reads the journal's log once everything that was appended is in a checkpoint, and says what its audit finds. Judges nothing by itself."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from event_journal.log import store
from event_journal.log.reading import audit_log
from lockstep_kit.db import Database, DatabaseSettings
from lockstep_kit.registry_file import load_registry
from lockstep_sandbox.stack import Sandbox, package_of

#: Longest until what was appended is in a checkpoint when nothing is wrong, also on a busy machine and after the journal was started again.
PUBLISHED_SECONDS_MAX: Final = 180.0
LOOK_SECONDS: Final = 0.05


async def read_log(sandbox: Sandbox) -> tuple[str, ...]:
    """What is wrong with the log: its tree, its checkpoints, and entries that are in none although there was time."""
    login = sandbox.databases.logins[package_of("event-journal")]
    settings = DatabaseSettings(url=login.url, password_file=login.password_file)
    registry = load_registry(sandbox.run.path / "config" / "registry.yaml")
    db = await Database.connect(settings, application_name="checker")
    try:
        late = await _published(db)
        async with db.connection() as connection:
            found = [each async for each in audit_log(connection, registry)]
    finally:
        await db.close()
    return (*late, *(f"position {each.position} of the log: {each.rule}: {each.message}" for each in found))


async def _published(db: Database) -> tuple[str, ...]:
    """Wait until all that was there is in a checkpoint; a sentence if it does not come."""
    give_up = time.monotonic() + PUBLISHED_SECONDS_MAX
    async with db.connection() as connection:
        wanted = (await store.standing(connection)).entry_count
    while True:
        async with db.connection() as connection:
            now = await store.standing(connection)
        covered = now.newest.tree_size if now.newest is not None else 0
        if covered >= wanted:
            return ()
        if time.monotonic() > give_up:
            return (f"{wanted - covered} entries are in no checkpoint",)
        await asyncio.sleep(LOOK_SECONDS)
