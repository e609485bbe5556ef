"""What goes on without anybody's call: time that passed, plans that a replica left behind, news that was kept.

A plan of which something is to be done keeps its owner as long as that one lives, also while it waits for an answer. Where the owner let the lease run
out, the plan is taken over once it was seen twice in a row. Its epoch grows, and its
commands are sent again at once. A plan that rests until a person acts needs no owner: whoever is asked takes it up, and its deadline is everybody's. However a
plan came to a new owner, its participants are asked about every leg that is not done, with the fence raised.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import structlog

from coordinator.engine import Engine
from coordinator.metrics import TAKEOVERS
from coordinator.model import Tick
from coordinator.news import News
from coordinator.notices import taken_over
from coordinator.peers import Peers
from coordinator.store import outboxes, reading
from lockstep_kit import failpoints
from lockstep_kit.failpoints import failpoint
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.loops import Loop

_log = structlog.get_logger()

failpoints.declare("coordinator.ask.before_send", "coordinator.ask.after_send")

BATCH_MAX: Final = 256
ASKED_AT_ONCE_MAX: Final = 16


class Recovery:
    """Looks for what is due and for what nobody holds."""

    def __init__(self, engine: Engine, peers: Peers, news: News, *, poll_seconds: float) -> None:
        self._engine = engine
        self._peers = peers
        self._news = news
        self._poll_seconds = poll_seconds
        self._seen: frozenset[PlanId] = frozenset()

    def loops(self) -> tuple[Loop, Loop]:
        """The loop that looks, first of all at once; and the one that shows participants the epochs of plans that were taken over."""
        takeovers = Loop("takeovers", self.show, poll_seconds=self._poll_seconds, wake=self._engine.wakes.takeovers.wake)
        return Loop("recovery", self.run, poll_seconds=self._poll_seconds), takeovers

    async def run(self) -> None:
        """One look, and what it finds."""
        owner = self._engine.owner
        async with self._engine.db.connection() as connection:
            sighted = await reading.look(connection, owner.name, owner.generation, owner.lease)
            if sighted.leases:
                await reading.renew(connection, owner.name, owner.generation, owner.lease)
        if sighted.due:
            await self._tick()
        while sighted.news and await self._news.take_kept(BATCH_MAX) == BATCH_MAX:
            pass
        if sighted.orphans:
            await self._take_over()
        else:
            self._seen = frozenset()

    async def _tick(self) -> None:
        while True:
            async with self._engine.db.connection() as connection:
                due = await reading.due(connection, self._engine.owner.name, BATCH_MAX)
            if due:
                await self._engine.apply("tick", due, lambda _, __: [Tick()])
            if len(due) < BATCH_MAX:
                return

    async def _take_over(self) -> None:
        async with self._engine.db.connection() as connection:
            orphaned = frozenset(await reading.orphaned(connection, self._engine.owner.name, BATCH_MAX))
        twice, self._seen = sorted(orphaned & self._seen), orphaned
        if not twice:
            return
        async with self._engine.traces.span("coordinator.takeover", twice):
            async with self._engine.work("takeover") as work:
                taken = list(await work.load(twice))
                unanswered = await outboxes.hasten(work.tx, taken)
                # A plan at rest that changes hands is no news.
                for plan_id in sorted({plan_id for plan_id, _, _ in unanswered}):
                    work.note(taken_over(work.dossier(plan_id).plan, work.clock))
            TAKEOVERS.inc(len(taken))
            _log.info("plans_taken_over", count=len(taken))
            self._engine.wakes.look()

    async def show(self) -> None:
        """Ask participants about the legs of plans that were taken over, with the fence raised, so that what the owner before sends is refused.

        Who does not answer is shown the epoch by the next command.
        """
        epochs = self._engine.wakes.takeovers.take()
        if not epochs:
            return
        async with self._engine.db.connection() as connection:
            legs = await outboxes.unfinished(connection, sorted(epochs))
        gate = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def ask(plan_id: PlanId, leg_id: LegId, participant: str) -> None:
            async with gate:
                await failpoint("coordinator.ask.before_send")
                try:
                    report = await self._peers[participant].leg(plan_id, leg_id, epochs[plan_id])
                except grpc.aio.AioRpcError as error:
                    _log.warning("leg_unanswered", participant=participant, plan_id=plan_id, code=error.code().name)
                    return
            await failpoint("coordinator.ask.after_send")
            if report is not None:
                await self._news.take(participant, [report])

        await asyncio.gather(*(ask(*each) for each in legs))
