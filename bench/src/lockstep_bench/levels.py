"""Levels of load over a running sandbox, each measured by itself: what its plans say, and what they took."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

from lockstep_bench.costs import Costs, costs, per_settlement
from lockstep_bench.drivers import Drivers
from lockstep_bench.schedule import Load
from lockstep_bench.timelines import Window, told
from lockstep_sandbox.stack import Sandbox

#: What was begun is waited for so long after a level, and after one that offers more than is done.
GRACE_SECONDS: Final = 40.0
OVERLOAD: Final = 2.0
#: Until then a level that offers more than is done has filled all the room that there is.
OVERLOAD_WARM_UP_SECONDS: Final = 20.0
#: Longest warm-up that a closed loop is given.
WARM_UP_SECONDS_MAX: Final = 30.0
#: Plans of a closed loop end together, in groups: where many are settled at a time, a window that holds enough groups to say something has so long for each
#: plan, up to so long in all.
SECONDS_PER_PLAN: Final = 0.2
MEASURED_SECONDS_MAX: Final = 60.0
#: What comes beyond what goes through is measured for so long at least.
OVERLOAD_MEASURED_SECONDS: Final = 45.0
#: Drivers get a level so long before it begins.
AHEAD_SECONDS: Final = 0.3


class Bench:
    """Measures levels over one sandbox."""

    def __init__(self, sandbox: Sandbox, drivers: Drivers, *, seed: str, warm_up_seconds: float, seconds: float) -> None:
        """Levels that draw from a seed, and are loaded and measured for so long."""
        self._sandbox = sandbox
        self._drivers = drivers
        self._seed = seed
        self._warm_up_seconds = warm_up_seconds
        self._seconds = seconds
        #: The most settlements per second of any level so far.
        self.sustained = 0.0

    def load(self, *, rate: float | None = None, concurrency: int | None = None, legs: int = 2, name: str = "") -> Load:
        """A level: so many plans a second or at a time, each of so many settling legs; its name tells two apart that are alike otherwise."""
        seed = f"{self._seed}/{rate}/{concurrency}/{legs}/{name}"
        warm_up, seconds = self._warm_up_seconds, self._seconds
        if concurrency is not None and self.sustained:
            # The first plans of a closed loop all begin at once: a level is steady when as many have ended.
            warm_up = min(max(warm_up, concurrency / self.sustained), WARM_UP_SECONDS_MAX)
        if concurrency is not None:
            seconds = max(seconds, min(concurrency * SECONDS_PER_PLAN, MEASURED_SECONDS_MAX))
        return Load(rate, concurrency, round(warm_up, 1), round(seconds, 1), GRACE_SECONDS, seed, legs)

    async def warm_up(self) -> None:
        """One plan, through everything."""
        seed = f"{self._seed}/warm-up"
        await self._drivers.settle(Load(None, 1, 0.0, 0.1, GRACE_SECONDS, seed), time.monotonic() + AHEAD_SECONDS)

    async def level(self, load: Load) -> dict[str, Any]:
        """One level."""
        began = time.monotonic() + AHEAD_SECONDS
        # Costs are those of the window alone: what it begins and does not finish is about what it finishes and did not begin.
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(self._drivers.settle(load, began))
            before = await self._costs_at(began + load.warm_up_seconds)
            after = await self._costs_at(began + load.until)
        window = Window(load.warm_up_seconds, load.until, time.monotonic() - began)
        found = told(settling.result(), window)
        self.sustained = max(self.sustained, found["settlements_per_second"])
        of_each = await per_settlement(self._sandbox, before, after, max(found["settlements"], 1))
        kind = {"load": load.name, "rate": load.rate, "concurrency": load.concurrency}
        return {**kind, "warm_up_seconds": load.warm_up_seconds, "measured_seconds": load.seconds, **found, **of_each}

    async def overload(self) -> dict[str, Any]:
        """Twice as much as was done at the best is offered."""
        sustained = self.sustained
        load = self.load(rate=round(OVERLOAD * sustained, 3))
        warm_up, seconds = max(load.warm_up_seconds, OVERLOAD_WARM_UP_SECONDS), max(load.seconds, OVERLOAD_MEASURED_SECONDS)
        grace = GRACE_SECONDS + (warm_up + seconds) * OVERLOAD
        load = replace(load, warm_up_seconds=warm_up, seconds=seconds, grace_seconds=grace)
        found = await self.level(load)
        share = round(found["settlements_per_second"] / sustained, 3) if sustained else 0.0
        return found | {"overload": True, "sustained_per_second": sustained, "delivered_share": share}

    async def _costs_at(self, moment: float) -> Costs:
        await asyncio.sleep(max(moment - time.monotonic(), 0.0))
        return await costs(self._sandbox, self._drivers.pids)
