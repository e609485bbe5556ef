"""Following one plan: everything behind a place in the log of changes, then live, with heartbeats.

Pulled, never pushed: changes are taken when the ones before have been, so that a slow watcher costs one page of memory and no more. A place is the number of
a change within its plan, so that nothing that a watcher is given tells how much happens to other plans, and any replica can go on from it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import grpc

from coordinator.dossier import Dossier
from coordinator.dossiers import Dossiers
from coordinator.following import Following, Told, Wish
from coordinator.model import State
from coordinator.plan_log import Follower, PlanLog
from coordinator.store import plans, reading
from coordinator.store.reading import Change
from coordinator.watch_tokens import WatchTokens
from lockstep_kit.errors import LockstepError, not_found
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.participant.bell import heard
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep_kit.db import Database

PAGE_MAX: Final = 256
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
    """Tells those who follow plans, and ends them when the process stops."""

    def __init__(self, db: Database, dossiers: Dossiers, tokens: WatchTokens, heartbeat_seconds: float) -> None:
        self._db = db
        self._heartbeat_seconds = heartbeat_seconds
        self._log = PlanLog(db, dossiers)
        self._all = Following(db, self._log, tokens, heartbeat_seconds)
        self.draining = False

    @property
    def count(self) -> int:
        """Open watches."""
        return self._log.count

    def loop(self) -> Loop:
        """The loop that reads the log for all of them."""
        return self._log.loop()

    async def drain(self) -> None:
        """End every watch: the process is about to stop."""
        self.draining = True
        self._all.stop()
        self._log.wake()

    def watch_all(self, wish: Wish, token: str) -> AsyncIterator[Told]:
        """What a watcher of all plans is told, until the process's end.

        Raises:
            LockstepError: RESUME_TOKEN_EXPIRED.
            FieldInvalid: no token of such a watch.
        """
        return self._all.watch(wish, token)

    async def watch(self, plan_id: PlanId, token: str) -> AsyncIterator[Seen]:
        """What a watcher is shown, until the plan's last change or the process's end.

        Raises:
            LockstepError: no such plan, or RESUME_TOKEN_EXPIRED.
            FieldInvalid: no token of a watch.
        """
        with self._log.following(plan_id) as follower:
            async for seen in self._watch(plan_id, token, follower):
                yield seen

    async def _watch(self, plan_id: PlanId, token: str, follower: Follower) -> AsyncIterator[Seen]:
        first = await self._resume(plan_id, token) if token else await self._snapshot(plan_id)
        if first.snapshot is not None:
            yield first
        place, silent = first.place, False
        while not self.draining:
            ticket, entries = follower.bell.ticket(), follower.take(place.number)
            changes = [] if entries is None else [Change(each.number, each.event) for each in entries]
            read = silent or entries is None or any(each.state is State.CLOSED for each in entries)
            over, clock = False, None
            if read:
                changes, over, clock = await self._read(place)
            for change in changes:
                place = Place(plan_id, place.incarnation, change.number)
                yield Seen(place, change=change)
            if len(changes) == PAGE_MAX:
                follower.miss()
            elif over:
                return
            if silent and not changes:
                yield Seen(place, clock=clock)
            silent = not changes and not await heard(ticket, self._heartbeat_seconds)

    async def _snapshot(self, plan_id: PlanId) -> Seen:
        """The plan and its place, of one moment, so that nothing falls between them."""
        async with self._db.snapshot() as tx:
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
        async with self._db.snapshot() as tx:
            changes = await reading.changes(tx, place.plan_id, place.number, PAGE_MAX)
            over, clock = await reading.closed(tx, place.plan_id)
        return changes, over, clock
