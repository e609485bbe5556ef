"""`make bench-flood`: what others notice while one client floods the coordinator. Exits non-zero when they notice more than twice.

One client floods in each of several ways, from a process of its own over several connections, while another reads plans at an even pace and settles some. Quiet
stretches alternate with flooded ones, so that whatever else the machine does befalls both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

from lockstep_bench.flooding import KINDS
from lockstep_bench.guard_costs import guard_costs
from lockstep_bench.people import People, validating
from lockstep_bench.schedule import work
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_bench.timelines import Timeline, percentile
from lockstep_client.client import LockstepClient
from lockstep_client.configuration import read_configuration
from lockstep_sandbox import callers
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_sandbox.up import BASE

FLOODER: Final = "client/flood"
QUIET: Final = "quiet"
RATIO_MAX: Final = 2.0
#: Reads a second.
PACE: Final = 25.0
#: The flood has used up its bursts after this, and what is measured is what stays.
SETTLING_IN_SECONDS: Final = 3.0
ENDING_SECONDS: Final = 20.0
#: The one that floods is a client like another: it stands for parties, and may call what a client may.
CLIENTS: Final = {**callers.clients(), "flood": {"methods": ["*"], "parties": list(callers.PARTIES)}}


@contextlib.asynccontextmanager
async def flooded(sandbox: Sandbox, kind: str, plan_id: str, answers: Counter[str]) -> AsyncIterator[None]:
    """One client floods inside; its answers are counted."""
    if kind == QUIET:
        yield
        return
    tls = sandbox.authority.issue(FLOODER)
    command = (sys.executable, "-m", "lockstep_bench.flooding", kind, sandbox.address("coordinator"), plan_id)
    files = (str(tls.certificate_file), str(tls.key_file), str(tls.ca_file))
    process = await asyncio.create_subprocess_exec(*command, *files, stdout=asyncio.subprocess.PIPE)
    try:
        await asyncio.sleep(SETTLING_IN_SECONDS)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), ENDING_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        answers.update(json.loads(output))


async def reading(client: LockstepClient, plan_id: str, seconds: float) -> list[float]:
    """Latencies of reads at an even pace, however long each takes."""
    began, found, reads = time.monotonic(), [], []

    async def read() -> None:
        asked = time.monotonic()
        await client.get_plan(plan_id)
        found.append(time.monotonic() - asked)

    for number in range(int(seconds * PACE)):
        await asyncio.sleep(max(began + number / PACE - time.monotonic(), 0))
        reads.append(asyncio.create_task(read()))
    await asyncio.gather(*reads)
    return found


async def committed(people: People, number: int) -> float:
    """Settle a plan; seconds until it was seen COMMITTED."""
    timeline = await people.settle(work("flood", number), Timeline(number, 0.0), time.monotonic())
    return timeline.seen["committed"]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    kinds = (QUIET, *options.kinds)
    reads: dict[str, list[float]] = {kind: [] for kind in kinds}
    settled: dict[str, list[float]] = {kind: [] for kind in kinds}
    answers: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    changes = {"coordinator": {"clients": CLIENTS}}
    async with (
        Sandbox(RuntimeDirectory.create(BASE), sampled_ratio=0.01, changes=changes) as sandbox,
        validating(sandbox),
        People(sandbox.run.path) as people,
    ):
        configuration = read_configuration(sandbox.client_configuration)
        async with LockstepClient(configuration.coordinator, configuration.tls) as client:
            await committed(people, 0)
            plan_id = (await anext(client.list_plans())).header.plan_id
            for place in range(options.rounds * len(kinds)):
                kind = kinds[place % len(kinds)]
                async with flooded(sandbox, kind, plan_id, answers[kind]):
                    settling = asyncio.create_task(committed(people, place + 1))
                    reads[kind] += await reading(client, plan_id, options.seconds)
                    settled[kind].append(await settling)
    quiet = {"read": reads[QUIET], "settled": settled[QUIET]}
    levels = [told(kind, reads[kind], settled[kind], answers[kind], quiet) for kind in kinds]
    return {"levels": levels, "guard": await guard_costs(options.settlement_milliseconds)}


def told(
    kind: str, reads: list[float], settled: list[float], answers: Counter[str], quiet: dict[str, list[float]]
) -> dict[str, Any]:
    """One kind of flood, beside the quiet."""
    found: dict[str, Any] = {"kind": kind, "reads": len(reads)}
    for name, share in (("p50", 50), ("p99", 99)):
        now, then = percentile(reads, share), percentile(quiet["read"], share)
        found |= {f"read_{name}_ms": round(now * 1000, 2), f"read_{name}_ratio": round(now / then, 2)}
    now, then = statistics.median(settled), statistics.median(quiet["settled"])
    found |= {"settled_p50_ms": round(now * 1000), "settled_p50_ratio": round(now / then, 2), "flooder_was_told": dict(answers)}
    print(f"  {kind:10} " + "  ".join(f"{name} {value}" for name, value in found.items() if name != "kind"), flush=True)
    return found


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    ratios = ("read_p50_ratio", "read_p99_ratio", "settled_p50_ratio")
    result["limits_broken"] = [
        f"{each['kind']}: {name} {each[name]} of {RATIO_MAX:g}"
        for each in result["levels"]
        for name in ratios
        if each[name] > RATIO_MAX
    ]
    print(f"BENCH_RESULT {json.dumps(result)}", flush=True)
    return 1 if result["limits_broken"] else 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.flood", description=__doc__)
    options.add_argument("--seconds", type=float, default=8.0, help="how long each stretch is")
    options.add_argument("--rounds", type=int, default=3, help="stretches of each kind")
    options.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS), help="ways of flooding")
    options.add_argument(
        "--settlement-milliseconds", type=float, default=257.0, help="processor time of a settlement, as `make bench` measured it"
    )
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
