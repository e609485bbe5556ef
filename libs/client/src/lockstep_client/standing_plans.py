"""Plans as they stand, kept up to date by one stream: for whoever would otherwise ask for all of them again and again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from lockstep.coordinator.v1.settlement_pb2 import PLAN_STATE_CLOSED, Plan, PlanState
from lockstep_client.calls import REFUSES
from lockstep_client.following import OpenPlans, PlansNews, PlansWish
from lockstep_kit.errors import LockstepError
from lockstep_kit.loops import back_off_seconds
from lockstep_kit.participant.bell import Bell

if TYPE_CHECKING:
    from lockstep_client.client import LockstepClient

_PAUSE_SECONDS_MAX: Final = 10.0


async def _nothing() -> Iterable[Plan]:
    return ()


class StandingPlans:
    """The plans that one may see. What is closed or left is forgotten, but for the closed plans that are to be kept."""

    def __init__(
        self,
        client: LockstepClient,
        *,
        states: Collection[PlanState.ValueType] = (),
        gather: timedelta = timedelta(),
        seed: Callable[[], Awaitable[Iterable[Plan]]] = _nothing,
        closed_max: int = 0,
    ) -> None:
        """Of all states or of some; `seed` gives plans that a snapshot has not, closed ones, and is asked after each."""
        self._client = client
        self._wish = PlansWish(states, whole_plans=True, gather=gather)
        self._seed = seed
        self._closed_max = closed_max
        self._token = ""
        self._failures = 0
        #: By id.
        self.plans: dict[str, Plan] = {}
        #: When the coordinator was heard last; None: never.
        self.heard_at: datetime | None = None
        #: Why nothing is heard of it; None while it is.
        self.trouble: LockstepError | None = None
        #: Whether there was a snapshot.
        self.known = False
        #: Rung whenever any of this changes.
        self.bell: Final = Bell()

    async def run(self) -> None:
        """Keep them up to date, until cancelled; called again it goes on where it was. A coordinator that is away is waited for.

        Raises:
            LockstepError: the coordinator refuses.
        """
        rng = random.Random()  # noqa: S311 - jitter, no secret
        while True:
            try:
                async for news in self._client.watch_plans(self._wish, resume_token=self._token, lost=self._lost):
                    await self._take(news)
            except LockstepError as error:
                self._lost(error)
                if error.code in REFUSES:
                    raise
            self._failures += 1
            await asyncio.sleep(back_off_seconds(self._failures, rng, most=_PAUSE_SECONDS_MAX))

    def _lost(self, error: LockstepError | None) -> None:
        if error is None:
            self.heard_at, self._failures = datetime.now(UTC), 0
        self.trouble = error
        self.bell.ring()

    async def _take(self, news: PlansNews) -> None:
        if isinstance(news, OpenPlans):
            self.plans = dict(news.plans)
            for plan in await self._seed():
                self._put(plan)
            self.known, self._token = True, news.resume_token
        else:
            for each in news.news:
                if each.plan is not None:
                    self._put(each.plan)
                elif each.left:
                    self.plans.pop(each.plan_id, None)
            self._token = news.resume_token or self._token
        self._forget()
        self.bell.ring()

    def _put(self, plan: Plan) -> None:
        held = self.plans.get(plan.header.plan_id)
        # What was asked for beside the stream may be newer than what the stream brings next.
        if held is None or _changed_at(held) <= _changed_at(plan):
            self.plans[plan.header.plan_id] = plan

    def _forget(self) -> None:
        closed = [plan for plan in self.plans.values() if plan.state == PLAN_STATE_CLOSED]
        if len(closed) > self._closed_max:
            for plan in sorted(closed, key=_created_at)[: len(closed) - self._closed_max]:
                del self.plans[plan.header.plan_id]


def _created_at(plan: Plan) -> datetime:
    return plan.create_time.ToDatetime(UTC)


def _changed_at(plan: Plan) -> datetime:
    return plan.update_time.ToDatetime(UTC)
