"""The outcome log as a stream: everything after a cursor, then live, with heartbeats.

Pulled, never pushed: one page is read when the one before has been taken, so that a slow reader costs one page of memory and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Final

from lockstep_kit.participant import store
from lockstep_kit.participant.bell import Bell, heard
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep_kit.db import Database

PAGE_CHANGES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a participant's outcome log."""

    #: Drawn when the log was made.
    incarnation: str
    #: Number of the last change read.
    sequence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Legs that changed, each once and as it is now; none in a heartbeat."""

    #: The legs.
    records: tuple[LegRecord, ...]
    #: Resume after this.
    cursor: Cursor


async def watch(
    db: Database, bell: Bell, after: Cursor | None, heartbeat_seconds: float, ended: Callable[[], bool]
) -> AsyncGenerator[Changes]:
    """Pages of changes, at least one message every `heartbeat_seconds`, until told that it has ended.

    A cursor of another incarnation, or one ahead of the log, was drawn from another database (a restore): everything is sent again.
    """
    async with db.connection() as connection:
        incarnation, last, _ = await store.log_head(connection)
    resumed = after is not None and after.incarnation == incarnation and 0 <= after.sequence <= last
    at = after.sequence if resumed and after is not None else 0
    clock = asyncio.get_running_loop()
    silent_until = clock.time()
    while not ended():
        ticket = bell.ticket()
        async with db.connection() as connection:
            page = await store.changes(connection, at, PAGE_CHANGES_MAX)
        if page.incarnation != incarnation or page.last < at:
            # The database was put back under this very stream.
            incarnation, at, silent_until = page.incarnation, 0, clock.time()
            continue
        more = at < page.read < page.last
        if page.read > at or clock.time() >= silent_until:
            at = page.read
            yield Changes(tuple(page.records), Cursor(incarnation, at))
            silent_until = clock.time() + heartbeat_seconds
        # What came while it was read rings the bell: the ticket is older than the page.
        if not more and not ended():
            await heard(ticket, silent_until - clock.time())
