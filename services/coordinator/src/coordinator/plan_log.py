"""The log of changes of all plans, read once per replica for everybody who follows one plan or all of them.

Changes are put into one order by a number that is taken last in their transaction, so that the reader passes over none that commits later. What was read
last is kept, bounded: who is slower than that reads the database by himself. While nobody follows anything, only the log's end is looked at.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from coordinator.access import Belonging
from coordinator.dossier import Dossier
from coordinator.dossiers import Dossiers
from coordinator.store import changes
from coordinator.store.changes import Entry
from coordinator.store.outboxes import EVENT_CHANNEL
from lockstep_kit.ids import PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.participant.bell import Bell

if TYPE_CHECKING:
    from lockstep_kit.db import Database

PAGE_MAX: Final = 1_000
#: Changes that are kept.
KEPT_MAX: Final = 4_096
#: Changes of its plan that wait for one follower.
WAITING_MAX: Final = 256
#: Plans of which is kept how many changes they have.
NUMBERS_MAX: Final = 16_384
#: Plans whose parties, and whose last dossiers, are kept.
PARTIES_MAX: Final = 16_384
DOSSIERS_MAX: Final = 512
POLL_SECONDS: Final = 1.0


class Follower:
    """Who follows one plan: what he has not taken yet."""

    def __init__(self) -> None:
        self.bell: Final = Bell()
        self._waiting: list[Entry] = []
        #: Whether there may be changes that he was not given.
        self._missed = True

    def give(self, entries: Sequence[Entry]) -> None:
        """Changes of his plan, in order."""
        self._waiting.extend(entries)
        if len(self._waiting) > WAITING_MAX:
            self.miss()
        self.bell.ring()

    def miss(self) -> None:
        """Something of his plan may have passed him by."""
        self._waiting, self._missed = [], True
        self.bell.ring()

    def take(self, number: int) -> list[Entry] | None:
        """The changes that follow one; None where the database must be asked for them."""
        waiting, missed = self._waiting, self._missed
        self._waiting, self._missed = [], False
        new = [each for each in waiting if each.number > number]
        return None if missed or (new and new[0].number != number + 1) else new


class PlanLog:
    """Reads the log, and has it for all who follow."""

    def __init__(self, db: Database, known: Dossiers) -> None:
        self._db = db
        self._known = known
        #: Rung for who follows all plans, when there are changes.
        self.bell: Final = Bell()
        self._at: int | None = None
        #: The changes that are kept are all that lie behind this.
        self._behind = 0
        self._entries: list[Entry] = []
        #: How many changes plans have up to there, of those that changed last.
        self._numbers: OrderedDict[PlanId, int] = OrderedDict()
        self._followers: defaultdict[PlanId, set[Follower]] = defaultdict(set)
        self._listeners = 0
        self._parties: OrderedDict[PlanId, Belonging] = OrderedDict()
        self._dossiers: OrderedDict[PlanId, tuple[int, Dossier]] = OrderedDict()
        self._reading: Final = asyncio.Lock()

    @property
    def count(self) -> int:
        """Who follows anything."""
        return self._listeners + sum(map(len, self._followers.values()))

    def loop(self) -> Loop:
        """The loop that hears of changes, of this and of other replicas."""
        loop = Loop("watchers", self.run, poll_seconds=POLL_SECONDS)
        self._db.listen(EVENT_CHANNEL, loop.wake)
        return loop

    async def run(self) -> None:
        """Take what is new, and wake whom it concerns."""
        async with self._db.connection() as connection:
            if self._at is None or not self.count:
                self._at, _ = await changes.head(connection)
                self._behind, self._entries = self._at, []
                self._numbers.clear()
                # Who began meanwhile was given nothing of what lies before.
                self.wake()
                return
            found: Sequence[Entry] = ()
            while not found or len(found) == PAGE_MAX:
                found = await changes.log(connection, self._at, PAGE_MAX, self._numbers)
                if not found:
                    return
                self._take(found)

    def _take(self, found: Sequence[Entry]) -> None:
        self._at = found[-1].sequence
        self._entries.extend(found)
        for each in found:
            self._numbers[each.plan_id] = each.number
            self._numbers.move_to_end(each.plan_id)
        while len(self._numbers) > NUMBERS_MAX:
            self._numbers.popitem(last=False)
        if len(self._entries) > 2 * KEPT_MAX:
            self._behind = self._entries[-KEPT_MAX - 1].sequence
            self._entries = self._entries[-KEPT_MAX:]
        for plan_id, own in by_plan(each for each in found if each.plan_id in self._followers).items():
            for follower in self._followers[plan_id]:
                follower.give(own)
        self.bell.ring()

    def wake(self) -> None:
        """Have everybody look for himself."""
        for followers in self._followers.values():
            for each in followers:
                each.miss()
        self.bell.ring()

    @contextmanager
    def following(self, plan_id: PlanId) -> Iterator[Follower]:
        """Somebody follows a plan; he is given what happens from now on, and more than that."""
        follower = Follower()
        self._followers[plan_id].add(follower)
        try:
            yield follower
        finally:
            self._followers[plan_id].discard(follower)
            if not self._followers[plan_id]:
                del self._followers[plan_id]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Somebody follows all plans."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    async def behind(self, sequence: int) -> Sequence[Entry]:
        """A page of the changes of all plans behind a place, from what is kept or, where that does not reach back so far, from the database."""
        if self._at is not None and sequence >= self._at:
            return ()
        if self._at is not None and sequence >= self._behind:
            first = bisect_right(self._entries, sequence, key=lambda each: each.sequence)
            return self._entries[first : first + PAGE_MAX]
        async with self._db.connection() as connection:
            return await changes.log(connection, sequence, PAGE_MAX, {})

    async def parties(self, ids: Collection[PlanId]) -> Mapping[PlanId, Belonging]:
        """Whose plans are. It never changes, and is read once."""
        found = {plan_id: known for plan_id in ids if (known := self._parties.get(plan_id)) is not None}
        missing = [plan_id for plan_id in ids if plan_id not in found]
        if missing:
            async with self._db.connection() as connection:
                read = await changes.belongings(connection, missing)
            found |= read
            self._parties.update(read)
            while len(self._parties) > PARTIES_MAX:
                self._parties.popitem(last=False)
        return found

    async def dossiers(self, wanted: Mapping[PlanId, int]) -> Mapping[PlanId, tuple[int, Dossier]]:
        """Plans as they stand, each after a change that it holds or a later one, with the number of the last; read once for all who ask."""
        async with self._reading:
            found = {
                plan_id: known
                for plan_id, number in wanted.items()
                if (known := self._dossiers.get(plan_id)) is not None and known[0] >= number
            }
            missing = [plan_id for plan_id in wanted if plan_id not in found]
            return {**found, **(await self.read(missing))} if missing else found

    async def read(self, ids: Sequence[PlanId]) -> Mapping[PlanId, tuple[int, Dossier]]:
        """Plans as they stand now, with the numbers of their last changes."""
        async with self._db.snapshot() as tx:
            dossiers = (await self._known.read(tx, ids)).dossiers
            numbers = await changes.numbers(tx, list(dossiers))
        read = {plan_id: (numbers.get(plan_id, 0), dossier) for plan_id, dossier in dossiers.items()}
        for plan_id, each in read.items():
            self._dossiers[plan_id] = each
            self._dossiers.move_to_end(plan_id)
        while len(self._dossiers) > DOSSIERS_MAX:
            self._dossiers.popitem(last=False)
        return read


def by_plan(entries: Iterator[Entry] | Sequence[Entry]) -> dict[PlanId, list[Entry]]:
    """Changes by their plans, in order."""
    found: defaultdict[PlanId, list[Entry]] = defaultdict(list)
    for each in entries:
        found[each.plan_id].append(each)
    return dict(found)
