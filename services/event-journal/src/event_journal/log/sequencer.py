"""The loop by which the log grows: takes up entries in the order of their positions and publishes checkpoints. Holds no rules.

Any number of replicas run it. The tree has one row, and whoever has locked it is the only one that makes the tree grow; all that a growth rests on is
read under that lock, and tiles, size and checkpoint are one transaction. A note is signed before that commits, and shown to nobody until it has.

No entry is passed over: positions are taken under a row lock that is held until the commit, so that an entry is only ever seen together with all before it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog

from event_journal.log import store
from event_journal.log.publishing import Published, Rhythm, due_in
from event_journal.log.tiles import edge, grow, tree_root
from event_journal.signing_keys import SigningKeys
from lockstep_kit.db import Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.ids import Digest
from lockstep_kit.merkle import leaf_hash
from lockstep_kit.notes import Checkpoint, sign
from lockstep_kit.values import dataclass, replace

_log = structlog.get_logger()

declare("event-journal.log.before_tx")
declare("event-journal.log.in_tx")
declare("event-journal.log.after_commit")

#: Entries that one transaction takes up; what is more, as after an upgrade, takes several.
TAKEN_MAX: Final = 2_048


class LogBroken(RuntimeError):
    """The journal's tables contradict one another: somebody who owns the database has changed them. The log does not grow over it."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far the log was published when it was looked at."""

    #: The newest checkpoint.
    newest: Published | None
    #: By the database's clock, and by the loop's.
    now: datetime
    at: float
    #: Whether there was nothing behind the checkpoint.
    complete: bool = False


class Sequencer:
    """Makes the log grow."""

    def __init__(self, db: Database, keys: SigningKeys, origin: str, rhythm: Rhythm) -> None:
        #: Set to have it look now.
        self.wake = asyncio.Event()
        self._db = db
        self._keys = keys
        self._origin = origin
        self._rhythm = rhythm
        self._timer: asyncio.TimerHandle | None = None
        #: As it was when it was looked at last; None: never.
        self._seen: _Seen | None = None

    async def run(self) -> None:
        """Take up and publish what is due; what is not due yet sets an alarm for itself.

        Raises:
            LogBroken: entries, tree and checkpoints do not belong together.
            TileMissing: the tree's tiles are not those of its size.
            LockstepError: SIGNING_KEY_REFUSED; a checkpoint would be signed by a key that does not count.
        """
        self._rest()
        while True:
            # Without a lock: looking costs no write.
            async with self._db.connection() as connection:
                now = await store.standing(connection)
            if now.incarnation != now.tree_incarnation:
                await self._note_restore()
            self._seen = _Seen(now.newest, now.now, asyncio.get_running_loop().time())
            due = _due(now, self._rhythm)
            if due is None:
                return
            if due:
                self._alarm(due)
                return
            grown = await self._grow()
            if grown is None:
                return
            if grown.complete:
                # What came since is told.
                self._seen = grown
                return

    def heeds(self, told: str) -> bool:
        """Whether a notification, which names the log's last place, is to be looked into at once; what is due later an alarm is set for, without a look."""
        seen = self._seen
        if seen is None or not told.isdigit():
            return True
        since = timedelta(seconds=asyncio.get_running_loop().time() - seen.at)
        # Another replica may have published since: then it is due later than that, and the look will say so.
        due = due_in(int(told), seen.newest, seen.now + since, self._rhythm)
        if due and self._timer is None:
            self._alarm(due.total_seconds())
        return due is not None and not due

    def _alarm(self, seconds: float) -> None:
        self._rest()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.wake.set()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _grow(self) -> _Seen | None:
        """Take up a batch and publish the tree over it; None when another replica is at it."""
        await failpoint("event-journal.log.before_tx")
        async with self._db.transaction() as tx:
            if not await store.lock_tree(tx):
                return None
            now = await store.standing(tx)
            seen = _Seen(now.newest, now.now, asyncio.get_running_loop().time())
            if _due(now, self._rhythm) != 0:
                return seen
            await self._keys.require(tx, now.keys)
            size, tiles = now.tree_size, await store.read_tiles(tx, edge(now.tree_size))
            leaves: list[Digest] = []
            for row in await store.next_leaves(tx, size, TAKEN_MAX):
                if row["position"] != size + len(leaves) + 1:
                    break
                leaves.append(leaf_hash(row["canonical_bytes"]))
            if size + len(leaves) < min(now.entry_count, size + TAKEN_MAX):
                raise LogBroken(f"there is no entry at position {size + len(leaves) + 1} of {now.entry_count}")
            if leaves:
                grown = grow(size, tiles, leaves)
                tiles |= grown
                size += len(leaves)
                await store.save_tiles(tx, grown)
                await store.move_tree(tx, size, now.tree_incarnation)
            checkpoint = Checkpoint(self._origin, size, tree_root(size, tiles))
            await store.publish(tx, sign(checkpoint, self._keys.key), now.now)
            await failpoint("event-journal.log.in_tx")
        await failpoint("event-journal.log.after_commit")
        return replace(seen, newest=Published(size, now.now), complete=size == now.entry_count)

    async def _note_restore(self) -> None:
        """Tell once that the database was put back: from here on the log is another one than what its witness has seen."""
        async with self._db.transaction() as tx:
            if not await store.lock_tree(tx):
                return
            now = await store.standing(tx)
            if now.incarnation == now.tree_incarnation:
                return
            await store.move_tree(tx, now.tree_size, now.incarnation)
        _log.error("log_restored", tree_size=now.tree_size, was=now.tree_incarnation, now=now.incarnation)


def _due(now: store.Standing, rhythm: Rhythm) -> float | None:
    """Seconds until something is to be done; None: nothing is.

    Raises:
        LogBroken: the tree or a checkpoint reaches beyond the journal, or beyond one another.
    """
    published = now.newest.tree_size if now.newest is not None else 0
    if not published <= now.tree_size <= now.entry_count:
        raise LogBroken(f"the journal has {now.entry_count} entries, its tree {now.tree_size}, its newest checkpoint {published}")
    due = due_in(now.entry_count, now.newest, now.now, rhythm)
    return due.total_seconds() if due is not None else None
