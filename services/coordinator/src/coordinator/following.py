"""Following all plans that a client may see: those that are not closed, then everything that happens to any of them and to new ones.

Nothing is kept of what a watcher was told but its place: any replica goes on from a token. A plan that may have fitted a filter before something happened to
it, and does not now, is told of as one that left, to whom it may have been shown and to whom it may not alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from coordinator.access import Client, may_read
from coordinator.calls import awaited_gate
from coordinator.convert.settlement import states_in
from coordinator.dossier import Dossier
from coordinator.model import State
from coordinator.plan_log import PlanLog, by_plan
from coordinator.store import changes
from coordinator.store.changes import Entry
from coordinator.watch_tokens import WatchTokens, expired
from lockstep_kit.ids import PlanId
from lockstep_kit.participant.bell import Bell, heard
from lockstep_kit.statements import Gate
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep_kit.db import Database

#: Plans of a snapshot that are read at once.
SNAPSHOT_PAGE: Final = 100
#: Changes of all plans after which a token is too old: reading on from there costs more than a snapshot.
BEHIND_MAX: Final = 100_000
#: Where a plan may wait for a gate.
GATE_STATES: Final = {
    Gate.APPROVE: frozenset({State.READY_FOR_PREPARE, State.PREPARED}),
    Gate.RELEASE: frozenset({State.PREPARED}),
    Gate.VALIDATE: frozenset({State.VALIDATING}),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which plans are followed."""

    #: In one of these states; in any where there are none.
    states: frozenset[State] = frozenset()
    #: Waiting for this gate; None: or not.
    gate: Gate | None = None
    #: Of this party; of any where it is "".
    party: str = ""

    @property
    def passing(self) -> bool:
        """Whether a plan comes to fit and ceases to."""
        return bool(self.states) or self.gate is not None

    @property
    def possible(self) -> frozenset[State]:
        """The states in which a plan may fit."""
        states = self.states or frozenset(State)
        return states if self.gate is None else states & GATE_STATES[self.gate]

    def fits(self, dossier: Dossier) -> bool:
        """Whether a plan fits, its party aside."""
        if dossier.plan.state not in self.possible:
            return False
        return self.gate is None or awaited_gate(dossier.plan, dossier.read_at or dossier.updated_at) is self.gate


@dataclass(frozen=True, slots=True)
class Wish:
    """What a watcher asked for."""

    #: Who asks.
    client: Client
    #: Which plans.
    filter: Filter = Filter()
    #: Whether it wants the plans with their changes.
    whole: bool = False
    #: How long changes are gathered.
    gather: timedelta = timedelta()

    def bound(self, incarnation: str) -> tuple[str, ...]:
        """What a token is for."""
        states = ",".join(sorted(each.value for each in self.filter.states))
        return incarnation, self.client.client_id, states, self.filter.gate or "", self.filter.party


