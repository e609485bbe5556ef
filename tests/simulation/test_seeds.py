"""The simulation itself: a budget of seeds, and that a seed is all that decides."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from lockstep_testkit.simulation.loop import Process, VirtualLoop, run
from lockstep_testkit.simulation.memory import Schema, Server
from lockstep_testkit.simulation.mutations import MUTATIONS, Mutation, mutated
from lockstep_testkit.simulation.running import simulate

ROOT: Final = Path(__file__).resolve().parents[2]
#: What every run of the tests spends on it: so many seeds however long they take, and then as many as there is time for.
SEEDS_MIN, SEEDS_MAX, SECONDS = 20, 10_000, 40


def simulation(*arguments: str, hashing: str = "0") -> tuple[int, list[str], dict[str, Any]]:
    """What the command prints, and its last line's object."""
    run = subprocess.run(
        [sys.executable, "-m", "lockstep_testkit.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hashing},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    lines = run.stdout.splitlines()
    assert lines, run.stderr
    assert lines[-1].startswith("SIM_RESULT "), (lines[-5:], run.stderr)
    return run.returncode, lines, json.loads(lines[-1].removeprefix("SIM_RESULT "))


def test_nothing_is_ever_half_settled() -> None:
    """Whatever goes wrong, every invariant holds once everything is well again; the budget is a time, the first seeds are always the same."""
    code, lines, result = simulation("--seeds", str(SEEDS_MIN))
    assert code == 0, "\n".join(lines)
    assert (result["violations"], result["seeds_run"]) == (0, SEEDS_MIN)
    assert result["ends"]["COMMITTED"] > 0
    assert result["ends"]["ABORTED"] > 0
    code, lines, result = simulation("--first-seed", str(SEEDS_MIN + 1), "--seeds", str(SEEDS_MAX), "--seconds", str(SECONDS))
    assert code == 0, "\n".join(lines)
    assert result["violations"] == 0


def test_a_seed_decides_everything() -> None:
    """The same seed has the same timeline in every process, whatever the process hashes and wherever its memory lies."""
    first = simulation("--seed", "17")
    second = simulation("--seed", "17", hashing="1")
    other = simulation("--seed", "18")
    assert first[1] == second[1]
    assert len(first[1]) > 50
    assert other[1] != first[1]


def test_when_memory_is_collected_decides_nothing() -> None:
    """A task that is collected runs its `finally` blocks; none is while its world goes on, however eagerly memory is collected."""
    at_ease = simulate(23, told=True)
    thresholds = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        eagerly = simulate(23, told=True)
    finally:
        gc.set_threshold(*thresholds)
    assert eagerly == at_ease
    assert at_ease.findings == ()
    assert gc.isenabled()


@pytest.mark.parametrize(("killed", "findings"), [(True, 0), (False, 1)])
def test_what_a_killed_process_does_not_look_at_is_no_finding(killed: bool, findings: int) -> None:
    """It waits for a row's lock when it is killed, and its connection is lost: nobody's mistake; of a process that lives, an error without a reader is one."""
    loop = VirtualLoop(random.Random(1))

    async def live() -> None:
        server, process, name = Server(loop, "database", Schema({}, {})), Process(loop, "process"), ("table", ("key",))
        holder, mine = server.begin(), server.begin()

        async def wait() -> None:
            await server.lock(mine, name)

        await server.lock(holder, name)
        process.spawn(wait())
        await asyncio.sleep(1)
        assert mine.waiting == name
        if killed:
            process.kill()
        server.lose([mine])
        server.rollback(holder)
        await asyncio.sleep(1)

    run(loop, live())
    gc.collect()
    assert len(loop.unhandled) == findings


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_every_bug_is_about_the_code_as_it_is(mutation: Mutation) -> None:
    """Code that a bug is about is not changed without it; entering it raises otherwise."""
    with mutated(mutation):
        pass


def test_bugs_are_noticed() -> None:
    """Each bug that is put into the code on purpose is noticed; `make test-sim-mutations` looks for those that need many seeds, too."""
    code, lines, result = simulation("--mutations", "quick")
    assert code == 0, "\n".join(lines)
    assert result["mutations_noticed"] == result["mutations_total"] >= 5
