"""What the console asks the services: reading methods alone, a few at a time, each with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeVar

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.journal.v1.entry_pb2 import Entry
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.operators import OperatorClient
from lockstep_client.readers import JournalClient
from lockstep_client.standing_plans import StandingPlans
from lockstep_client.watching import PlanNews
from lockstep_console.settings import ConsoleSettings

_T = TypeVar("_T")
_PAGE: Final = 200
#: Escalations of one list, and entries of one chain, that are shown at the most.
ESCALATIONS_MAX: Final = 500
ENTRIES_MAX: Final = 5_000
#: A person waits before the page, which asks again by itself: few tries.
_TRIES_MAX: Final = 2


class Upstream:
    """The services, as the console reads them. An async context manager."""

    def __init__(self, settings: ConsoleSettings) -> None:
        calls = CallSettings(deadline_seconds=settings.call_seconds, attempts_max=_TRIES_MAX)
        self._plans = LockstepClient(settings.coordinator, settings.tls, calls)
        self._operators = OperatorClient(settings.coordinator, settings.tls, calls)
        self._journal = JournalClient(settings.journal, settings.tls, calls)
        self._at_once = asyncio.Semaphore(settings.calls_at_once_max)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for each in (self._plans, self._operators, self._journal):
            await self._stack.enter_async_context(each)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    def standing(self, gather: timedelta) -> StandingPlans:
        """The newest plans, and every older one that still moves, as they stand and as they go on, once it runs."""

        async def newest() -> list[settlement.Plan]:
            return await self._one(lambda: _first(self._plans.list_plans(page_size=_PAGE), _PAGE))

        return StandingPlans(self._plans, gather=gather, seed=newest, closed_max=_PAGE)

    async def plan(self, plan_id: str) -> settlement.Plan:
        """A plan as it stands."""
        return await self._one(lambda: self._plans.get_plan(plan_id))

    async def transitions(self, plan_id: str) -> list[settlement.Transition]:
        """How a plan came to where it stands."""
        return await self._one(lambda: _first(self._plans.list_transitions(plan_id), ENTRIES_MAX))

    async def entries(self, plan_id: str) -> list[Entry]:
        """A plan's chain in the journal."""
        return await self._one(lambda: _first(self._journal.list_entries(plan_id), ENTRIES_MAX))

    async def escalations(self, which: operators.EscalationFilter.ValueType, plan_id: str) -> list[operators.EscalationFile]:
        """Escalations, newest first."""
        return await self._one(lambda: _first(self._operators.list_escalations(which, plan_id=plan_id), ESCALATIONS_MAX))

    async def escalation(self, escalation_id: str) -> operators.GetEscalationResponse:
        """An escalation with its plan."""
        return await self._one(lambda: self._operators.get_escalation(escalation_id))

    async def in_doubt(self) -> tuple[list[operators.AssetAtRisk], list[operators.InDoubtLeg]]:
        """Money at risk."""
        return await self._one(self._operators.list_in_doubt)

    def watch(self, plan_id: str, resume_token: str) -> AsyncIterator[PlanNews]:
        """A plan's changes, without gap or duplicate, until its last."""
        return self._plans.watch_plan(plan_id, resume_token=resume_token)

    async def _one(self, call: Callable[[], Awaitable[_T]]) -> _T:
        async with self._at_once:
            return await call()


async def _first(found: AsyncIterator[_T], most: int) -> list[_T]:
    """The first of what is fetched page by page."""
    taken: list[_T] = []
    async for each in found:
        taken.append(each)
        if len(taken) == most:
            if isinstance(found, AsyncGenerator):
                await found.aclose()
            break
    return taken
