"""Plans that go together: made, executed and signed in batches, as a client does it under load, and told of one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Self

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep.coordinator.v1.settlement_service_pb2 import CreatePlanRequest, ExecutePlanRequest, SignGateRequest
from lockstep_client.client import LockstepClient
from lockstep_client.gathering import Gathered
from lockstep_testkit.checker import Told
from lockstep_testkit.journeys import Journey

#: Requests leave so often, with all that came since.
DEPART_SECONDS: Final = 0.5


class Batches:
    """A desk that hands requests in together. An async context manager."""

    def __init__(self, client: LockstepClient) -> None:
        self._creations = Gathered(client.create_plans)
        self._executions = Gathered(client.execute_plans)
        self._signatures = Gathered(client.sign_gates)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._creations.close(), self._executions.close(), self._signatures.close())

    async def send_creation(self, request: CreatePlanRequest) -> Plan:
        """The accepted plan."""
        await _departure()
        return await self._creations.ask(request)

    async def send_execution(self, request: ExecutePlanRequest) -> Plan:
        """The started plan."""
        await _departure()
        return await self._executions.ask(request)

    async def send_gate(self, request: SignGateRequest) -> Plan:
        """The plan after the signature."""
        await _departure()
        return await self._signatures.ask(request)


class Convoy:
    """Plans on their way together."""

    def __init__(self, desk: Batches, journeys: Sequence[Journey]) -> None:
        """Plans whose people hand in their requests at one desk."""
        self._desk = desk
        self._journeys = journeys

    @property
    def plan_ids(self) -> list[str]:
        """Of the plans that were drawn."""
        return [each.plan_id for each in self._journeys if each.plan_id]

    @property
    def told(self) -> list[Told]:
        """What clients were told of all their ends."""
        return [told for each in self._journeys for told in each.told]

    @property
    def ended_at(self) -> float:
        """When the last of them was seen at its end, by the monotonic clock; 0 before."""
        ends = [each.ended_at for each in self._journeys]
        return max(ends) if all(ends) else 0.0

    async def travel(self) -> None:
        """The whole way, with a watcher beside each.

        Raises:
            TimeoutError, LockstepError: one of them does not get there; the others are left where they are.
        """
        try:
            async with self._desk, asyncio.TaskGroup() as group:
                for each in self._journeys:
                    group.create_task(each.travel())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None


async def _departure() -> None:
    await asyncio.sleep(-asyncio.get_running_loop().time() % DEPART_SECONDS)
