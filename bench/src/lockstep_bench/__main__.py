"""`make bench`: starts everything, measures, stops. Exits non-zero when a stated limit does not hold."""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import sys
import time
from contextlib import closing
from typing import Any, Final

from lockstep_bench.costs import costs, per_settlement, resident_bytes
from lockstep_bench.people import People, Settled
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_sandbox.up import BASE

UP_SECONDS_MAX: Final = 20.0
COMMITTED_SECONDS_MAX: Final = 4.0
CLOSED_SECONDS_MAX: Final = 5.0
RESIDENT_BYTES_MAX: Final = int(1.2 * 2**30)
SAMPLED_RATIO: Final = 0.01
#: A level of concurrency that hangs is given up after its seconds and these.
GRACE_SECONDS: Final = 40.0
TRACED_PLANS: Final = 2
#: Exporters of spans hand in a batch at least this often.
SPANS_SECONDS: Final = 6.0
#: Calls that a service received, by service.
SQL_CALLS: Final = "select service, count(*) from span where upper(kind) like '%SERVER%' group by service"


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    result: dict[str, Any] = {}
    began = time.monotonic()
    async with Sandbox(RuntimeDirectory.create(BASE), sampled_ratio=SAMPLED_RATIO) as sandbox:
        result["up_seconds"] = round(time.monotonic() - began, 2)
        async with People(sandbox) as people:
            await people.settle("Warm-up")
            levels = []
            for concurrency in options.concurrency:
                before, started = await costs(sandbox), time.monotonic()
                settled = await closed_loop(people, concurrency, options)
                elapsed = time.monotonic() - started
                levels.append(level(concurrency, settled, elapsed) | per_settlement(before, await costs(sandbox), len(settled)))
                show(levels[-1])
            result["levels"] = levels
        resident = resident_bytes(sandbox)
        result["resident_mib"] = {name: round(size / 2**20, 1) for name, size in resident.items()}
        result["resident_total_mib"] = round(sum(resident.values()) / 2**20, 1)
    result["rpcs_per_settlement"] = await calls_per_settlement()
    return result


async def closed_loop(people: People, concurrency: int, options: argparse.Namespace) -> list[Settled]:
    """Settle plans, `concurrency` at a time: at least `plans` in all, and new ones until `seconds` are over."""
    stop = time.monotonic() + options.seconds
    settled: list[Settled] = []
    begun = 0

    async def worker() -> None:
        nonlocal begun
        while begun < options.plans or time.monotonic() < stop:
            begun += 1
            settled.append(await people.settle(f"Bench {concurrency} {begun}"))

    async with asyncio.timeout(options.seconds + GRACE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return settled


def level(concurrency: int, settled: list[Settled], elapsed: float) -> dict[str, Any]:
    """Throughput and latency at one concurrency."""
    found: dict[str, Any] = {
        "concurrency": concurrency,
        "settlements": len(settled),
        "settlements_per_second": round(len(settled) / elapsed, 3),
    }
    for name, values in (
        ("committed", [each.committed_seconds for each in settled]),
        ("closed", [each.closed_seconds for each in settled]),
    ):
        found |= {f"{name}_p{percent}_ms": round(percentile(values, percent) * 1000) for percent in (50, 95, 99)}
    return found


def percentile(values: list[float], percent: int) -> float:
    """A percentile, interpolated between neighbours."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def calls_per_settlement() -> dict[str, float]:
    """Calls that each service received per settlement, from a short run of its own with every trace recorded."""
    async with Sandbox(RuntimeDirectory.create(BASE), sampled_ratio=1.0) as sandbox:
        async with People(sandbox) as people:
            for number in range(TRACED_PLANS):
                await people.settle(f"Traced {number}")
        await asyncio.sleep(SPANS_SECONDS)
        with closing(sqlite3.connect(sandbox.run.path / "state" / "spans.sqlite")) as table:
            counts = {str(service): round(int(count) / TRACED_PLANS, 1) for service, count in table.execute(SQL_CALLS)}
    return {**counts, "total": round(sum(counts.values()), 1)}


def show(found: dict[str, Any]) -> None:
    """A table of one level."""
    print(f"\n== {found['concurrency']} at a time ==")
    for name, value in found.items():
        shown = "  ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"  {name:36} {shown}", flush=True)


def broken(result: dict[str, Any]) -> list[str]:
    """Stated limits that do not hold; those of latency are for one plan alone, in the median."""
    alone = [each for each in result["levels"] if each["concurrency"] == 1]
    held = [("everything up, seconds", result["up_seconds"], UP_SECONDS_MAX)]
    held.append(("resident, MiB", result["resident_total_mib"], RESIDENT_BYTES_MAX / 2**20))
    for each in alone:
        held.append(("COMMITTED, seconds", each["committed_p50_ms"] / 1000, COMMITTED_SECONDS_MAX))
        held.append(("CLOSED, seconds", each["closed_p50_ms"] / 1000, CLOSED_SECONDS_MAX))
    print("\n== Limits ==")
    for name, value, limit in held:
        print(f"  {name:36} {value} of {limit:g}")
    return [f"{name}: {value} of {limit:g}" for name, value, limit in held if value > limit]


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    print(f"\n  RPCs per settlement                  {result['rpcs_per_settlement']}")
    result["limits_broken"] = broken(result)
    print(f"BENCH_RESULT {json.dumps(result)}", flush=True)
    return 1 if result["limits_broken"] else 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench", description=__doc__)
    options.add_argument("--seconds", type=float, default=25.0, help="how long plans are begun at each concurrency")
    options.add_argument("--plans", type=int, default=5, help="plans that are settled at least at each concurrency")
    options.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="plans at a time")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
