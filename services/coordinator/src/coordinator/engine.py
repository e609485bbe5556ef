"""The engine: one transaction for everything that a batch of events does to its plans.

Within a `Work` the plans' leases are held, so that a replica that lost them writes nothing; the plans are locked, stepped by the protocol, and saved
with their transitions, journal events, commands, escalations and watchers' changes together. What was committed is then sent by the loops that `wake`
names; a crash between loses nothing, since all of it is rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from coordinator import audit, calls, escalating, metrics, protocol
from coordinator.commands import Command, answered, command_of
from coordinator.convert import settlement
from coordinator.dossier import Dossier, FiledTicket
from coordinator.model import (
    CommitsWithheld,
    Created,
    Effect,
    Escalate,
    Event,
    GateRecord,
    LegState,
    Limits,
    Moved,
    Order,
    PersonNeeded,
    Record,
    Resolved,
    State,
    WriteAudit,
)
from coordinator.notices import Notice, notices
from coordinator.participants import Routes
from coordinator.payloads import journal_event
from coordinator.plan_traces import PlanTraces, tell_escalation, tell_moves
from coordinator.sealing import KeyBox, KeySealed
from coordinator.store import accepting, audits, escalation_documents, letters, operators, outboxes, plans, reading
from coordinator.store import notices as notice_store
from coordinator.store.accepting import Accepted
from coordinator.store.notices import Subscriptions
from coordinator.store.plans import SealedKey
from coordinator.wakes import Flushed, Wakes
from lockstep_kit import failpoints, leases
from lockstep_kit.certificate import Decision
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.keys import leg_key
from lockstep_kit.registry import Registry

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
        self._clock: datetime | None = None

    @property
    def clock(self) -> datetime:
        """The database's clock, as of when the first plan was read."""
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
            owner = self._engine.owner
            epochs = await leases.acquire(self.tx, wanted, owner.name, owner.generation, owner.lease)
            read = await plans.read(self.tx, [PlanId(each) for each in epochs], lock=True)
            self._clock = self._clock or read.now
            for plan_id, dossier in read.dossiers.items():
                self._engine.traces.note(plan_id, dossier.traceparent)
                self._before[plan_id] = self._now[plan_id] = dossier
                self._epochs[plan_id] = epochs[plan_id]
                self._effects[plan_id] = []
        return self._now

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

    def note(self, notice: Notice) -> None:
        """Tell of something that is no effect of a step."""
        self._noted.append(notice)

    def replace(self, dossier: Dossier) -> None:
        """Note papers of a loaded plan that the caller has saved itself."""
        self._before[dossier.plan_id] = replace(dossier, plan=self._before[dossier.plan_id].plan)
        self._now[dossier.plan_id] = dossier

    def result(self, plan_id: PlanId) -> Dossier:
        """A plan as it will be once the transaction has committed."""
        after = self._now[plan_id]
        known = len(after.tickets)
        new = operators.filed(plan_id, known, [each.ticket for each in self._effects[plan_id] if isinstance(each, Escalate)])
        closed = self._closed(plan_id)
        kept = (replace(each, resolved_at=self.clock) if each.escalation_id in closed else each for each in after.tickets)
        changed = plan_id not in self._created and self._changed(plan_id)
        return replace(
            after,
            tickets=(*kept, *new),
            version=after.version + 1 if changed else after.version,
            updated_at=self.clock if changed else after.updated_at,
        )

    def _resolved(self, plan_id: PlanId) -> tuple[Resolved, ...]:
        return tuple(each for each in self._effects[plan_id] if isinstance(each, Resolved))

    def _closed(self, plan_id: PlanId) -> dict[str, Digest]:
        """Escalations that operators closed in this transaction, each with the resolution that did."""
        resolutions = (each.mandate.resolution for each in self._resolved(plan_id) if each.forgotten and each.mandate)
        return {each.escalation_id: each.digest for each in resolutions}

    def _changed(self, plan_id: PlanId) -> bool:
        return self._now[plan_id].plan != self._before[plan_id].plan or bool(self._effects[plan_id])

    @property
    def moments(self) -> tuple[str, ...]:
        """What the transaction is, beyond its own kind: a decision, a closing."""
        moves = [each for effects in self._effects.values() for each in effects if isinstance(each, Moved)]
        decided = any(each.decision in (Decision.COMMIT, Decision.DELEGATED) and each.left is State.PREPARED for each in moves)
        closed = any(each.entered is State.CLOSED for each in moves)
        return (*(("decision",) if decided else ()), *(("close",) if closed else ()))

    def measure(self) -> None:
        """Count what was done, once it is committed."""
        for plan_id, effects in self._effects.items():
            metrics.moved(self._before[plan_id], self._now[plan_id], effects, self.clock)

    async def flush(self) -> Flushed:
        """Write everything; what has to be woken once it is committed."""
        for plan_id in sorted(self._now):
            if any(each.entered is State.PARTIALLY_EXECUTED for each in self._moves(plan_id)):
                withheld = await outboxes.withhold(self.tx, plan_id)
                if withheld:
                    self.step(plan_id, CommitsWithheld(withheld))
        changed = [plan_id for plan_id in sorted(self._now) if plan_id in self._created or self._changed(plan_id)]
        tell_moves({plan_id: self._moves(plan_id) for plan_id in changed})
        if not changed and not self._noted:
            return Flushed()
        old = [each for each in changed if each not in self._created]
        if old:
            await plans.save(self.tx, [self._stepped(each) for each in old], self.clock)
        new = sorted(self._created)
        await plans.insert_gates(self.tx, [(self._now[each].plan, 0) for each in new])
        await plans.insert_transitions(self.tx, [(each, move) for each in new for move in self._moves(each)], self.clock)
        escalated = await self._write_tickets(changed)
        recorded = await self._write_journal(changed)
        told = await self._write_commands(changed) | await self._hasten(changed)
        noticed = await self._write_notices(changed)
        telling = {plan_id: self._events(plan_id, noticed) for plan_id in {*changed, *(each.plan_id for each in noticed)}}
        audited = await self._write_audits(changed, telling)
        events = [(plan_id, octets) for plan_id in sorted(telling) for octets in telling[plan_id]]
        await outboxes.insert_events(self.tx, events, self.clock)
        checks = any(self._now[each].plan.state in (State.INITIATED, State.PRECONDITIONS_PENDING) for each in changed)
        return Flushed(told, recorded, checks, audited, escalated)

    def _moves(self, plan_id: PlanId) -> tuple[Moved, ...]:
        return tuple(each for each in self._effects[plan_id] if isinstance(each, Moved))

    def _stepped(self, plan_id: PlanId) -> plans.Stepped:
        after = self._now[plan_id].plan
        due = calls.next_due(after, self._engine.limits)
        return plans.Stepped(self._before[plan_id], after, self._moves(plan_id), self._epochs[plan_id], due)

    def _tickets(self, plan_id: PlanId) -> Sequence[FiledTicket]:
        return self.result(plan_id).tickets[len(self._now[plan_id].tickets) :]

    async def _write_tickets(self, changed: Sequence[PlanId]) -> bool:
        new = [
            (plan_id, len(self._now[plan_id].tickets) + place, filed)
            for plan_id in changed
            for place, filed in enumerate(self._tickets(plan_id), start=1)
        ]
        await operators.insert_tickets(self.tx, new)
        closed = {name: digest for plan_id in changed for name, digest in self._closed(plan_id).items()}
        await operators.close_tickets(self.tx, closed, self.clock)
        for plan_id, _, filed in new:
            tell_escalation(self._now[plan_id], filed.ticket)
        said = [each for name in changed for each in escalating.said(self.result(name), self._tickets(name), self._closed(name))]
        await escalation_documents.insert(self.tx, said, self.clock)
        return bool(said)

    async def _write_journal(self, changed: Sequence[PlanId]) -> bool:
        raised = {each: escalating.raised(self._now[each], self._effects[each], self._tickets(each)) for each in changed}
        events = [
            (plan_id, journal_event(self._now[plan_id], each, raised[plan_id].get(each.sequence)))
            for plan_id in changed
            for each in self._effects[plan_id]
            if isinstance(each, Record)
        ]
        traces = [self._now[plan_id].traceparent for plan_id, _ in events]
        await outboxes.insert_journal(self.tx, events, traces, self.clock)
        return bool(events)

    async def _write_commands(self, changed: Sequence[PlanId]) -> frozenset[str]:
        ended: list[tuple[PlanId, LegId, Order]] = []
        given: list[tuple[Command, str, LegState]] = []
        for plan_id in changed:
            dossier = self._now[plan_id]
            for old, leg in zip(self._before[plan_id].plan.legs, dossier.plan.legs, strict=True):
                if old != leg and leg.order is not Order.NONE:
                    ended.append((plan_id, leg.leg_id, Order.NONE if answered(leg) else leg.order))
            for effect in self._effects[plan_id]:
                command = command_of(plan_id, effect)
                if command is not None:
                    file = dossier.files[dossier.index(command.leg_id)]
                    given.append((command, file.participant, dossier.plan.legs[dossier.index(command.leg_id)]))
        # The last command about a leg is the one in force.
        last = {(command.plan_id, command.leg_id): (command, participant, leg.kind) for command, participant, leg in given}
        await outboxes.end(self.tx, ended)
        # Whatever brought the plan on, its work goes on in the trace of the call that created it: one settlement, one trace.
        traces = [self._now[plan_id].traceparent for plan_id, _ in last]
        await outboxes.give(self.tx, list(last.values()), traces, self.clock)
        return frozenset(participant for _, participant, _ in given)

    async def _hasten(self, changed: Sequence[PlanId]) -> frozenset[str]:
        """What operators want tried again now is due now, what was given up included; the participants concerned."""
        told: set[str] = set()
        for plan_id in changed:
            mandates = [each.mandate for each in self._resolved(plan_id) if each.hastens]
            if mandates:
                who = " and ".join(mandates[0].actors) if mandates[0] is not None else ""
                _, revived = await letters.replay(self.tx, await letters.open_of(self.tx, plan_id), who)
                unanswered = await outboxes.hasten(self.tx, [plan_id])
                told |= revived | {participant for _, _, participant in unanswered}
        return frozenset(told)

    async def _write_notices(self, changed: Sequence[PlanId]) -> list[Notice]:
        """What people and other systems are told; only what they were not told before."""
        told = list(self._noted)
        for plan_id in changed:
            after, closed = self.result(plan_id), self._closed(plan_id)
            over = [each for each in after.tickets if each.escalation_id in closed]
            told.extend(notices(after.plan, self._effects[plan_id], self._tickets(plan_id), over, self.clock))
        traces = {each.plan_id: self._now[each.plan_id].traceparent for each in told}
        return await notice_store.write(self.tx, told, traces, self._engine.subscriptions)

    async def _write_audits(self, changed: Sequence[PlanId], telling: Mapping[PlanId, Sequence[bytes]]) -> bool:
        """The abort audit logs that were ordered, written from what is stored by now and what watchers will be told."""
        ordered = [
            self.result(plan_id)
            for plan_id in changed
            if self._now[plan_id].plan.auditing_since is not None
            and any(isinstance(each, WriteAudit) for each in self._effects[plan_id])
        ]
        if ordered:
            papers = await audits.papers(self.tx, ordered, telling, self.clock)
            await audits.insert(self.tx, {each.dossier.plan_id: audit.audit_log(each) for each in papers}, self.clock)
        return bool(ordered)

    def _events(self, plan_id: PlanId, noticed: Sequence[Notice]) -> list[bytes]:
        before, after = self._before[plan_id].plan, self._now[plan_id]
        told: list[settlement.Change] = []
        for old, leg, file in zip(before.legs, after.plan.legs, after.files, strict=True):
            if settlement.shown(old) != settlement.shown(leg):
                told.append((file, leg))
        told.extend(after.plan.gates[len(before.gates) :])
        told.extend(each.mandate for each in self._resolved(plan_id) if each.mandate is not None)
        told.extend(each for each in self.result(plan_id).tickets if each.escalation_id in self._closed(plan_id))
        told.extend(self._tickets(plan_id))
        told.extend(each for each in noticed if each.plan_id == plan_id)
        told.extend(self._moves(plan_id))
        return [settlement.event_octets(plan_id, self.clock, each) for each in told]


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
    ) -> None:
        self.db: Final = db
        self.traces: Final = PlanTraces(db)
        self.owner: Final = owner
        self.limits: Final = limits
        self.routes: Final = routes
        self.registry: Final = registry
        self.box: Final = box
        self.subscriptions: Final = subscriptions
        self.wakes: Final = Wakes({name: asyncio.Event() for name in routes.names})

    @asynccontextmanager
    async def work(self, kind: str) -> AsyncIterator[Work]:
        """A transaction; it commits when the block ends, and nothing of it stays when the block raises."""
        await failpoint(f"coordinator.{kind}.before_tx")
        async with self.db.transaction() as tx:
            work = Work(self, tx)
            yield work
            flushed = await work.flush()
            moments = work.moments
            for each in (kind, *moments):
                await failpoint(f"coordinator.{each}.in_tx")
        for each in (kind, *moments):
            await failpoint(f"coordinator.{each}.after_commit")
        work.measure()
        self.wakes.takeovers.note(work.epochs)
        self.wake(flushed)

    def wake(self, flushed: Flushed) -> None:
        """Have what was written sent at once."""
        self.wakes.wake(flushed)

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
        async with self.traces.span(f"coordinator.{kind}", ids), self.work(kind) as work:
            loaded = await work.load(ids)
            for plan_id, dossier in list(loaded.items()):
                for event in events(dossier, work.clock):
                    work.step(plan_id, event)
            return {plan_id: work.result(plan_id) for plan_id in loaded}

    async def call(self, plan_id: PlanId, reason: str, leg_id: str, detail: str) -> None:
        """Call a person about a plan, unless one was called for the same already."""
        needed = PersonNeeded(reason, leg_id, detail)
        await self.apply("outcome", [plan_id], lambda _, __: [needed])

    async def read(self, ids: Iterable[PlanId]) -> Mapping[PlanId, Dossier]:
        """Plans as they stand."""
        async with reading.snapshot(self.db) as tx:
            return (await plans.read(tx, ids)).dossiers

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
