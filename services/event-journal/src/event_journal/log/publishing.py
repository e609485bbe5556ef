"""When the log takes up what is new and publishes a checkpoint of it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from lockstep_kit.values import dataclass

_NOW: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a checkpoint is made."""

    #: Longest that an entry waits for one, and shortest between two unless many entries came.
    interval: timedelta
    #: So many new entries are not kept waiting.
    entries: int


@dataclass(frozen=True, slots=True)
class Published:
    """The newest checkpoint."""

    #: Leaves that it covers.
    tree_size: int
    #: When it was made, by the database's clock.
    made_at: datetime


def due_in(entry_count: int, newest: Published | None, now: datetime, rhythm: Rhythm) -> timedelta | None:
    """How long until the next checkpoint is to be made; zero when at once, None while nothing is new.

    A checkpoint that seems to come yet was made before the clock was set back, and nothing waits for that time to come again.
    """
    if entry_count <= (newest.tree_size if newest is not None else 0):
        return None
    if newest is None or now < newest.made_at or entry_count - newest.tree_size >= rhythm.entries:
        return _NOW
    return max(newest.made_at + rhythm.interval - now, _NOW)
