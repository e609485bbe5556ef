"""What goes on without anybody's call: time that passed, plans that a replica left behind, news that was kept.

A plan that is not closed and whose lease another owner let run out is taken over once it was seen twice in a row. Its epoch grows, its commands
are sent again at once, and its participants are asked about every leg whose command is not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import grpc
import structlog

from coordinator.engine import Engine
from coordinator.model import Tick
from coordinator.news import News
from coordinator.peers import Peers
from coordinator.store import outboxes, reading
from lockstep_kit import leases
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.telemetry import PLAN_IDS, span

_log = structlog.get_logger()

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

    def loop(self) -> Loop:
        """The loop that looks, first of all at once."""
        return Loop("recovery", self.run, poll_seconds=self._poll_seconds)

    async def run(self) -> None:
        """One look."""
        await self._tick()
        while await self._news.take_kept(BATCH_MAX) == BATCH_MAX:
            pass
        await self._take_over()

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
        owner = self._engine.owner
        with span("coordinator.takeover", attributes={PLAN_IDS: twice}):
            async with self._engine.work("takeover") as work:
                epochs = await leases.acquire(work.tx, twice, owner.name, owner.generation, owner.lease)
                taken = [PlanId(each) for each in epochs]
                unanswered = await outboxes.hasten(work.tx, taken)
            _log.info("plans_taken_over", count=len(taken))
            for wake in (*self._engine.wakes.relays.values(), self._engine.wakes.journal, self._engine.wakes.checks):
                wake.set()
            await self._ask(unanswered, epochs)

    async def _ask(self, legs: Sequence[tuple[PlanId, LegId, str]], epochs: Mapping[str, Epoch]) -> None:
        """Ask participants about legs; who does not answer will be asked by the command's repeat."""
        gate = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def ask(plan_id: PlanId, leg_id: LegId, participant: str) -> None:
            async with gate:
                try:
                    report = await self._peers[participant].leg(plan_id, leg_id, epochs[plan_id])
                except grpc.aio.AioRpcError as error:
                    _log.warning("leg_unanswered", participant=participant, plan_id=plan_id, code=error.code().name)
                    return
            if report is not None:
                await self._news.take(participant, [report])

        await asyncio.gather(*(ask(*each) for each in legs if each[0] in epochs))
