"""Brings plans' events to the journal: in order within a plan, many plans' in one call.

The rows never change, so that the same event again is the same event. A gap is answered with what is missing; another event in a place that is taken
freezes the plan's events and calls a person, since one of the two writers must be wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final

import grpc
import structlog

from coordinator.convert.journal import AppendAnswer, AppendVerdict
from coordinator.engine import Engine
from coordinator.peers import JournalPeer
from coordinator.routing import Route, routed
from coordinator.store import outboxes
from coordinator.store.outboxes import PendingEvent
from lockstep_kit import failpoints
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.spans import plan_spans

_log = structlog.get_logger()

BATCH_MAX: Final = 512
#: Whoever is told what is missing need not look for it.
UNTOLD_SECONDS: Final = 60.0
#: What is recorded waits for company as long as nothing waits for it: the journal is behind, and the chain of a plan is closed after what is before that.
COMPANY_SECONDS: Final = 0.25
#: What the journal's refusals are to `routing`.
_CODES: Final = {
    AppendVerdict.GAP: "JOURNAL_GAP",
    AppendVerdict.CONFLICT: "JOURNAL_CONFLICT",
    AppendVerdict.SEALED: "JOURNAL_CONFLICT",
    AppendVerdict.INVALID: "JOURNAL_CONFLICT",
}

failpoints.declare(*(f"coordinator.append.{where}" for where in ("before_send", "after_send", "after_commit")))


class JournalRelay:
    """The events that the journal does not have yet."""

    def __init__(self, engine: Engine, peer: JournalPeer) -> None:
        self._engine = engine
        self._peer = peer
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._failures = 0
        self._records = engine.wakes.records

    def loop(self) -> Loop:
        """The loop that appends."""
        return Loop("journal_relay", self.run, poll_seconds=UNTOLD_SECONDS, wake=self._records.wake)

    async def run(self) -> None:
        """Append until nothing is missing."""
        while events := await self._missing():
            await self._send(events)
            if self._failures:
                # What was handed on is among what is found then.
                self._records.look()
                await asyncio.sleep(back_off_seconds(self._failures, self._rng))

    async def _missing(self) -> Sequence[PendingEvent]:
        """Events that were handed on, or those that are found where they are to be looked for."""
        if self._records.waiting and not self._failures:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPANY_SECONDS):
                    await self._records.urgent.wait()
        self._records.urgent.clear()
        if self._records.takes_look():
            async with self._engine.db.connection() as connection:
                found = await outboxes.pending_events(connection, self._engine.owner.name, BATCH_MAX)
            if len(found) == BATCH_MAX:
                self._records.look()
            if found:
                return found
        return self._records.take(BATCH_MAX)

    async def _send(self, events: Sequence[PendingEvent]) -> None:
        with plan_spans("coordinator.append", {each.plan_id: each.traceparent for each in events}):
            await failpoint("coordinator.append.before_send")
            try:
                answers = await self._peer.append(events)
            except grpc.aio.AioRpcError as error:
                self._failures += 1
                _log.warning("append_unanswered", code=error.code().name)
                return
            except FieldInvalid as finding:
                self._failures += 1
                _log.error("append_malformed", field=finding.field)
                return
            self._failures = 0
            await failpoint("coordinator.append.after_send")
            await self._take(events, answers)

    async def _take(self, events: Sequence[PendingEvent], answers: Sequence[AppendAnswer]) -> None:
        done: dict[PlanId, int] = {}
        gaps: dict[PlanId, int] = {}
        broken: dict[PlanId, tuple[PendingEvent, AppendAnswer]] = {}
        for event, answer in zip(events, answers, strict=True):
            match answer.verdict:
                case AppendVerdict.APPENDED if event.plan_id not in broken and event.plan_id not in gaps:
                    done[event.plan_id] = event.event.sequence
                case AppendVerdict.APPENDED | AppendVerdict.STALE:
                    # What is stale was read before its plan had another owner, who sends it anew.
                    pass
                case verdict if routed(_CODES[verdict], None, 1) is Route.RETRY:
                    gaps.setdefault(event.plan_id, answer.expected)
                case _:
                    broken.setdefault(event.plan_id, (event, answer))
        async with self._engine.db.connection() as connection:
            await outboxes.appended(connection, done)
        await failpoint("coordinator.append.after_commit")
        # Closing a plan's chain waits for what is before it.
        self._engine.wakes.appended(done)
        for plan_id, (event, answer) in broken.items():
            await self._freeze(plan_id, event, answer)
        for plan_id, expected in gaps.items():
            if plan_id not in broken:
                await self._fill(plan_id, expected)

    async def _fill(self, plan_id: PlanId, expected: int) -> None:
        """The journal lost what it had acknowledged (a restore): send it again from where it stands."""
        _log.warning("journal_gap", plan_id=plan_id, expected=expected)
        async with self._engine.db.connection() as connection:
            missing = await outboxes.events_from(connection, plan_id, expected, BATCH_MAX)
        if not missing or missing[0].event.sequence != expected:
            await self._call(plan_id, f"the journal expects event {expected}, which was never recorded")
            return
        try:
            answers = await self._peer.append(missing)
        except (grpc.aio.AioRpcError, FieldInvalid):
            self._failures += 1
            return
        if answers[0].verdict is AppendVerdict.GAP:
            await self._call(plan_id, f"the journal expects event {answers[0].expected}, and does not take it")
            return
        await self._take(missing, answers)

    async def refill(self, plan_id: PlanId) -> bool:
        """Send all of a plan's events again, from the first one on: the journal was put back. Whether it has all of them."""
        after = 0
        while True:
            async with self._engine.db.connection() as connection:
                events = await outboxes.events_from(connection, plan_id, after + 1, BATCH_MAX)
            if not events:
                return True
            try:
                answers = await self._peer.append(events)
            except (grpc.aio.AioRpcError, FieldInvalid):
                return False
            await self._take(events, answers)
            if any(answer.verdict is AppendVerdict.STALE for answer in answers):
                return False
            if any(answer.verdict not in (AppendVerdict.APPENDED, AppendVerdict.SEALED) for answer in answers):
                return True
            after = events[-1].event.sequence

    async def _freeze(self, plan_id: PlanId, event: PendingEvent, answer: AppendAnswer) -> None:
        why = f"the journal answers event {event.event.sequence} with {answer.verdict}: {answer.message}"
        await self._call(plan_id, why)

    async def _call(self, plan_id: PlanId, why: str) -> None:
        """Freeze first: the call is itself an event, and must not be sent after what was refused."""
        _log.error("journal_conflict", plan_id=plan_id, why=why)
        async with self._engine.db.connection() as connection:
            await outboxes.freeze(connection, plan_id, why)
        self._records.stop(plan_id)
        await self._engine.call(plan_id, "JOURNAL_CONFLICT", "", why)
