"""`make bench`: starts everything, loads it as told, measures, stops. Exits non-zero when a stated limit does not hold.

Closed loops (`--concurrency`) tell what Lockstep can do, open loops (`--rate`) what its clients notice while plans arrive by the clock, and `--overload`
whether it still does as much when twice as much is asked for. Each level is loaded for `--warm-up` seconds before anything counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lockstep_bench import limits, plot, report
from lockstep_bench.costs import Costs, costs, per_settlement, resident_bytes
from lockstep_bench.drivers import Drivers
from lockstep_bench.schedule import Load
from lockstep_bench.stage import stage
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_bench.timelines import Window, told
from lockstep_bench.traced import statements
from lockstep_sandbox.stack import Sandbox

#: What was begun is waited for so long after a level, and after one that offers more than is done.
GRACE_SECONDS: Final = 40.0
OVERLOAD: Final = 2.0
#: Drivers get a level so long before it begins.
AHEAD_SECONDS: Final = 0.3
TRACED_AT_ONCE: Final = 16


class Bench:
    """Measures levels over one sandbox."""

    def __init__(self, sandbox: Sandbox, drivers: Drivers, options: argparse.Namespace) -> None:
        self._sandbox = sandbox
        self._drivers = drivers
        self._options = options

    def load(self, *, rate: float | None = None, concurrency: int | None = None) -> Load:
        """A level as the options want it."""
        seed = f"{self._options.seed}/{rate}/{concurrency}"
        return Load(rate, concurrency, self._options.warm_up, self._options.seconds, GRACE_SECONDS, seed)

    async def warm_up(self) -> None:
        """One plan, through everything."""
        seed = f"{self._options.seed}/warm-up"
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
        of_each = await per_settlement(self._sandbox, before, after, max(found["settlements"], 1))
        return {"load": load.name, "rate": load.rate, "concurrency": load.concurrency, **found, **of_each}

    async def overload(self, sustained: float) -> dict[str, Any]:
        """Twice as much as is done is offered."""
        load = self.load(rate=round(OVERLOAD * sustained, 3))
        load = replace(load, grace_seconds=GRACE_SECONDS + load.until * OVERLOAD)
        found = await self.level(load)
        share = round(found["settlements_per_second"] / sustained, 3)
        return found | {"overload": True, "sustained_per_second": sustained, "delivered_share": share}

    async def _costs_at(self, moment: float) -> Costs:
        await asyncio.sleep(max(moment - time.monotonic(), 0.0))
        return await costs(self._sandbox, self._drivers.pids)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    result: dict[str, Any] = {"seed": options.seed, "cores": os.cpu_count(), "python": platform.python_version()}
    began = time.monotonic()
    async with stage() as sandbox:
        result["up_seconds"] = round(time.monotonic() - began, 2)
        result["levels"] = levels = []
        async with Drivers(sandbox.run.path, options.drivers) as drivers:
            bench = Bench(sandbox, drivers, options)
            await bench.warm_up()
            for concurrency in options.concurrency:
                levels.append(shown(await bench.level(bench.load(concurrency=concurrency))))
            sustained = max((each["settlements_per_second"] for each in levels), default=0.0)
            for rate in [round(sustained / 2, 3)] if options.rate is None else options.rate:
                levels.append(shown(await bench.level(bench.load(rate=rate))))
            resident = resident_bytes(sandbox)
            if options.overload:
                levels.append(shown(await bench.overload(max(each["settlements_per_second"] for each in levels))))
        result["resident_mib"] = {name: round(size / 2**20, 1) for name, size in resident.items()}
        result["resident_total_mib"] = round(sum(resident.values()) / 2**20, 1)
    if options.traced:
        result["traced"] = await statements(TRACED_AT_ONCE, options.traced, options.seed)
        print(f"\n  statements per settlement            {result['traced']['statements_per_settlement']}")
    return result


def shown(found: dict[str, Any]) -> dict[str, Any]:
    """The same, after it was printed."""
    print("\n".join(report.lines(found)), flush=True)
    return found


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    result["limits_broken"] = limits.broken(result)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
        page = options.out.with_suffix(".html")
        page.write_text(plot.page(result))
        print(f"\n  written: {options.out} and {page}")
    brief = {
        **result,
        "levels": [{name: value for name, value in each.items() if name != "over_time"} for each in result["levels"]],
    }
    print(f"BENCH_RESULT {json.dumps(brief)}", flush=True)
    return 1 if result["limits_broken"] else 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench", description=__doc__)
    options.add_argument("--concurrency", type=int, nargs="*", default=[1, 16, 64], help="closed loops: plans at a time")
    options.add_argument(
        "--rate",
        type=float,
        nargs="*",
        default=None,
        help="open loops: plans a second; if not given, half of the best closed loop's",
    )
    options.add_argument("--overload", action="store_true", help="at last offer twice of what was done at the best")
    options.add_argument("--warm-up", type=float, default=5.0, help="seconds of load at each level before anything counts")
    options.add_argument("--seconds", type=float, default=15.0, help="seconds that are measured at each level")
    options.add_argument("--seed", default="1", help="of which plans and arrivals are drawn")
    options.add_argument("--drivers", type=int, default=1, help="processes that settle plans")
    options.add_argument("--traced", type=float, default=5.0, help="seconds of a run that counts statements; 0 for none")
    options.add_argument("--out", type=Path, help="file for the result as JSON; a page with plots is written beside it (.html)")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
