"""The engine: one transaction for everything that a batch of events does to its plans.

Within a `Work` the plans' leases are held, so that a replica that lost them writes nothing; the plans are locked, stepped by the protocol, and saved
with their transitions, journal events, commands, escalations and watchers' changes together. What was committed is then sent by the loops that `wake`
names; a crash between loses nothing, since all of it is rows.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from coordinator import calls, commands, metrics, protocol
from coordinator.changes import Change
from coordinator.dossier import Dossier
from coordinator.dossiers import Dossiers
from coordinator.flushing import Flush
from coordinator.model import CommitsWithheld, Created, Effect, Event, GateRecord, Limits, Moved, PersonNeeded, State
from coordinator.notices import Notice
from coordinator.participants import Routes
from coordinator.plan_traces import PlanTraces
from coordinator.pressure import Pressure
from coordinator.sealing import KeyBox, KeySealed
from coordinator.sharing import Answer, Share, Sharing
from coordinator.store import accepting, outboxes, plans
from coordinator.store.accepting import Accepted
from coordinator.store.notices import Subscriptions
from coordinator.store.plans import Read, SealedKey
from coordinator.store.writing import Writing
from coordinator.wakes import Flushed, Orders, Wakes
from lockstep_kit import failpoints, leases
from lockstep_kit.certificate import Decision
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.keys import leg_key
from lockstep_kit.registry import Registry
from lockstep_kit.values import dataclass, replace

if TYPE_CHECKING:
    from lockstep_kit.db import Connection, Database

_log = structlog.get_logger()

#: What transactions are for; each has failpoints of its own.
KINDS: Final = (
    "create", "execute", "checks", "gate", "resolve", "vote", "outcome", "tick", "takeover", "audit", "decision", "close",
)  # fmt: skip

#: What a transaction turns out to be, in it alone.
MOMENTS: Final = ("decision", "close")

failpoints.declare(
    *(f"coordinator.{kind}.before_tx" for kind in KINDS if kind not in MOMENTS),
    *(f"coordinator.{kind}.{where}" for kind in KINDS for where in ("in_tx", "after_commit")),
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds leases: one process of one replica."""

    #: Unique to the process.
    name: str
    #: Lives outside the database; raised by every restore.
    generation: int
    #: How long a lease lasts without activity.
    lease: timedelta


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A plan that a client brings."""

    #: The plan with its papers, before anything happened to it.
    dossier: Dossier
    #: Its key, sealed.
    key: SealedKey
    #: The maker's signature.
    make: GateRecord
    #: The client.
    creator: str


class Work:
    """One transaction over some plans. What `step` does becomes rows when the block ends."""

    def __init__(self, engine: Engine, tx: Connection) -> None:
        self.tx: Final = tx
        self._engine = engine
        self._before: dict[PlanId, Dossier] = {}
        self._now: dict[PlanId, Dossier] = {}
        self._effects: dict[PlanId, list[Effect]] = {}
        self._epochs: dict[PlanId, Epoch] = {}
        self._created: set[PlanId] = set()
        self._noted: list[Notice] = []
        self._writing = Writing()
        #: What was written, once it was.
        self._written: Sequence[Change] = ()
        self._clock: datetime | None = None

    @property
    def clock(self) -> datetime:
        """The database's clock, as of when the plans were read."""
        if self._clock is None:
            raise AssertionError("no plan was read in this transaction")
        return self._clock

    @property
    def epochs(self) -> Mapping[PlanId, Epoch]:
        """Under which epochs the plans are held."""
        return self._epochs

    async def load(self, ids: Iterable[PlanId]) -> Mapping[PlanId, Dossier]:
        """Plans that this replica holds from now until the transaction ends, locked. Those that another holds, or nobody knows, are left out."""
        wanted = sorted(set(ids) - self._now.keys())
        if wanted:
            owner, dossiers = self._engine.owner, self._engine.dossiers
            seen, held = await plans.glance_held(self.tx, wanted, owner.name, owner.generation, owner.lease * leases.LEFT)
            self._take(await dossiers.seen(self.tx, seen), held)
            others = [each for each in wanted if each not in held]
            if others:
                taken = await leases.acquire(self.tx, others, owner.name, owner.generation, owner.lease)
                epochs = {PlanId(each): epoch for each, epoch in taken.items()}
                self._take(await dossiers.read(self.tx, epochs, lock=True), epochs)
        return self._now

    def _take(self, read: Read, epochs: Mapping[PlanId, Epoch]) -> None:
        """Plans that are held, as they were read."""
        if read.now is not None:
            self._clock = read.now if self._clock is None else max(self._clock, read.now)
        for plan_id, dossier in read.dossiers.items():
            self._engine.traces.note(plan_id, dossier.traceparent)
            self._before[plan_id] = self._now[plan_id] = dossier
            self._epochs[plan_id] = epochs[plan_id]
            self._effects[plan_id] = []

    async def create(self, new: Sequence[Newcomer]) -> bool:
        """Accept plans that clients brought; False where there is one with the id of one of them already, and nothing of the transaction must stay."""
        owner, limits = self._engine.owner, self._engine.limits
        held = await leases.acquire(self.tx, [each.dossier.plan_id for each in new], owner.name, owner.generation, owner.lease)
        if len(held) != len(new):
            return False
        made = [protocol.step(each.dossier.plan, Created(each.make), each.make.at, limits) for each in new]
        after = [replace(each.dossier, plan=stepped.plan) for each, stepped in zip(new, made, strict=True)]
        accepted = [
            Accepted(dossier, each.key, held[dossier.plan_id], calls.next_due(dossier.plan, limits), each.creator)
            for each, dossier in zip(new, after, strict=True)
        ]
        if not await accepting.insert(self.tx, accepted):
            return False
        for each, dossier, stepped in zip(new, after, made, strict=True):
            plan_id, self._clock = dossier.plan_id, each.make.at
            self._engine.traces.note(plan_id, dossier.traceparent)
            self._before[plan_id], self._now[plan_id] = each.dossier, dossier
            self._epochs[plan_id], self._effects[plan_id] = held[plan_id], list(stepped.effects)
            self._created.add(plan_id)
        return True

    def dossier(self, plan_id: PlanId) -> Dossier:
        """A loaded plan, as it stands after the steps so far."""
        return self._now[plan_id]

    def step(self, plan_id: PlanId, event: Event) -> Dossier:
        """Give a loaded plan an event; the plan as it is after it, and will be saved."""
        before = self._now[plan_id]
        stepped = protocol.step(before.plan, event, self.clock, self._engine.limits)
        after = replace(before, plan=stepped.plan)
        if after != before or stepped.effects:
            self._now[plan_id] = after
            self._effects[plan_id].extend(stepped.effects)
        return self._now[plan_id]

    def attempt(self, share: Share[Answer]) -> Answer | Exception:
        """Do the steps of a share; where they cannot be, the error, and its plans are as they were before."""
        before = [(each, self._now[each], len(self._effects[each])) for each in share.ids if each in self._now]
        noted = len(self._noted)
        try:
            return share.step(self)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            for plan_id, dossier, count in before:
                self._now[plan_id] = dossier
                del self._effects[plan_id][count:]
            del self._noted[noted:]
            return error

    def note(self, notice: Notice) -> None:
        """Tell of something that is no effect of a step."""
        self._noted.append(notice)

    def heard(self, participant: str, incarnation: str, sequence: int) -> None:
        """Note where a participant's outcome log was read to."""
        self._writing.heard(participant, incarnation, sequence)

    def replace(self, dossier: Dossier) -> None:
        """Note papers of a loaded plan that the caller has saved itself."""
        self._before[dossier.plan_id] = replace(dossier, plan=self._before[dossier.plan_id].plan)
        self._now[dossier.plan_id] = dossier

    def result(self, plan_id: PlanId) -> Dossier:
        """A plan as it will be once the transaction has committed."""
        return self._change(plan_id).result

    def _change(self, plan_id: PlanId) -> Change:
        effects, created = tuple(self._effects[plan_id]), plan_id in self._created
        return Change(self._before[plan_id], self._now[plan_id], effects, created, self._epochs[plan_id], self.clock)

    @property
    def moments(self) -> tuple[str, ...]:
        """What the transaction is, beyond its own kind: a decision, a closing."""
        moves = [each for effects in self._effects.values() for each in effects if isinstance(each, Moved)]
        decided = any(each.decision in (Decision.COMMIT, Decision.DELEGATED) and each.left is State.PREPARED for each in moves)
        closed = any(each.entered is State.CLOSED for each in moves)
        return (*(("decision",) if decided else ()), *(("close",) if closed else ()))

    def committed(self) -> None:
        """Count and remember what was done, once it is committed."""
        for change in self._written:
            metrics.moved(change.before, change.after, change.effects, change.now)
        self._engine.dossiers.note(self._written)
        changed = [each for each in self._written if each.changed and each.after.plan.state is not State.DRAFT]
        closed = {each.plan_id for each in changed if each.after.plan.state is State.CLOSED}
        self._engine.pressure.worked(each.plan_id for each in changed if each.plan_id not in closed)
        self._engine.pressure.ended(closed)

    async def flush(self) -> Flushed:
        """Write everything; what has to be woken once it is committed."""
        for plan_id in sorted(self._now):
            moved = (each for each in self._effects[plan_id] if isinstance(each, Moved))
            if any(each.entered is State.PARTIALLY_EXECUTED for each in moved):
                withheld = await outboxes.withhold(self.tx, plan_id)
                if withheld:
                    self.step(plan_id, CommitsWithheld(withheld))
        self._written = [self._change(plan_id) for plan_id in sorted(self._now)]
        engine = self._engine
        flush = Flush(
            self.tx,
            self._written,
            self._noted,
            limits=engine.limits,
            subscriptions=engine.subscriptions,
            writing=self._writing,
            records=engine.wakes.records,
            repeat=engine.repeat_after(0),
        )
        return await flush.write()


