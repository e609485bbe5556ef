"""Streams of entries: what stands is read from the database, what comes is read once for all streams of the process and handed to each whose it is.

What this process has appended itself is handed out as it is, without a look at the database, where it follows what was handed out last.

A stream subscribes first and reads the database then, so that everything is in what it reads or in what it is handed, and what is in both is told by its
place. A stream that has fallen behind what it can hold goes back to the database. Whatever ends the common reading ends every stream: its reader goes on
elsewhere with its token, and none is left waiting for what nobody reads. A log that a restore has put in the place of another is noticed by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Final

from event_journal import store
from event_journal.convert import entry_to_pb
from event_journal.payload_keys import PayloadVault
from event_journal.payload_store import entries_of
from event_journal.store import Placed
from lockstep.journal.v1 import entry_pb2
from lockstep_kit.db import Database
from lockstep_kit.errors import LockstepError, as_error, resume_token_expired, unavailable
from lockstep_kit.ids import PlanId
from lockstep_kit.values import dataclass

#: Entries that one statement reads.
READ_MAX: Final = 256
#: Of one message; one entry has far less, and a message that a client takes has at most four times as many.
MESSAGE_BYTES_MAX: Final = 1 << 20
#: What a stream holds that is not sent yet.
HELD_ENTRIES_MAX: Final = 1_024
HELD_BYTES_MAX: Final = 4 << 20
#: Streams that read the database at one time; the other connections are the writers'.
READERS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a log."""

    #: Which log.
    log_id: str
    #: Behind which entry.
    position: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some entries of a stream, in order; none in a heartbeat."""

    #: What is new.
    entries: tuple[entry_pb2.Entry, ...]
    #: Where the stream is behind them.
    place: Place


class Subscription:
    """What one stream is handed."""

    def __init__(self, plan_id: PlanId | None) -> None:
        self.plan_id = plan_id
        #: Set when there is something to look at.
        self.news = asyncio.Event()
        #: Why the stream ends, once it must.
        self.ended: LockstepError | None = None
        self._held: deque[entry_pb2.Entry] = deque()
        self._bytes = 0
        #: Something was not held: only the database has all.
        self._behind = True

    def offer(self, entries: Sequence[entry_pb2.Entry]) -> None:
        """Hold entries, or note that there were too many."""
        if self._behind:
            return
        self._held.extend(entries)
        self._bytes += sum(entry.ByteSize() for entry in entries)
        if len(self._held) > HELD_ENTRIES_MAX or self._bytes > HELD_BYTES_MAX:
            self._drop(behind=True)
        self.news.set()

    def begin(self) -> None:
        """Hold what comes from now on; what is before is in the database."""
        self._drop(behind=False)

    def take(self) -> list[entry_pb2.Entry] | None:
        """What is held; None: the stream has fallen behind and must read the database."""
        self.news.clear()
        if self._behind:
            return None
        found = list(self._held)
        self._drop(behind=False)
        return found

    def fall_behind(self) -> None:
        """Have the stream read the database: what it is handed from now on may not follow what it has."""
        self._drop(behind=True)
        self.news.set()

    def end(self, why: LockstepError) -> None:
        """End the stream; the first reason counts."""
        self.ended = self.ended or why
        self.news.set()

    def _drop(self, *, behind: bool) -> None:
        self._held.clear()
        self._bytes, self._behind = 0, behind


class EntryStreams:
    """All streams of a process."""

    def __init__(self, db: Database, vault: PayloadVault, *, heartbeat_seconds: float) -> None:
        self._db = db
        self._vault = vault
        self._heartbeat_seconds = heartbeat_seconds
        self._by_plan: dict[PlanId | None, set[Subscription]] = {}
        self._following = asyncio.Lock()
        self._readers = asyncio.Semaphore(READERS_MAX)
        #: How far the common reading has come.
        self._place: Place | None = None
        #: Ends of what this process is appending: their notifications tell nothing that it is not told otherwise.
        self._coming: set[int] = set()
        #: Set to have the common reading look.
        self.wake: Final = asyncio.Event()
        self._draining = False

    def drain(self) -> None:
        """End every stream, and those that begin from now on; their readers resume at another replica."""
        self._draining = True
        self._end_all(_draining())

    def heeds(self, told: str) -> bool:
        """Whether a notification, which names the log's last place, may be of something that was not handed out and will not be without a look."""
        place = self._place
        return place is None or not told.isdigit() or (int(told) > place.position and int(told) not in self._coming)

    @contextlib.contextmanager
    def coming(self, placed: Placed) -> Iterator[None]:
        """Hand these entries out when the block ends, if nothing is missing before them; in every other case have the database looked at."""
        self._coming.add(placed.last)
        handed = False
        try:
            yield
            handed = self._hand_on(placed)
        finally:
            self._coming.discard(placed.last)
            if not handed:
                self.wake.set()

    def _hand_on(self, placed: Placed) -> bool:
        place = self._place
        if place is None or (placed.log_id, placed.first) != (place.log_id, place.position + 1):
            return False
        self._place = Place(placed.log_id, placed.last)
        if self._by_plan:
            everybody = None in self._by_plan
            self._hand_out(
                [
                    entry_to_pb(entry, position)
                    for position, entry in enumerate(placed.entries, placed.first)
                    if everybody or entry.event.plan_id in self._by_plan
                ]
            )
        return True

    async def follow(self) -> None:
        """Read what is new, once, and hand it to the streams whose it is; without streams only where the log ends."""
        async with self._following:
            try:
                while await self._step():
                    pass
            except Exception as error:
                self._end_all(as_error(error))
                raise

    async def _step(self) -> bool:
        """Read one stretch; whether there may be more."""
        before = self._place
        if before is None or not self._by_plan:
            async with self._db.connection() as connection:
                end = Place(*await store.log_end(connection))
            if self._place is before:
                self._move(end)
                return False
            return self._is_behind(end)
        read, end = await self._read(before.position, None)
        if self._place is not before:
            return self._is_behind(end)
        self._move(end)
        if self._place is not before:
            return True
        if read:
            self._place = Place(before.log_id, read[-1].position)
            self._hand_out(read)
        return len(read) == READ_MAX

    def _is_behind(self, end: Place) -> bool:
        """Whether there is more to read, since what this process has appended was handed out while the end was asked for."""
        place = self._place
        return place is None or end.log_id != place.log_id or end.position > place.position

    def _move(self, end: Place) -> None:
        """Go on from where the log ends if there is nobody to read for, or if it is another log than before."""
        before = self._place
        other = before is not None and (end.log_id != before.log_id or end.position < before.position)
        if other:
            self._end_all(resume_token_expired())
        if other or before is None or not self._by_plan:
            self._place = end
            # A stream may have begun while the end was asked for, and read the database before something came that is passed over now.
            for subscription in self._subscriptions():
                subscription.fall_behind()

    def _hand_out(self, entries: Sequence[entry_pb2.Entry]) -> None:
        for each in self._by_plan.get(None, ()):
            each.offer(entries)
        of_plans: dict[PlanId, list[entry_pb2.Entry]] = {}
        for entry in entries:
            if entry.plan_id in self._by_plan:
                of_plans.setdefault(PlanId(entry.plan_id), []).append(entry)
        for plan_id, own in of_plans.items():
            for each in self._by_plan[plan_id]:
                each.offer(own)

    async def _read(self, position: int, plan_id: PlanId | None) -> tuple[list[entry_pb2.Entry], Place]:
        """Entries behind a place, and where the log ends. Its id is read after them: were it another one by then, they may be of either."""
        async with self._db.connection() as connection:
            rows = await store.entries_after(connection, position, plan_id=plan_id, limit=READ_MAX)
            entries = await entries_of(connection, rows, self._vault)
            end = Place(*await store.log_end(connection))
        return [entry_to_pb(entry, row["position"]) for entry, row in zip(entries, rows, strict=True)], end

    def _end_all(self, why: LockstepError) -> None:
        for subscription in self._subscriptions():
            subscription.end(why)

    def _subscriptions(self) -> Iterator[Subscription]:
        for subscriptions in self._by_plan.values():
            yield from subscriptions

    @contextlib.contextmanager
    def _subscribed(self, plan_id: PlanId | None) -> Iterator[Subscription]:
        subscription = Subscription(plan_id)
        self._by_plan.setdefault(plan_id, set()).add(subscription)
        try:
            yield subscription
        finally:
            self._by_plan[plan_id].discard(subscription)
            if not self._by_plan[plan_id]:
                del self._by_plan[plan_id]

    async def stream(self, plan_id: PlanId | None, after: Place | None) -> AsyncGenerator[Stretch, None]:
        """Entries behind a place, of one plan or of all, then live, with heartbeats; from the first entry on without a place.

        Raises:
            LockstepError: OUT_OF_RANGE, the place is of a log that is no more; UNAVAILABLE, the stream must go on elsewhere, or later.
        """
        if self._draining:
            raise _draining()
        with self._subscribed(plan_id) as subscription:
            async with self._db.connection() as connection:
                end = Place(*await store.log_end(connection))
            place = after or Place(end.log_id, 0)
            if place.log_id != end.log_id or place.position > end.position:
                # It was drawn from a log that a restore has ended: what stands at such places now is something else.
                raise resume_token_expired()
            first = True
            while True:
                async for stretch in self._until_live(subscription, place):
                    first, place = False, stretch.place
                    yield stretch
                if first:
                    first = False
                    yield Stretch((), place)
                async for stretch in self._live(subscription, place):
                    place = stretch.place
                    yield stretch

    async def _until_live(self, subscription: Subscription, place: Place) -> AsyncIterator[Stretch]:
        """Read the database until nothing is left that the stream will not be handed."""
        subscription.begin()
        more = True
        while more:
            async with self._readers:
                found, end = await self._read(place.position, subscription.plan_id)
            if end.log_id != place.log_id or end.position < place.position:
                raise resume_token_expired()
            more = len(found) == READ_MAX
            if more:
                # What was handed meanwhile is read too.
                subscription.begin()
            for stretch in _stretches(found, place):
                place = stretch.place
                yield stretch
            if subscription.ended is not None:
                raise subscription.ended

    async def _live(self, subscription: Subscription, place: Place) -> AsyncIterator[Stretch]:
        """What the stream is handed, until it has fallen behind."""
        while True:
            if subscription.ended is not None:
                raise subscription.ended
            held = subscription.take()
            if held is None:
                return
            # The database may have shown entries before they were handed out.
            for stretch in _stretches([entry for entry in held if entry.position > place.position], place):
                place = stretch.place
                yield stretch
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_seconds):
                    await subscription.news.wait()
                continue
            yield Stretch((), place)


def _stretches(entries: Sequence[entry_pb2.Entry], place: Place) -> Iterator[Stretch]:
    """Entries in messages that are no larger than a client takes."""
    batch: list[entry_pb2.Entry] = []
    octets = 0
    for entry in entries:
        size = entry.ByteSize()
        if batch and (octets + size > MESSAGE_BYTES_MAX or len(batch) == READ_MAX):
            yield Stretch(tuple(batch), Place(place.log_id, batch[-1].position))
            batch, octets = [], 0
        batch.append(entry)
        octets += size
    if batch:
        yield Stretch(tuple(batch), Place(place.log_id, batch[-1].position))


def _draining() -> LockstepError:
    return unavailable("DRAINING", "the server is stopping; resume at another one")