@dataclass(frozen=True, slots=True)
class PlanNews:
    """What a watcher is told of one plan."""

    #: The plan.
    plan_id: PlanId
    #: Its last change that this holds.
    number: int
    #: Its changes.
    events: Sequence[Entry] = ()
    #: As it stands; None where only its changes are told.
    dossier: Dossier | None = None
    #: Whether it does not fit any more.
    left: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher is told at once."""

    #: Resume after this; "" where the snapshot is not complete.
    token: str
    #: Of plans.
    news: Sequence[PlanNews] = ()
    #: Whether this ends the snapshot.
    complete: bool = False
    #: Heartbeats: the database's clock.
    clock: datetime | None = None


class Following:
    """Tells watchers of all plans."""

    def __init__(self, db: Database, log: PlanLog, tokens: WatchTokens, heartbeat_seconds: float) -> None:
        self._db = db
        self._log = log
        self._tokens = tokens
        self._heartbeat_seconds = heartbeat_seconds
        self._stopping: Final = Bell()
        self._stopped = False

    def stop(self) -> None:
        """End every watch."""
        self._stopped = True
        self._stopping.ring()
        self._log.bell.ring()

    async def watch(self, wish: Wish, token: str) -> AsyncIterator[Told]:
        """What a watcher is told, until the process stops.

        Raises:
            LockstepError: RESUME_TOKEN_EXPIRED.
            FieldInvalid: no token of such a watch.
        """
        with self._log.listening():
            heard_at = asyncio.get_running_loop().time()
            if token:
                place, incarnation = await self._resume(wish, token)
                # Who comes back hears at once that he is heard.
                heard_at -= self._heartbeat_seconds
            else:
                place, incarnation, ids = await self._begin(wish)
                for first in range(0, len(ids), SNAPSHOT_PAGE):
                    yield Told("", await self._snapshot(wish, ids[first : first + SNAPSHOT_PAGE]))
                yield Told(self._tokens.seal(place, *wish.bound(incarnation)), complete=True)
            async for told in self._follow(wish, place, incarnation, heard_at):
                yield told

    async def _begin(self, wish: Wish) -> tuple[int, str, list[PlanId]]:
        """The place, the log and the plans of one moment, so that nothing falls between them."""
        async with self._db.snapshot() as tx:
            place, incarnation = await changes.head(tx)
            states = wish.filter.possible - {State.CLOSED}
            ids = await changes.standing(tx, wish.client, states, wish.filter.party)
        return place, incarnation, ids

    async def _snapshot(self, wish: Wish, ids: Sequence[PlanId]) -> list[PlanNews]:
        """Plans as they stand by now, which may be later than the snapshot's place: what happened meanwhile has numbers that say so."""
        found = await self._log.read(ids)
        return [
            PlanNews(plan_id, number, dossier=dossier)
            for plan_id, (number, dossier) in found.items()
            if not wish.filter.passing or wish.filter.fits(dossier)
        ]

    async def _resume(self, wish: Wish, token: str) -> tuple[int, str]:
        async with self._db.connection() as connection:
            last, incarnation = await changes.head(connection)
        place = self._tokens.open(token, *wish.bound(incarnation))
        if not 0 <= last - place <= BEHIND_MAX:
            raise expired("the token is too old")
        return place, incarnation

    async def _follow(self, wish: Wish, place: int, incarnation: str, told_at: float) -> AsyncIterator[Told]:
        clock = asyncio.get_running_loop()
        while not self._stopped:
            ticket, stopping = self._log.bell.ticket(), self._stopping.ticket()
            entries = await self._log.behind(place)
            news = await self._news(wish, entries)
            place = entries[-1].sequence if entries else place
            if news:
                yield Told(self._tokens.seal(place, *wish.bound(incarnation)), news)
                told_at = clock.time()
                if wish.gather:
                    await heard(stopping, wish.gather.total_seconds())
                continue
            left = told_at + self._heartbeat_seconds - clock.time()
            if (left <= 0 or (not entries and not await heard(ticket, left))) and not self._stopped:
                yield Told(self._tokens.seal(place, *wish.bound(incarnation)), clock=await self._db.now())
                told_at = clock.time()

    async def _news(self, wish: Wish, entries: Sequence[Entry]) -> list[PlanNews]:
        """What of these changes the watcher is told."""
        own = await self._visible(wish, by_plan(entries))
        possible = wish.filter.possible
        if wish.filter.passing:
            own = {plan_id: each for plan_id, each in own.items() if not possible.isdisjoint(_states(each))}
        if not own:
            return []
        if not wish.whole and not wish.filter.passing:
            return [PlanNews(plan_id, each[-1].number, each) for plan_id, each in own.items()]
        staying = {plan_id: each[-1].number for plan_id, each in own.items() if each[-1].state in possible}
        found = await self._log.dossiers(staying)
        return [_news_of(wish, plan_id, each, found.get(plan_id)) for plan_id, each in own.items()]

    async def _visible(self, wish: Wish, changed: dict[PlanId, list[Entry]]) -> dict[PlanId, list[Entry]]:
        if not changed or (wish.client.standing.sees_all and not wish.filter.party):
            return changed
        parties = await self._log.parties(changed)
        return {
            plan_id: each
            for plan_id, each in changed.items()
            if may_read(wish.client, parties.get(plan_id))
            and (not wish.filter.party or wish.filter.party in parties[plan_id].parties)
        }


def _news_of(wish: Wish, plan_id: PlanId, entries: Sequence[Entry], found: tuple[int, Dossier] | None) -> PlanNews:
    number = entries[-1].number
    if found is None or not wish.filter.fits(found[1]):
        return PlanNews(plan_id, number, entries, left=True)
    return PlanNews(plan_id, max(number, found[0]), entries, found[1])


def _states(entries: Sequence[Entry]) -> frozenset[State]:
    """Where a plan stood before, between and after changes."""
    return frozenset({entries[-1].state}).union(*(states_in(each.event) for each in entries))
