"""`make bench-waves`: what plans that begin together cost, beyond what the same machine uses while nothing is to be done.

A wave of one tells what a group costs whatever is in it; how little a plan of a large wave costs tells what each plan costs by itself. Costs of processor
time, commits and calls, unlike seconds, say nearly the same beside other work as alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from lockstep_bench.costs import Costs, costs, per_settlement
from lockstep_bench.drivers import Drivers
from lockstep_bench.schedule import Load
from lockstep_bench.stage import stage
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_bench.timelines import spread
from lockstep_sandbox.stack import Sandbox

#: All of a wave's plans have begun by then.
BEGIN_SECONDS: Final = 0.5
#: So long a wave may take.
WAVE_SECONDS: Final = 180.0
#: Postgres' sessions hand in their statistics once a second.
SETTLE_SECONDS: Final = 1.2
#: What is used for nothing is measured for so long.
IDLE_SECONDS: Final = 8.0
#: Before anything counts.
WARM_UP_PLANS: Final = 16


class Waves:
    """Waves over one sandbox."""

    def __init__(self, sandbox: Sandbox, drivers: Drivers, seed: str) -> None:
        self._sandbox = sandbox
        self._drivers = drivers
        self._seed = seed
        self._idle: dict[str, dict[str, float]] = {}
        #: How many there were: two of the same size have plans of their own.
        self._waves = 0

    async def warm_up(self) -> dict[str, dict[str, float]]:
        """Have everything done once, then see what is used for nothing: processor seconds and commits, a second."""
        for number in range(2):
            await self._drivers.settle(self._load(WARM_UP_PLANS, f"warm-up {number}"), time.monotonic())
        began, before = await self._now()
        await asyncio.sleep(IDLE_SECONDS)
        ended, after = await self._now()
        self._idle = {
            "processor_seconds": _rates(before.processor_seconds, after.processor_seconds, ended - began),
            "commits": _rates(before.commits, after.commits, ended - began),
        }
        return self._idle

    async def wave(self, plans: int) -> dict[str, Any]:
        """So many plans, begun together: what each took, and when they were CLOSED."""
        self._waves += 1
        began, before = await self._now()
        timelines = await self._drivers.settle(self._load(plans, f"wave {self._waves} of {plans}"), time.monotonic())
        ended, after = await self._now()
        closed = [each.seen["closed"] - each.intended for each in timelines if "closed" in each.seen]
        found = await per_settlement(self._sandbox, before, after, plans)
        own, clients = found.pop("processor_seconds_per_settlement"), found.pop("client_processor_seconds_per_settlement")
        used = {name: value for name, value in (own | clients).items() if name != "total"}
        commits = {name: value for name, value in found.pop("commits_per_settlement").items() if name != "total"}
        share = (ended - began) / plans
        return {
            "plans": plans,
            "closed": len(closed),
            **spread("closed", closed),
            "processor_ms_per_settlement": _beyond(used, self._idle["processor_seconds"], share, 1000.0),
            "commits_per_settlement": _beyond(commits, self._idle["commits"], share, 1.0),
            **found,
        }

    def _load(self, plans: int, name: str) -> Load:
        # Each of them is a worker of a closed loop that has time for one plan.
        return Load(None, plans, 0.0, BEGIN_SECONDS, WAVE_SECONDS, f"{self._seed}/{name}")

    async def _now(self) -> tuple[float, Costs]:
        await asyncio.sleep(SETTLE_SECONDS)
        return time.monotonic(), await costs(self._sandbox, self._drivers.pids)


def _rates(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    return {name: (after[name] - before[name]) / seconds for name in after if name in before}


def _beyond(used: Mapping[str, float], idle: Mapping[str, float], share: float, scale: float) -> dict[str, float]:
    """What was used beyond idling, of which each plan has a share of seconds; and the sum."""
    found = {name: (value - idle.get(name, 0.0) * share) * scale for name, value in used.items()}
    return {name: round(value, 2) for name, value in (found | {"total": sum(found.values())}).items()}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every wave, one after the other."""
    async with stage() as sandbox, Drivers(sandbox.run.path, 1) as drivers:
        waves = Waves(sandbox, drivers, options.seed)
        idle = await waves.warm_up()
        print("\n== idle, a second ==")
        for name, values in idle.items():
            print(f"  {name:36} " + "  ".join(f"{each} {value:.3f}" for each, value in values.items()), flush=True)
        return {"idle_per_second": idle, "waves": [shown(await waves.wave(plans)) for plans in options.plans]}


def shown(found: dict[str, Any]) -> dict[str, Any]:
    """The same, after it was printed."""
    print(f"\n== wave of {found['plans']} ==")
    for name, value in found.items():
        text = "  ".join(f"{each} {number}" for each, number in value.items()) if isinstance(value, dict) else value
        print(f"  {name:36} {text}", flush=True)
    return found


async def bench(options: argparse.Namespace) -> int:
    """The exit code: 1 where a plan of a wave was not settled."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    print(f"BENCH_WAVES_RESULT {json.dumps(result)}", flush=True)
    return int(any(each["closed"] < each["plans"] for each in result["waves"]))


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.waves", description=__doc__)
    options.add_argument("--plans", type=int, nargs="*", default=[1, 16, 64, 256], help="plans of each wave")
    options.add_argument("--seed", default="1", help="of which plans are drawn")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
