"""How many calls and watches one client has about one plan at this replica. In memory: a restart forgives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from coordinator.quotas import QuotaSettings, exceeded
from lockstep_kit.ids import PlanId
from lockstep_kit.rpc.limits import CallerLimits, Limiter, Over, ServingLimits

#: Pairs of a client and a plan that are kept apart.
PAIRS_MAX: Final = 8_192
_BURST_SECONDS: Final = 10
#: A share that nobody reaches: each pair has limits of its own.
_UNBOUNDED: Final = 1 << 30


class PlanTraffic:
    """Counts what each client asks about each plan."""

    def __init__(self, settings: QuotaSettings) -> None:
        self._settings = settings
        rate = settings.plan_requests_per_second
        each = CallerLimits(
            calls_per_second=rate,
            calls_burst=max(rate * _BURST_SECONDS, 1.0),
            calls_at_once_max=_UNBOUNDED,
            streams_per_second=rate,
            streams_burst=max(rate * _BURST_SECONDS, 1.0),
            streams_max=settings.plan_watches_max,
        )
        self._limiter = Limiter(ServingLimits(clients=each, callers_max=PAIRS_MAX), _UNBOUNDED, ())

    def asked(self, client_id: str, plan_id: PlanId) -> PlanId:
        """The plan that a call is about, which counts.

        Raises:
            LockstepError: QUOTA_PLAN_REQUESTS.
        """
        found = self._begin(client_id, plan_id, stream=False)
        if isinstance(found, Over):
            rate = self._settings.plan_requests_per_second
            message = f"this client may ask {rate:g} times a second about one plan"
            raise exceeded("QUOTA_PLAN_REQUESTS", message, rate, timedelta(seconds=found.retry_seconds))
        self._limiter.end(found, stream=False)
        return plan_id

    @contextlib.contextmanager
    def watching(self, client_id: str, plan_id: PlanId) -> Iterator[None]:
        """A watch on a plan, as long as it is open.

        Raises:
            LockstepError: QUOTA_PLAN_WATCHES.
        """
        with self._watching(client_id, plan_id, "of this plan"):
            yield

    @contextlib.contextmanager
    def watching_all(self, client_id: str) -> Iterator[None]:
        """A watch of all plans, as long as it is open; as many may be as of one plan.

        Raises:
            LockstepError: QUOTA_PLAN_WATCHES.
        """
        with self._watching(client_id, "", "of all plans"):
            yield

    @contextlib.contextmanager
    def _watching(self, client_id: str, plan_id: str, what: str) -> Iterator[None]:
        found = self._begin(client_id, plan_id, stream=True)
        if isinstance(found, Over):
            most = self._settings.plan_watches_max
            message = f"this client has as many watches {what} open here as it may: {most}"
            raise exceeded("QUOTA_PLAN_WATCHES", message, most, timedelta(seconds=found.retry_seconds))
        try:
            yield
        finally:
            self._limiter.end(found, stream=True)

    def _begin(self, client_id: str, plan_id: str, *, stream: bool) -> Over | str:
        now = asyncio.get_running_loop().time()
        return self._limiter.begin(f"{client_id} {plan_id}", now, stream=stream, cost=1.0)
