"""Writes what a transaction did to its plans: the plans, and everything that is told of it, in one statement for all of them but for what is rare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from coordinator import audit, calls, escalating
from coordinator.changes import Change
from coordinator.commands import Command, answered, command_of
from coordinator.convert import settlement
from coordinator.convert.participant import Outgoing
from coordinator.model import Limits, Order, Record, State, WriteAudit
from coordinator.notices import Notice, notices
from coordinator.payloads import journal_event
from coordinator.plan_traces import tell_escalation, tell_moves
from coordinator.store import audits, escalation_documents, letters, operators, outboxes
from coordinator.store import notices as notice_store
from coordinator.store.notices import Subscriptions
from coordinator.store.outboxes import PendingEvent
from coordinator.store.writing import Stepped, Writing
from coordinator.wakes import Flushed, Records
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.plan import LegKind
from lockstep_kit.values import replace

if TYPE_CHECKING:
    from lockstep_kit.db import Connection


class Flush:
    """One transaction's writing."""

    def __init__(
        self,
        tx: Connection,
        loaded: Sequence[Change],
        noted: Sequence[Notice],
        *,
        limits: Limits,
        subscriptions: Subscriptions,
        writing: Writing,
        records: Records,
        repeat: timedelta,
    ) -> None:
        """`loaded` are the transaction's plans, in the order of their ids; `noted` is told, and `writing` written, beside what follows from their effects.

        `records` knows what the journal has; after `repeat` the commands that are given are due again.
        """
        self._tx: Final = tx
        self._loaded: Final[Mapping[PlanId, Change]] = {each.plan_id: each for each in loaded}
        self._changed: Final = [each for each in loaded if each.changed]
        self._noted: Final = noted
        self._limits: Final = limits
        self._subscriptions: Final = subscriptions
        self._writing: Final = writing
        self._records: Final = records
        self._repeat: Final = repeat

    async def write(self) -> Flushed:
        """Write everything; what has to be woken once it is committed."""
        changed, writing = self._changed, self._writing
        if not changed and not self._noted:
            await writing.write(self._tx, None)
            return Flushed()
        now = next(iter(self._loaded.values())).now
        tell_moves({each.plan_id: each.moves for each in changed})
        self._write_plans()
        recorded = self._write_journal(now)
        given, closing = self._write_commands()
        escalated = await self._write_tickets(now)
        noticed = await self._write_notices(now)
        about = sorted({*(each.plan_id for each in changed), *(each.plan_id for each in noticed)})
        telling = {plan_id: self._events(self._loaded[plan_id], noticed) for plan_id in about}
        due = await self._hasten(now)
        audited = await self._write_audits(telling, now)
        for plan_id, events in telling.items():
            writing.told(plan_id, events)
        await writing.write(self._tx, now)
        checks = [each for each in changed if each.after.plan.state in (State.INITIATED, State.PRECONDITIONS_PENDING)]
        # A validator reads the journal before anything is signed.
        awaited = any(each.after.plan.state is State.VALIDATING for each in changed)
        return Flushed(given, due, closing, recorded, awaited, frozenset(each.plan_id for each in checks), audited, escalated)

    def _write_plans(self) -> None:
        for each in self._changed:
            plan = each.after.plan
            if each.created:
                self._writing.signed(plan, 0)
            else:
                self._writing.stepped(Stepped(each.before, plan, each.epoch, calls.next_due(plan, self._limits)))
            for move in each.moves:
                self._writing.moved(each.plan_id, move)

    async def _write_tickets(self, now: datetime) -> bool:
        new = [
            (each.plan_id, len(each.after.tickets) + place, filed)
            for each in self._changed
            for place, filed in enumerate(each.tickets, start=1)
        ]
        await operators.insert_tickets(self._tx, new)
        closed = {name: digest for each in self._changed for name, digest in each.closed.items()}
        await operators.close_tickets(self._tx, closed, now)
        for plan_id, _, filed in new:
            tell_escalation(self._loaded[plan_id].after, filed.ticket)
        said = [told for each in self._changed for told in escalating.said(each.result, each.tickets, each.closed)]
        await escalation_documents.insert(self._tx, said, now)
        return bool(said)

    def _write_journal(self, now: datetime) -> tuple[PendingEvent, ...]:
        raised = {each.plan_id: escalating.raised(each.after, each.effects, each.tickets) for each in self._changed if each.tickets}
        pending: list[PendingEvent] = []
        for each in self._changed:
            for record in each.effects:
                if isinstance(record, Record):
                    event = journal_event(each.after, record, raised.get(each.plan_id, {}).get(record.sequence))
                    self._writing.recorded(each.plan_id, event, each.after.traceparent)
                    if not each.after.frozen:
                        pending.append(PendingEvent(each.plan_id, event, now, each.after.traceparent, each.epoch))
        return tuple(pending)

    def _write_commands(self) -> tuple[tuple[tuple[str, Outgoing], ...], Mapping[PlanId, int]]:
        """The commands that are being sent, with their participants; and plans whose journal is closed once it is known to have what is before that: so far."""
        # The last command about a leg is the one in force.
        last: dict[tuple[PlanId, LegId], tuple[Command, str, LegKind, bool]] = {}
        closing: dict[PlanId, int] = {}
        for each in self._changed:
            dossier = each.after
            for old, leg in zip(each.before.plan.legs, dossier.plan.legs, strict=True):
                if old is not leg and old != leg and leg.order is not Order.NONE:
                    self._writing.ended(each.plan_id, leg.leg_id, Order.NONE if answered(leg) else leg.order)
            for effect in each.effects:
                command = command_of(each.plan_id, effect)
                if command is not None:
                    index = dossier.index(command.leg_id)
                    kind = dossier.plan.legs[index].kind
                    # Its own closing entry is reserved, and what is before that must be there.
                    waits = outboxes.behind_journal(command, kind) and not self._records.has(
                        each.plan_id, dossier.plan.journal_sequence - 1
                    )
                    last[each.plan_id, command.leg_id] = (command, dossier.files[index].participant, kind, not waits)
        given: list[tuple[str, Outgoing]] = []
        for command, participant, kind, sent in last.values():
            change = self._loaded[command.plan_id]
            # Whatever brought the plan on, its work goes on in the trace of the call that created it: one settlement, one trace.
            traceparent = change.after.traceparent
            self._writing.given(command, participant, kind, traceparent, self._repeat if sent else None)
            if sent:
                given.append((participant, Outgoing(replace(command, traceparent=traceparent), change.result, change.epoch, b"")))
            else:
                closing[command.plan_id] = change.after.plan.journal_sequence - 1
        return tuple(given), closing

    async def _hasten(self, now: datetime) -> frozenset[str]:
        """What operators want tried again now is due now, what was given up included; the participants concerned."""
        told: set[str] = set()
        for change in self._changed:
            mandates = [each.mandate for each in change.resolved if each.hastens]
            if mandates:
                # What is given in this transaction is among it.
                await self._writing.write(self._tx, now)
                who = " and ".join(mandates[0].actors) if mandates[0] is not None else ""
                _, revived = await letters.replay(self._tx, await letters.open_of(self._tx, change.plan_id), who)
                unanswered = await outboxes.hasten(self._tx, [change.plan_id])
                told |= revived | {participant for _, _, participant in unanswered}
        return frozenset(told)

    async def _write_notices(self, now: datetime) -> list[Notice]:
        """What people and other systems are told; only what they were not told before."""
        told = list(self._noted)
        for each in self._changed:
            over = [ticket for ticket in each.result.tickets if ticket.escalation_id in each.closed] if each.closed else []
            told.extend(notices(each.result.plan, each.effects, each.tickets, over, now))
        traces = {each.plan_id: self._loaded[each.plan_id].after.traceparent for each in told}
        return await notice_store.write(self._tx, told, traces, self._subscriptions)

    async def _write_audits(self, telling: Mapping[PlanId, Sequence[bytes]], now: datetime) -> bool:
        """The abort audit logs that were ordered, written from what is stored by now and what watchers will be told."""
        ordered = [
            each.result
            for each in self._changed
            if each.after.plan.auditing_since is not None and any(isinstance(effect, WriteAudit) for effect in each.effects)
        ]
        if ordered:
            await self._writing.write(self._tx, now)
            papers = await audits.papers(self._tx, ordered, telling, now)
            await audits.insert(self._tx, {each.dossier.plan_id: audit.audit_log(each) for each in papers}, now)
        return bool(ordered)

    def _events(self, change: Change, noticed: Sequence[Notice]) -> list[bytes]:
        """What watchers are told of a plan."""
        before, after = change.before.plan, change.after
        told: list[settlement.Change] = []
        for old, leg, file in zip(before.legs, after.plan.legs, after.files, strict=True):
            if old is not leg and settlement.shown(old) != settlement.shown(leg):
                told.append((file, leg))
        told.extend(after.plan.gates[len(before.gates) :])
        told.extend(each.mandate for each in change.resolved if each.mandate is not None)
        told.extend(each for each in change.result.tickets if each.escalation_id in change.closed)
        told.extend(change.tickets)
        told.extend(each for each in noticed if each.plan_id == change.plan_id)
        told.extend(change.moves)
        return [settlement.event_octets(change.plan_id, change.now, each) for each in told]
