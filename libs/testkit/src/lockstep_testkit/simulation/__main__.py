"""`python -m lockstep_testkit.simulation`: run seeds, say what was found, and end with one line for machines.

SEEDS=n FIRST_SEED=m make test-sim          n seeds from m on
--seed m                                    one seed, with its timeline
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter

from lockstep_testkit.simulation.mutations import MUTATIONS, mutated
from lockstep_testkit.simulation.running import Result, simulate

#: Sets are gone through in the order of their hashes; it must be the same in every run.
#: Worlds are full of circles; so many of them fit in memory beside one another.
COLLECTED_AFTER = 20
#: Bugs that so many seeds show are looked for in every run of the tests.
QUICK_SEEDS = 25
_HASHING = {"PYTHONHASHSEED": "0"}


def main() -> int:
    """Run what the command line asks for; 0 when everything holds."""
    parser = argparse.ArgumentParser(prog="python -m lockstep_testkit.simulation", description="Deterministic simulation.")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=1, help="the first of them")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so many seconds, whatever is left")
    parser.add_argument("--seed", type=int, help="one seed alone, with its timeline")
    parser.add_argument("--plan", default="", help="only what the timeline tells of this plan")
    parser.add_argument("--restores", action="store_true", help="databases are put back to what they were, too")
    parser.add_argument(
        "--mutations", choices=("all", "quick"), help="put bugs into the code, one at a time, and see that each is noticed"
    )
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "lockstep_testkit.simulation", *sys.argv[1:]], os.environ | _HASHING)  # noqa: S606 - itself, again
    if asked.mutations:
        return _bugs(QUICK_SEEDS if asked.mutations == "quick" else None)
    if asked.seed is not None:
        return _one(asked.seed, asked.plan, restores=asked.restores)
    return _many(asked.first_seed, asked.seeds, asked.seconds, restores=asked.restores)


def _one(seed: int, plan: str, *, restores: bool) -> int:
    _settle()
    result = simulate(seed, told=True, restores=restores)
    _say(*(line for line in result.lines if not plan or plan in line or "plan" not in line))
    _summarise([result], 0.0, 0.0)
    return 1 if result.findings else 0


def _many(first: int, count: int, seconds_max: float, *, restores: bool) -> int:
    _settle()
    began, busy, results = time.monotonic(), time.process_time(), []
    failed: Result | None = None
    for seed in range(first, first + count):
        result = _collected(seed, restores=restores)
        results.append(result)
        if result.findings:
            failed = failed or result
            _say(f"seed {seed}:", *(f"  {each}" for each in result.findings), f"  {command(seed, restores=restores)}")
        if seconds_max and time.monotonic() - began > seconds_max:
            break
    _summarise(results, time.monotonic() - began, time.process_time() - busy)
    return 1 if failed is not None else 0


def _bugs(seeds_max: int | None) -> int:
    """Every bug, or those that few seeds show, until it is noticed; 0 when each was."""
    _settle()
    wanted = [each for each in MUTATIONS if seeds_max is None or each.seeds <= seeds_max]
    missed = []
    for each in wanted:
        with mutated(each):
            found = next((result for seed in range(1, each.seeds + 1) if (result := _collected(seed)).findings), None)
        if found is None:
            missed.append(each.name)
            _say(f"not noticed within {each.seeds} seeds: {each.name}")
        else:
            _say(f"noticed at seed {found.seed}: {each.name} ({found.findings[0][:160]})")
    told = {"mutations_total": len(wanted), "mutations_noticed": len(wanted) - len(missed), "violations": len(missed)}
    _say(f"SIM_RESULT {json.dumps(told)}")
    return 1 if missed else 0


def _collected(seed: int, *, restores: bool = False) -> Result:
    result = simulate(seed, restores=restores)
    if seed % COLLECTED_AFTER == 0:
        gc.collect()
    return result


def _settle() -> None:
    """Between seeds, too, it is collected only now and then, and what is there already is not looked at."""
    gc.disable()
    gc.collect()
    gc.freeze()


def command(seed: int, *, restores: bool) -> str:
    """What repeats a seed, with its timeline."""
    return f".venv/bin/python -m lockstep_testkit.simulation --seed {seed}{' --restores' if restores else ''}"


def _summarise(results: list[Result], seconds: float, busy_seconds: float) -> None:
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for each in results:
        faults.update(each.faults)
        ends.update(each.ends)
    failing = [each.seed for each in results if each.findings]
    _say(*(f"seed {each.seed}: {finding}" for each in results if len(results) == 1 for finding in each.findings))
    told = {
        "seeds_run": len(results),
        "seeds_per_second": round(len(results) / seconds, 2) if seconds else None,
        # Of one core, whatever else the machine does.
        "seeds_per_processor_second": round(len(results) / busy_seconds, 2) if busy_seconds else None,
        "plans": sum(each.plans for each in results),
        "ends": dict(sorted(ends.items())),
        "faults": dict(sorted(faults.items())),
        "virtual_seconds": round(sum(each.seconds for each in results), 1),
        "healing_seconds_max": round(max((each.healing_seconds for each in results), default=0.0), 1),
        "violations": sum(len(each.findings) for each in results),
        "first_failing_seed": failing[0] if failing else None,
    }
    _say(f"SIM_RESULT {json.dumps(told)}")


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
