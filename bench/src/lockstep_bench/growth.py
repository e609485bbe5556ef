"""`make bench-growth`: what a settlement costs as the work grows: legs of a plan, streams that watch, plans that were settled before.

Each is raised by itself, over a closed loop; what counts is processor time and commits of a settlement, which say the same beside other work as alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

from lockstep_bench.copies import grow
from lockstep_bench.drivers import Drivers
from lockstep_bench.levels import Bench
from lockstep_bench.stage import stage
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_bench.watchers import watching

#: What is told of each level.
TOLD: Final = ("settlements", "settlements_per_second", "closed_p50_ms", "gas_per_settlement")
SUMMED: Final = (
    "processor_seconds_per_settlement",
    "commits_per_settlement",
    "rpcs_per_settlement",
    "logged_octets_per_settlement",
)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured; the settled plans last, since they stay."""
    result: dict[str, list[dict[str, Any]]] = {"legs": [], "watches": [], "settled": []}
    async with stage() as sandbox, Drivers(sandbox.run.path, 1) as drivers:
        bench = Bench(sandbox, drivers, seed=options.seed, warm_up_seconds=options.warm_up, seconds=options.seconds)
        await bench.warm_up()

        async def level(what: str, size: int, *, legs: int = 2) -> None:
            found = await bench.level(bench.load(concurrency=options.concurrency, legs=legs, name=f"{what} {size}"))
            result[what].append(shown(what, size, found))

        for legs in options.legs:
            await level("legs", legs, legs=legs)
        for count in options.watches:
            async with AsyncExitStack() as stack:
                if count:
                    await stack.enter_async_context(watching(sandbox, count))
                await level("watches", count)
        there = 0
        for plans in options.settled:
            if plans > there:
                more, left_out = await grow(sandbox, plans - there, there)
                there += more
                print(f"\n  {more} plans copied; without {', '.join(left_out) or 'nothing'}")
            await level("settled", there)
    return {"concurrency": options.concurrency, **result}


def shown(what: str, size: int, found: dict[str, Any]) -> dict[str, Any]:
    """What is told of a level, after it was printed."""
    told = {name: found.get(name) for name in TOLD} | {name: found[name]["total"] for name in SUMMED}
    told["processor_seconds_by_process"] = {
        name: value for name, value in found["processor_seconds_per_settlement"].items() if name != "total"
    }
    print(f"\n== {what}: {size} ==")
    for name, value in told.items():
        print(f"  {name:36} {value}", flush=True)
    return {what: size, **told}


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    print(f"BENCH_GROWTH_RESULT {json.dumps(result)}", flush=True)
    return 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.growth", description=__doc__)
    options.add_argument("--legs", type=int, nargs="*", default=[1, 2, 10, 50], help="settling legs of a plan")
    options.add_argument("--watches", type=int, nargs="*", default=[0, 100, 1_000], help="streams that watch beside the driver's")
    options.add_argument("--settled", type=int, nargs="*", default=[0, 10_000, 50_000], help="plans that were settled before")
    options.add_argument("--concurrency", type=int, default=8, help="plans at a time")
    options.add_argument("--warm-up", type=float, default=4.0, help="seconds of load at each level before anything counts")
    options.add_argument("--seconds", type=float, default=12.0, help="seconds that are measured at each level")
    options.add_argument("--seed", default="1", help="of which plans are drawn")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
