"""Runs the whole model check: every configuration, every seeded bug, the second model. Ends with one line, `MODEL_RESULT {json}`.

    python -m model                 everything
    python -m model NAME…           only these configurations and seeded bugs, with the way to what they find

Exits 1 when a rule does not hold, a seeded bug is not caught by its rule, or a row of production's tables is never used.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Final

from model import promela
from model.checking import BY_NAME, MUTANTS, Caught, check, mutate
from model.coverage import unused
from model.promela import Verified
from model.search import Found

LANES: Final = 2
Task = tuple[str, str | tuple[str, ...]]
Answer = Found | Caught | Verified


def main() -> int:
    """Runs what is named on the command line, or everything; returns the exit code."""
    names = sys.argv[1:]
    unknown = [name for name in names if name not in BY_NAME and name not in MUTANTS]
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are {', '.join((*BY_NAME, *MUTANTS))}", file=sys.stderr)
        return 2
    began = time.perf_counter()
    tasks = list(_tasks(names))
    report = _Report(verbose=bool(names))
    # Forked, so that no lane imports everything anew; each lane forgets what it worked out with its task.
    with ProcessPoolExecutor(LANES, mp_context=multiprocessing.get_context("fork"), max_tasks_per_child=None) as lanes:
        running: dict[Future[Answer], Task] = {lanes.submit(_answer, task): task for task in tasks}
        for done in as_completed(running):
            report.take(running[done], done.result())
    if not names:
        report.coverage()
        if missing := promela.missing():
            print(f"the second model was SKIPPED: {missing} is not installed")
    return report.result(time.perf_counter() - began)


def _tasks(names: list[str]) -> Iterator[Task]:
    """The longest first, so that the lanes end together."""
    if not names and not promela.missing():
        yield from (("verify", macros) for macros in promela.VERIFIED[::-1])
    yield from (("search", name) for name in BY_NAME if not names or name in names)
    yield from (("mutate", name) for name in MUTANTS if not names or name in names)
    if not names and not promela.missing():
        yield from (("falsify", macros) for macros in promela.BUGS)


def _answer(task: Task) -> Answer:
    kind, what = task
    if isinstance(what, tuple):
        return promela.verify(what)
    return check(what) if kind == "search" else mutate(what)


class _Report:
    """What was found so far."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._found: list[Found] = []
        self._caught: list[Caught] = []
        self._verified: list[Verified] = []
        self._falsified: list[Verified] = []
        self._failures = 0

    def take(self, task: Task, answer: Answer) -> None:
        """Print and keep an answer."""
        match answer:
            case Found():
                self._search(answer)
            case Caught():
                self._mutation(answer)
            case Verified():
                self._second(task, answer)

    def _search(self, found: Found) -> None:
        self._found.append(found)
        whole = "" if found.exhausted else "; NOT SEARCHED TO THE END"
        print(
            f"search  {found.config:<34} {found.states:>8} states {found.transitions:>9} moves {found.seconds:6.1f} s{whole}",
            flush=True,
        )
        if found.violation is not None:
            print(f"  VIOLATED: {found.violation.rule} ({found.violation.detail})")
            self._way(found)
        self._failures += found.violation is not None or not found.exhausted

    def _mutation(self, caught: Caught) -> None:
        self._caught.append(caught)
        found = caught.found
        rule = found.violation.rule if found.violation else "nothing"
        verdict = "" if caught.right else f"  NOT CAUGHT by: {caught.rule}"
        print(f"bug     {caught.name:<34} {len(found.trace) + 1:>3} moves to: {rule}{verdict}", flush=True)
        if self._verbose or not caught.right:
            self._way(found)
        self._failures += not caught.right

    def _second(self, task: Task, verified: Verified) -> None:
        kind, what = task
        holds = kind == "verify"
        (self._verified if holds else self._falsified).append(verified)
        right = (verified.errors == 0) is holds
        words = f"{verified.states} states" if holds else f"found: {verified.error}"
        print(f"spin    {' '.join(what):<34} {words} {verified.seconds:6.1f} s{'' if right else '  WRONG'}", flush=True)
        self._failures += not right

    def _way(self, found: Found) -> None:
        for number, label in enumerate(found.trace, start=1):
            print(f"    {number:>2}. {label}")

    def coverage(self) -> None:
        """Every row of production's tables is used by some configuration, but for those that are known not to be."""
        for line in unused(self._found):
            print(line)
            self._failures += 1

    def result(self, seconds: float) -> int:
        """Print the last line; returns the exit code."""
        right = [each for each in self._caught if each.right]
        print(
            "MODEL_RESULT "
            + json.dumps(
                {
                    "states_searched": sum(each.states for each in self._found),
                    "transitions_searched": sum(each.transitions for each in self._found),
                    "configurations": len(self._found),
                    "seeded_bugs": len(self._caught),
                    "seeded_bugs_caught": len(right),
                    "spin_states": sum(each.states for each in self._verified),
                    "spin_seeded_bugs": len(self._falsified),
                    "spin_seeded_bugs_caught": sum(each.errors > 0 for each in self._falsified),
                    "seconds": round(seconds, 1),
                    "cpu_seconds": round(_cpu_seconds(), 1),
                    "violations": self._failures,
                }
            ),
            flush=True,
        )
        return 1 if self._failures else 0


def _cpu_seconds() -> float:
    """Processor time of this process and of all that it started."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == "__main__":
    sys.exit(main())
