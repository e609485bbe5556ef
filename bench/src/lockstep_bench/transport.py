"""How the people's requests reach the coordinator, and how its news reach them. The one module that knows how calls are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, Self

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient
from lockstep_client.configuration import ClientConfiguration
from lockstep_client.planfile import DraftPlan
from lockstep_client.watching import PlanNews
from lockstep_kit.ids import LegId
from lockstep_kit.statements import GateSignature

#: What is late is to be seen late, and not tried again: the driver waits as long as the level lasts.
SETTINGS: Final = CallSettings(deadline_seconds=60.0, silence_seconds_max=120.0)


class Transport:
    """The coordinator, to many people at once. An async context manager."""

    def __init__(self, configuration: ClientConfiguration) -> None:
        self._client = LockstepClient(configuration.coordinator, configuration.tls, SETTINGS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def create(self, draft: DraftPlan, make: GateSignature) -> Plan:
        """The accepted plan.

        Raises:
            LockstepError: it was refused.
        """
        return await self._client.create_plan(draft, make)

    async def execute(self, plan_id: str, signatures: Mapping[LegId, bytes]) -> None:
        """Start a plan.

        Raises:
            LockstepError: it was refused.
        """
        await self._client.execute_plan(plan_id, signatures)

    async def sign(self, plan_id: str, signature: GateSignature) -> None:
        """Bring a person's signature.

        Raises:
            LockstepError: it was refused.
        """
        await self._client.sign_gate(plan_id, signature)

    def news(self, plan_id: str) -> AsyncIterator[PlanNews]:
        """A plan's snapshot, then its changes.

        Raises:
            LockstepError: the watch was refused.
        """
        return self._client.watch_plan(plan_id)
