"""Following a plan: everything behind a place in the log of changes, then live, with heartbeats.

Pulled, never pushed: changes are read when the ones before have been taken, so that a slow watcher costs one page of memory and no more. A place is the
number of a change within its plan; changes are put into one order by a number that is taken last in their transaction, so that no watcher passes over one
that commits later, and any replica can go on from a place. Nothing that a watcher is given tells how much happens to other plans.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import grpc

from coordinator.dossier import Dossier
from coordinator.store import plans, reading
from coordinator.store.outboxes import EVENT_CHANNEL
from coordinator.store.reading import Change
from lockstep_kit.errors import LockstepError, not_found
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.participant.bell import Bell, heard

if TYPE_CHECKING:
    from lockstep_kit.db import Database

PAGE_MAX: Final = 256
#: Plans whose watchers are woken at one look.
CHANGED_MAX: Final = 1_000
POLL_SECONDS: Final = 1.0
_MARK_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log of changes of one plan."""

    #: The plan.
    plan_id: PlanId
    #: Log that the number is of.
    incarnation: str
    #: Last change of the plan that was seen.
    number: int

    def token(self) -> str:
        """The place as watchers keep it: opaque, and of use for this plan alone."""
        return base64.urlsafe_b64encode(self.number.to_bytes(8, "big") + self._mark()).decode("ascii")

    def _mark(self) -> bytes:
        return hashlib.sha256(f"{self.plan_id}\x1f{self.incarnation}\x1f{self.number}".encode()).digest()[:_MARK_BYTES]


def place_of(token: str, plan_id: PlanId, incarnation: str, last: int) -> Place:
    """The place that a token names.

    Raises:
        FieldInvalid: no token of a watch.
        LockstepError: RESUME_TOKEN_EXPIRED; the token is of another plan or of a log that is no more: start anew, without it.
    """
    try:
        octets = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        octets = b""
    if len(octets) != 8 + _MARK_BYTES:
        raise FieldInvalid("resume_token", "must be a token of a message of WatchPlan")
    place = Place(plan_id, incarnation, int.from_bytes(octets[:8], "big"))
    if place.token() != token or place.number > last:
        why = "the token is of another plan, or of a log that is no more: watch again without it"
        raise LockstepError(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", why, {"plan_id": plan_id})
    return place


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watcher is shown."""

    #: Resume after this.
    place: Place
    #: The plan as it stood when the watch began; None afterwards.
    snapshot: Dossier | None = None
    #: A change; None in snapshots and heartbeats.
    change: Change | None = None
    #: Heartbeats: the database's clock.
    clock: datetime | None = None


class Watchers:
    """Wakes those who follow plans, and ends them when the process stops."""

    def __init__(self, db: Database, heartbeat_seconds: float) -> None:
        self._db = db
        self._heartbeat_seconds = heartbeat_seconds
        self._bells: dict[PlanId, tuple[Bell, int]] = {}
        self._at: int | None = None
        self.draining = False

    @property
    def count(self) -> int:
        """Open watches."""
        return sum(count for _, count in self._bells.values())

    def loop(self) -> Loop:
        """The loop that hears of changes, of this and of other replicas."""
        loop = Loop("watchers", self.run, poll_seconds=POLL_SECONDS)
        self._db.listen(EVENT_CHANNEL, loop.wake)
        return loop

    async def run(self) -> None:
        """Wake whoever follows a plan that has changed since the last look."""
        async with self._db.connection() as connection:
            if self._at is None:
                self._at = await reading.event_head(connection)
                self._ring(self._bells)
            while changed := await reading.changed(connection, self._at, CHANGED_MAX):
                self._at = changed[-1][0]
                self._ring(plan_id for _, plan_id in changed)

    def _ring(self, ids: Iterable[PlanId]) -> None:
        for plan_id in set(ids) & self._bells.keys():
            self._bells[plan_id][0].ring()

    async def drain(self) -> None:
        """End every watch: the process is about to stop."""
        self.draining = True
        self._ring(self._bells)

    async def watch(self, plan_id: PlanId, token: str) -> AsyncIterator[Seen]:
        """What a watcher is shown, until the plan's last change or the process's end.

        Raises:
            LockstepError: no such plan, or RESUME_TOKEN_EXPIRED.
            FieldInvalid: no token of a watch.
        """
        bell, count = self._bells.get(plan_id, (Bell(), 0))
        self._bells[plan_id] = (bell, count + 1)
        try:
            async for seen in self._watch(plan_id, token, bell):
                yield seen
        finally:
            bell, count = self._bells.pop(plan_id)
            if count > 1:
                self._bells[plan_id] = (bell, count - 1)

    async def _watch(self, plan_id: PlanId, token: str, bell: Bell) -> AsyncIterator[Seen]:
        first = await self._resume(plan_id, token) if token else await self._snapshot(plan_id)
        if first.snapshot is not None:
            yield first
        place = first.place
        while not self.draining:
            ticket = bell.ticket()
            changes, over, clock = await self._read(place)
            for change in changes:
                place = Place(plan_id, place.incarnation, change.number)
                yield Seen(place, change=change)
            if over and len(changes) < PAGE_MAX:
                return
            if not changes and not await heard(ticket, self._heartbeat_seconds) and not self.draining:
                yield Seen(place, clock=clock)

    async def _snapshot(self, plan_id: PlanId) -> Seen:
        """The plan and its place, of one moment, so that nothing falls between them."""
        async with reading.snapshot(self._db) as tx:
            number, incarnation = await reading.plan_event_head(tx, plan_id)
            found = (await plans.read(tx, [plan_id])).dossiers
        if plan_id not in found:
            raise not_found("plan", plan_id)
        return Seen(Place(plan_id, incarnation, number), snapshot=found[plan_id])

    async def _resume(self, plan_id: PlanId, token: str) -> Seen:
        async with self._db.connection() as connection:
            if not await reading.exists(connection, plan_id):
                raise not_found("plan", plan_id)
            last, incarnation = await reading.plan_event_head(connection, plan_id)
        return Seen(place_of(token, plan_id, incarnation, last))

    async def _read(self, place: Place) -> tuple[list[Change], bool, datetime]:
        """Changes behind a place, whether the plan is closed, and the database's clock, of one moment."""
        async with reading.snapshot(self._db) as tx:
            changes = await reading.changes(tx, place.plan_id, place.number, PAGE_MAX)
            over, clock = await reading.closed(tx, place.plan_id)
        return changes, over, clock
