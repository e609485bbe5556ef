"""Watching one plan over lost connections, drains and restarts of the coordinator.

The server delivers at least once; here what was seen is dropped (sequence not greater than the last), so that a watcher sees each change once. A resume token
that has grown too old is given up for a new snapshot. What is lost at the edge: changes between the old token and that snapshot, which the snapshot holds
in their result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from lockstep.coordinator.v1.settlement_pb2 import Plan, PlanEvent
from lockstep.coordinator.v1.settlement_service_pb2 import WatchPlanRequest, WatchPlanResponse
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep_client.calls import CallSettings, Resumption, stream
from lockstep_kit.errors import LockstepError
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The plan as it stands; what was shown before is superseded."""

    #: The plan.
    plan: Plan
    #: Resume after this.
    resume_token: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change."""

    #: What happened.
    event: PlanEvent
    #: Resume after this.
    resume_token: str


PlanNews: TypeAlias = Snapshot | Change


@dataclass(slots=True)
class _Place(Resumption):
    """How far a watch has come."""

    _sequence: int = 0

    def take(self, message: WatchPlanResponse) -> PlanNews | None:
        """What is new in a message; None for heartbeats and for what was seen."""
        self.token = message.resume_token or self.token
        match message.WhichOneof("message"):
            case "snapshot":
                return Snapshot(message.snapshot, self.token)
            case "event" if message.event.sequence > self._sequence:
                self._sequence = message.event.sequence
                return Change(message.event, self.token)
            case _:
                return None


async def watch_plan(
    stub: SettlementServiceStub,
    plan_id: str,
    settings: CallSettings,
    *,
    resume_token: str = "",
    lost: Callable[[LockstepError | None], None] = lambda _: None,
) -> AsyncIterator[PlanNews]:
    """Snapshot and changes of a plan until its last change; `lost` as `stream` tells it.

    Raises:
        LockstepError: the watch was refused, or no replica was reached for `settings.unreachable_seconds_max`.
    """
    place = _Place(resume_token)
    messages = stream(
        lambda seconds: stub.WatchPlan(WatchPlanRequest(plan_id=plan_id, resume_token=place.token), timeout=seconds),
        settings,
        starts_over=place.starts_over,
        lost=lost,
    )
    async for message in messages:
        news = place.take(message)
        if news is not None:
            yield news
