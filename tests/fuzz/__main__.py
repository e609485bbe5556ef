"""`make test-fuzz`: every method as every caller, in runs of calls over one sandbox, each from a seed of its own.

PYTHONPATH=tests python -m fuzz [--calls NUMBER] [--seed NUMBER] [--minutes MINUTES]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import structlog

from fuzz.running import Fuzzing, fuzzing
from lockstep_kit.errors import LockstepError
from lockstep_sandbox.processes import cancel_on_signals

CALLS: Final = 100_000
MINUTES: Final = 40.0


async def run(calls: int, seed: int, minutes: float) -> int:
    """The campaign; 1 when something does not hold."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    began = time.monotonic()
    with cancel_on_signals(), tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        async with fuzzing(Path(folder)) as ready:
            prepared = time.monotonic()
            print(f"seed {seed}; ready after {prepared - began:.0f} s", flush=True)
            used, resident = ready.processes.processor_seconds(), ready.sandbox.supervisor.resident_bytes()
            async with ready.campaign(seed) as campaign:
                await campaign.run(calls, minutes * 60)
            document, findings = campaign.document(), campaign.findings
            document["settles_afterwards"] = await settles(ready)
            if not findings:
                now, grown = ready.processes.processor_seconds(), ready.sandbox.supervisor.resident_bytes()
                document["processor_ms_per_call"] = round(
                    sum(now[name] - used[name] for name in now) * 1000 / max(campaign.calls, 1), 2
                )
                document["resident_growth_mb"] = {name: round((grown[name] - resident[name]) / 1e6, 1) for name in now}
    if not findings and campaign.calls < calls:
        print(f"time was over after {campaign.calls} calls of {calls}")
    document["seconds"] = round(time.monotonic() - began, 1)
    print("\n".join(findings))
    print(f"FUZZ_RESULT {json.dumps(document)}", flush=True)
    return 1 if findings or not document["settles_afterwards"] else 0


async def settles(ready: Fuzzing) -> bool:
    """Whether a plan still comes to its end."""
    try:
        await ready.still_settles()
    except (AssertionError, LockstepError) as error:
        print(f"no plan settles any more: {error}")
        return False
    return True


def main() -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help="how many calls are made")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="decides every call")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="no more calls are made after this")
    told = parser.parse_args()
    return asyncio.run(run(told.calls, told.seed, told.minutes))


if __name__ == "__main__":
    sys.exit(main())