class Engine:
    """Runs transactions over plans, and wakes the loops that go on from them."""

    def __init__(
        self,
        *,
        db: Database,
        owner: Owner,
        limits: Limits,
        routes: Routes,
        registry: Registry,
        box: KeyBox,
        subscriptions: Subscriptions,
        pressure: Pressure,
    ) -> None:
        self.db: Final = db
        self.traces: Final = PlanTraces(db)
        self.dossiers: Final = Dossiers()
        self.owner: Final = owner
        self.limits: Final = limits
        self.routes: Final = routes
        self.registry: Final = registry
        self.box: Final = box
        self.subscriptions: Final = subscriptions
        self.pressure: Final = pressure
        self.wakes: Final = Wakes({name: Orders() for name in routes.names}, routes.journal)
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._sharing: Final = Sharing(self)

    @asynccontextmanager
    async def work(self, *kinds: str) -> AsyncIterator[Work]:
        """A transaction; it commits when the block ends, and nothing of it stays when the block raises."""
        for each in kinds:
            await failpoint(f"coordinator.{each}.before_tx")
        async with self.db.transaction() as tx:
            work = Work(self, tx)
            yield work
            flushed = await work.flush()
            moments = work.moments
            for each in (*kinds, *moments):
                await failpoint(f"coordinator.{each}.in_tx")
        for each in (*kinds, *moments):
            await failpoint(f"coordinator.{each}.after_commit")
        work.committed()
        self.wakes.takeovers.note(work.epochs)
        self.wake(flushed)

    def repeat_after(self, attempts: int) -> timedelta:
        """Time until a command that was sent so often before is sent again."""
        return commands.repeat_after(attempts, self._rng.random())

    def wake(self, flushed: Flushed) -> None:
        """Have what was written sent at once."""
        self.wakes.wake(flushed)

    async def share(self, share: Share[Answer]) -> Answer:
        """Do a share in the next transaction, with whatever else waits for it. Shares of one plan are done in the order in which they came.

        Raises:
            Exception: its step's own, or what its transaction ended with.
        """
        with self.pressure.timed("shared"):
            return await self._sharing.done(share)

    async def drained(self) -> None:
        """Return once no shared transaction is under way."""
        await self._sharing.drained()

    async def apply(
        self, kind: str, ids: Sequence[PlanId], events: Callable[[Dossier, datetime], Sequence[Event]]
    ) -> Mapping[PlanId, Dossier]:
        """Give plans events in one transaction; the plans that this replica holds, as they are then.

        A plan that an event drives into an impossibility is left as it was and logged; it does not keep the others from going on.

        Raises:
            AssertionError: the only plan is such a one.
        """
        try:
            return await self._apply(kind, ids, events)
        except AssertionError as error:
            if len(ids) == 1:
                raise
            _log.exception("batch_taken_apart", kind=kind, error=str(error))
        found: dict[PlanId, Dossier] = {}
        for plan_id in ids:
            try:
                found.update(await self._apply(kind, [plan_id], events))
            except AssertionError:
                _log.exception("plan_impossible", kind=kind, plan_id=plan_id)
        return found

    async def _apply(
        self, kind: str, ids: Sequence[PlanId], events: Callable[[Dossier, datetime], Sequence[Event]]
    ) -> Mapping[PlanId, Dossier]:
        def step(work: Work) -> Mapping[PlanId, Dossier]:
            held = [plan_id for plan_id in sorted(set(ids)) if plan_id in work.epochs]
            for plan_id in held:
                for event in events(work.dossier(plan_id), work.clock):
                    work.step(plan_id, event)
            return {plan_id: work.result(plan_id) for plan_id in held}

        return await self.share(Share(kind, frozenset(ids), step))

    async def call(self, plan_id: PlanId, reason: str, leg_id: str, detail: str) -> None:
        """Call a person about a plan, unless one was called for the same already."""
        needed = PersonNeeded(reason, leg_id, detail)
        await self.apply("outcome", [plan_id], lambda _, __: [needed])

    async def read(self, ids: Iterable[PlanId]) -> Mapping[PlanId, Dossier]:
        """Plans as they stand."""
        async with self.db.snapshot() as tx:
            return (await self.dossiers.read(tx, ids)).dossiers

    async def leg_keys(self, connection: Connection, dossiers: Sequence[Dossier]) -> dict[PlanId, dict[LegId, bytes] | KeySealed]:
        """The settling legs' keys of each plan, or why its key cannot be opened."""
        sealed = await plans.sealed_keys(connection, [each.plan_id for each in dossiers]) if dossiers else {}
        found: dict[PlanId, dict[LegId, bytes] | KeySealed] = {}
        for each in dossiers:
            try:
                plan_key = self.box.open(each.plan_id, *sealed[each.plan_id])
            except KeySealed as error:
                found[each.plan_id] = error
            else:
                found[each.plan_id] = {leg.leg_id: leg_key(plan_key, each.plan_id, leg.leg_id) for leg in each.legs if leg.settling}
        return found
