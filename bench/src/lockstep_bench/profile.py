"""`make bench-profile`: where the processor time of each service goes under load, as a flame graph of each in bench/out.

py-spy looks at each process a hundred times a second from outside, without its taking part; it needs the right to trace processes (ptrace), which containers
often lack. What is not Python (Postgres, the chain) is not shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from lockstep_bench.drivers import Drivers
from lockstep_bench.people import VALIDATOR
from lockstep_bench.schedule import Load
from lockstep_bench.stage import stage
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_sandbox.monitoring import MONITOR
from lockstep_sandbox.stack import BANK, SERVICES

SAMPLER: Final = Path(sys.executable).with_name("py-spy")
SAMPLES_PER_SECOND: Final = 100
DRIVER: Final = "driver"
#: How long a sampler may take to begin, and to write what it found.
SAMPLER_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 40.0


class MayNotTrace(Exception):
    """The machine does not let one process look into another."""


async def sampled(*arguments: str, seconds_max: float) -> tuple[int, str]:
    """Run the sampler; its exit code, and what it said.

    Raises:
        TimeoutError: it did not end.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(str(SAMPLER), *arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        said, _ = await asyncio.wait_for(process.communicate(), seconds_max)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace").strip()


async def check_rights(pid: int) -> None:
    """The sampler can look into a process.

    Raises:
        MayNotTrace: it may not, or cannot.
    """
    code, said = await sampled("dump", "--nonblocking", "--pid", str(pid), seconds_max=SAMPLER_SECONDS)
    if code != 0:
        raise MayNotTrace(f"py-spy cannot look into a service: {said.splitlines()[-1] if said else code}")


async def profile(name: str, pid: int, folder: Path, seconds: float) -> Path:
    """A flame graph of what a process does for so long.

    Raises:
        RuntimeError: the process could not be looked into to the end.
    """
    file = folder / f"profile-{name}.svg"
    wanted = ("--format", "flamegraph", "--rate", str(SAMPLES_PER_SECOND), "--duration", str(max(int(seconds), 1)))
    code, said = await sampled("record", "--pid", str(pid), *wanted, "--output", str(file), seconds_max=seconds + SAMPLER_SECONDS)
    if code != 0:
        raise RuntimeError(f"{name}: {said}")
    return file


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Flame graphs of everything that is Python, all over the same stretch of load."""
    options.folder.mkdir(parents=True, exist_ok=True)
    async with stage() as sandbox, Drivers(sandbox.run.path, 1) as drivers:
        await check_rights(sandbox.supervisor.pid(SERVICES[0]))
        seconds = options.warm_up + options.seconds + SAMPLER_SECONDS / 10
        load = Load(None, options.concurrency, options.warm_up, seconds, GRACE_SECONDS, seed="profile")
        pids = {name: sandbox.supervisor.pid(name) for name in (*SERVICES, MONITOR, BANK, VALIDATOR)} | {DRIVER: drivers.pids[0]}
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(drivers.settle(load, time.monotonic()))
            await asyncio.sleep(options.warm_up)
            drawn = [group.create_task(profile(name, pid, options.folder, options.seconds)) for name, pid in pids.items()]
        closed = sum("closed" in each.seen for each in settling.result())
    return {"concurrency": options.concurrency, "settlements": closed, "files": [str(each.result()) for each in drawn]}


async def bench(options: argparse.Namespace) -> int:
    """The exit code."""
    try:
        result = await unless_stopped(measure(options))
    except MayNotTrace as error:
        print(
            f"{error}\nNothing was profiled: it takes the right to trace processes (CAP_SYS_PTRACE in a container).",
            file=sys.stderr,
        )
        return 1
    if result is None:
        return STOPPED
    for file in result["files"]:
        print(f"  {file}")
    print(f"BENCH_PROFILE_RESULT {json.dumps(result)}", flush=True)
    return 0


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.profile", description=__doc__)
    options.add_argument("--concurrency", type=int, default=48, help="plans at a time")
    options.add_argument("--warm-up", type=float, default=5.0, help="seconds of load before anything is looked at")
    options.add_argument("--seconds", type=float, default=20.0, help="seconds that are looked at")
    options.add_argument("--folder", type=Path, default=Path("bench/out"), help="where the graphs go")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
