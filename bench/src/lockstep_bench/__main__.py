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
from pathlib import Path
from typing import Any, Final

from lockstep_bench import limits, plot, report
from lockstep_bench.costs import resident_bytes
from lockstep_bench.drivers import Drivers
from lockstep_bench.levels import Bench
from lockstep_bench.stage import stage
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_bench.traced import statements
from lockstep_sandbox.stack import Sandbox

TRACED_AT_ONCE: Final = 16


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    result: dict[str, Any] = {"seed": options.seed, "cores": os.cpu_count(), "python": platform.python_version()}
    began = time.monotonic()
    async with stage() as sandbox:
        result["up_seconds"] = round(time.monotonic() - began, 2)
        result["levels"] = levels = []
        async with Drivers(sandbox.run.path, options.drivers) as drivers:
            bench = Bench(sandbox, drivers, seed=options.seed, warm_up_seconds=options.warm_up, seconds=options.seconds)
            await bench.warm_up()
            for concurrency in options.concurrency:
                levels.append(shown(await bench.level(bench.load(concurrency=concurrency)) | resident(sandbox)))
            for rate in [round(bench.sustained / 2, 3)] if options.rate is None else options.rate:
                levels.append(shown(await bench.level(bench.load(rate=rate)) | resident(sandbox)))
            if options.overload:
                levels.append(shown(await bench.overload() | resident(sandbox)))
    if options.traced:
        result["traced"] = await statements(TRACED_AT_ONCE, options.traced, options.seed)
        print(f"\n  statements per settlement            {result['traced']['statements_per_settlement']}")
    return result


def resident(sandbox: Sandbox) -> dict[str, Any]:
    """Memory of each process now."""
    found = resident_bytes(sandbox)
    return {
        "resident_mib": {name: round(size / 2**20, 1) for name, size in found.items()},
        "resident_total_mib": round(sum(found.values()) / 2**20, 1),
    }


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
