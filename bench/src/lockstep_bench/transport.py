"""How the people's requests reach the coordinator, and how its news reach them. The one module that knows how calls are put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Self, TypeAlias, TypeVar

from lockstep.coordinator.v1.settlement_pb2 import Plan, PlanEvent
from lockstep_client.calls import CallSettings, pause, worth_another
from lockstep_client.client import LockstepClient, creation, execution, signing
from lockstep_client.configuration import ClientConfiguration
from lockstep_client.following import OpenPlans
from lockstep_client.gathering import Gathered
from lockstep_client.planfile import DraftPlan
from lockstep_kit.errors import LockstepError
from lockstep_kit.ids import LegId
from lockstep_kit.statements import GateSignature

_RequestT = TypeVar("_RequestT")

#: A change, or the plan as it stands.
News: TypeAlias = Plan | PlanEvent

#: What is late is to be seen late: the driver waits as long as the level lasts. A call is tried once, so that what is asked again holds up nobody else's.
SETTINGS: Final = CallSettings(deadline_seconds=60.0, silence_seconds_max=120.0, attempts_max=1)
#: Tries of one request; what there was no room for when it was begun is asked for until there is.
TRIES_MAX: Final = 6
OVERLOADED: Final = "OVERLOADED"


class Transport:
    """The coordinator, to many people at once: requests in batches, and one stream of all plans. An async context manager."""

    def __init__(self, configuration: ClientConfiguration) -> None:
        self._client = LockstepClient(configuration.coordinator, configuration.tls, SETTINGS)
        self._creations = Gathered(self._client.create_plans)
        self._executions = Gathered(self._client.execute_plans)
        self._signatures = Gathered(self._client.sign_gates)
        self._news: dict[str, asyncio.Queue[News | LockstepError]] = {}
        self._watching = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._hear(), name="plans")
        await self._watching.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(self._creations.close(), self._executions.close(), self._signatures.close())
        await self._client.close()

    async def create(self, draft: DraftPlan, make: GateSignature) -> Plan:
        """The accepted plan; one that is turned away is not brought again.

        Raises:
            LockstepError: it was refused.
        """
        return await asked(self._creations, creation(draft, make), patient=False)

    async def execute(self, plan_id: str, signatures: Mapping[LegId, bytes]) -> None:
        """Start a plan.

        Raises:
            LockstepError: it was refused.
        """
        await asked(self._executions, execution(plan_id, signatures), patient=True)

    async def sign(self, plan_id: str, signature: GateSignature) -> None:
        """Bring a person's signature.

        Raises:
            LockstepError: it was refused.
        """
        await asked(self._signatures, signing(plan_id, signature), patient=False)

    @contextmanager
    def following(self, plan_id: str) -> Iterator[AsyncIterator[News]]:
        """A plan's changes from now on, so from its creation where it was not created yet; the plan itself where changes may have been missed.

        What is lost at the edge: the end of a plan that was closed while the stream had to begin anew.
        """
        heard: asyncio.Queue[News | LockstepError] = asyncio.Queue()
        self._news[plan_id] = heard
        try:
            yield _each(heard)
        finally:
            del self._news[plan_id]

    async def _hear(self) -> None:
        try:
            async for told in self._client.watch_plans():
                if isinstance(told, OpenPlans):
                    for plan_id, plan in told.plans.items():
                        self._tell(plan_id, plan)
                    self._watching.set()
                else:
                    for news in told.news:
                        for event in news.events:
                            self._tell(news.plan_id, event)
        except LockstepError as error:
            for plan_id in self._news:
                self._tell(plan_id, error)
            raise
        finally:
            self._watching.set()

    def _tell(self, plan_id: str, news: News | LockstepError) -> None:
        if plan_id in self._news:
            self._news[plan_id].put_nowait(news)


async def asked(grouped: Gathered[_RequestT], request: _RequestT, *, patient: bool, settings: CallSettings = SETTINGS) -> Plan:
    """The answer of a request that is sent again where nothing was done; who is patient waits for room as long as it takes."""
    attempt = 0
    while True:
        try:
            return await grouped.ask(request)
        except LockstepError as error:
            turned_away = error.reason == OVERLOADED
            attempt += not (turned_away and patient)
            if not worth_another(error, settings) or attempt == TRIES_MAX or (turned_away and not patient):
                raise
            await pause(attempt, settings, error)


async def _each(heard: asyncio.Queue[News | LockstepError]) -> AsyncIterator[News]:
    while True:
        news = await heard.get()
        if isinstance(news, LockstepError):
            raise news
        yield news
