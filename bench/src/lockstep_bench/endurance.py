"""`make bench-endurance`: whether time changes anything: one closed loop for long, told stretch by stretch.

A plan settled costs the next one nothing, and memory that was taken is given back or used again: throughput and resident memory of the last stretches are held
against those of the first. The chain's node, which keeps all transactions in memory, is no part of that. What Postgres keeps on disk grows, and is told.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lockstep_bench.costs import Costs, costs, counted, resident_bytes
from lockstep_bench.drivers import Drivers
from lockstep_bench.levels import AHEAD_SECONDS, GRACE_SECONDS, Bench
from lockstep_bench.schedule import Load
from lockstep_bench.stage import stage
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_bench.timelines import Timeline, Window, summary
from lockstep_sandbox.stack import Sandbox

#: Of what is compared, the mean of so many stretches: groups that end together make single ones uneven.
COMPARED: Final = 2
#: Least share of the first stretches' throughput that the last have.
RATE_SHARE_MIN: Final = 0.9
#: Most that resident memory at the end may be of what it was after the first stretches.
RESIDENT_SHARE_MAX: Final = 1.1
#: Whose memory is none of Lockstep's.
NODE: Final = "chain"
#: What of a stretch is told.
TOLD: Final = (
    "settlements",
    "settlements_per_second",
    "failed",
    "unfinished",
    "turned_away",
    "committed_p99_ms",
    "closed_p50_ms",
    "closed_p99_ms",
)
SUMMED: Final = ("commits_per_settlement", "rpcs_per_settlement", "database_octets_per_settlement", "logged_octets_per_settlement")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was used up to a moment, and what is held at it."""

    #: Seconds since the load began.
    moment: float
    costs: Costs
    #: Process -> octets of resident memory.
    resident: Mapping[str, int]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    async with stage() as sandbox, Drivers(sandbox.run.path, options.drivers) as drivers:
        await Bench(sandbox, drivers, seed=options.seed, warm_up_seconds=0.0, seconds=0.0).warm_up()
        seconds = options.stretch * options.stretches
        load = Load(None, options.concurrency, options.warm_up, seconds, GRACE_SECONDS, f"{options.seed}/endurance")
        began = time.monotonic() + AHEAD_SECONDS
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(drivers.settle(load, began))
            moments = [options.warm_up + options.stretch * number for number in range(options.stretches + 1)]
            readings = [await reading(sandbox, drivers, began, moment) for moment in moments]
        waited = time.monotonic() - began
    stretches = told(settling.result(), readings, waited)
    return {"concurrency": options.concurrency, "stretches": stretches, "limits_broken": broken(stretches)}


async def reading(sandbox: Sandbox, drivers: Drivers, began: float, moment: float) -> Reading:
    """What stands at a moment."""
    await asyncio.sleep(max(began + moment - time.monotonic(), 0.0))
    resident = resident_bytes(sandbox)
    brief = "  ".join(f"{name} {size / 2**20:.0f}" for name, size in resident.items())
    print(f"  {moment:8.0f} s  resident, MiB: {brief}", flush=True)
    return Reading(moment, await costs(sandbox, drivers.pids), resident)


# -- what comes of it: pure --------------------------------------------------------------------------------------------


def told(timelines: Sequence[Timeline], readings: Sequence[Reading], waited_until: float) -> list[dict[str, Any]]:
    """What is told of each stretch between two readings."""
    found = []
    for before, after in itertools.pairwise(readings):
        said = summary(timelines, Window(before.moment, after.moment, waited_until))
        of_each = counted(before.costs, after.costs, max(said["settlements"], 1))
        found.append(
            {"begins": before.moment, "ends": after.moment}
            | {name: said.get(name) for name in TOLD}
            | {name: of_each[name]["total"] for name in SUMMED}
            | {
                "gone": sorted(set(before.resident) - set(after.resident)),
                "processor_seconds_per_settlement": of_each["processor_seconds_per_settlement"],
                "resident_mib": {name: round(size / 2**20, 1) for name, size in after.resident.items()},
                "resident_own_mib": round(sum(size for name, size in after.resident.items() if name != NODE) / 2**20, 1),
            }
        )
    return found


def broken(stretches: Sequence[Mapping[str, Any]]) -> list[str]:
    """What does not hold."""
    found = [
        f"{each['begins']:g} s: {name}: {each[name]} of at most 0"
        for each in stretches
        for name in ("failed", "unfinished", "turned_away")
        if each[name]
    ]
    found += [f"{each['begins']:g} s: ended by itself: {name}" for each in stretches for name in each["gone"]]
    first, last = stretches[:COMPARED], stretches[-COMPARED:]
    rate = _mean(last, "settlements_per_second") / max(_mean(first, "settlements_per_second"), 1e-9)
    if rate < RATE_SHARE_MIN:
        found.append(f"settlements per second, last of first: {rate:.3f} of at least {RATE_SHARE_MIN:g}")
    resident = stretches[-1]["resident_own_mib"] / first[-1]["resident_own_mib"]
    if resident > RESIDENT_SHARE_MAX:
        found.append(f"resident memory, last of first: {resident:.3f} of at most {RESIDENT_SHARE_MAX:g}")
    return found


def _mean(stretches: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(sum(each[name] for each in stretches) / len(stretches))


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    for each in result["stretches"]:
        print(f"\n== {each['begins']:g} to {each['ends']:g} s ==")
        for name, value in each.items():
            said = "  ".join(f"{key} {part:g}" for key, part in value.items()) if isinstance(value, dict) else value
            print(f"  {name:36} {said}")
    print(f"BENCH_ENDURANCE_RESULT {json.dumps(result)}", flush=True)
    return 1 if result["limits_broken"] else 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.endurance", description=__doc__)
    options.add_argument("--stretch", type=float, default=300.0, help="seconds of a stretch")
    options.add_argument("--stretches", type=int, default=4, help="how many are measured")
    options.add_argument("--concurrency", type=int, default=256, help="plans at a time")
    options.add_argument("--warm-up", type=float, default=30.0, help="seconds of load before anything counts")
    options.add_argument("--seed", default="1", help="of which plans are drawn")
    options.add_argument("--drivers", type=int, default=1, help="processes that settle plans")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
