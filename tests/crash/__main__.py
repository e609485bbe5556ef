"""`make test-crash`: every failpoint of every service, on every path that leads through it; Postgres itself; crashes during recovery.

PYTHONPATH=tests python -m crash [--only TEXT] [--pairs COUNT] [--seed NUMBER] [--sample COUNT] [--profile PROFILE] [--files]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path as File

import structlog

from bank_gateway.file_rail import FAILPOINTS
from bank_gateway.profiles import ProfileName
from crash.campaign import Campaign, campaign_over, declared, pairs, result
from crash.paths import Path
from lockstep_kit.failpoints import declare
from lockstep_sandbox.processes import cancel_on_signals

#: When Postgres dies, after a plan was begun.
POWER_CUTS_SECONDS = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)


async def run(only: str, count: int, seed: int, sample: int, profile: str, *, by_files: bool) -> int:
    """The whole campaign; 1 when something does not hold."""
    # People are told again and again that the coordinator is unreachable: that is the point of it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    began = time.monotonic()
    if by_files:
        declare(*FAILPOINTS)
    points = [point for point in declared() if only in point]
    with cancel_on_signals(), tempfile.TemporaryDirectory(prefix="crash-") as folder:
        async with campaign_over(File(folder), profile, by_files=by_files) as campaign:
            await campaign.survey()
            print(f"{len(points)} places; no path leads through {campaign.unreached(points)}", flush=True)
            matrix = campaign.matrix(points)
            if 0 < sample < len(matrix):
                matrix = random.Random(seed).sample(matrix, sample)
                points = sorted({point for point, _ in matrix})
            for point, path in matrix:
                await _told(campaign, campaign.strike(point, path))
            if not only:
                for path in (Path.COMMIT, Path.ABORT):
                    for after in POWER_CUTS_SECONDS:
                        await _told(campaign, campaign.cut_power(path, after))
            for first, second, path in pairs(campaign, seed, count):
                await _told(campaign, campaign.strike(first, path, again=second))
            final = await campaign.judged()
            document, failures = result(campaign, points, final, time.monotonic() - began)
    print("\n".join(failures))
    print(f"CRASH_RESULT {json.dumps(document)}", flush=True)
    return 1 if failures else 0


async def _told(campaign: Campaign, striking: object) -> None:
    found = await striking  # type: ignore[misc]
    seconds = "never" if found.terminal_seconds is None else f"{found.terminal_seconds:.1f} s"
    print(f"{len(campaign.runs):4} {found.point} on {found.path}: {seconds}", *found.failures(), sep="\n       ", flush=True)


def main() -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only failpoints whose name holds this text")
    parser.add_argument("--pairs", type=int, default=20, help="crashes during recovery")
    parser.add_argument("--seed", type=int, default=1, help="which of them")
    parser.add_argument("--sample", type=int, default=0, help="only so many crashes, drawn by the seed; 0: all")
    parser.add_argument(
        "--profile", type=ProfileName, choices=ProfileName, default=ProfileName.CONDITIONAL, help="how payments are made"
    )
    parser.add_argument("--files", action="store_true", help="exchange files with the bank, and not over HTTPS")
    told = parser.parse_args()
    return asyncio.run(run(told.only, told.pairs, told.seed, told.sample, told.profile.value, by_files=told.files))


if __name__ == "__main__":
    sys.exit(main())
