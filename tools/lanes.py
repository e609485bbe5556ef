"""Runs the tests of folders, two folders at a time, each in a process of its own with its own databases: they wait more than they compute.

    tools/lanes.py FOLDER…

One line per folder with its seconds and what pytest says at the end, and what was skipped; the whole output of those that fail follows. A folder that is
alone prints as it runs. Told to stop, it tells the processes, which clean up, and waits for them.

The few tests that failed are run once more, when nothing else runs. Those that pass then are named as unsteady: each is a defect, of the test or of what
it tests, and is to be looked into; but whether this tree settles rightly on a busy machine is said by the second run. Exits 1 if any fails twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workspace import ROOT, python

LANES = 2
#: More tests than these that fail in a folder are no matter of a busy machine.
AGAIN_MAX = 5
LOOK_SECONDS = 0.2
#: A test that takes longer prints where every thread stands.
PYTEST = ("-m", "pytest", "-o", "faulthandler_timeout=180")
#: How long a process that was told to stop may clean up.
GRACE_SECONDS = 45.0


@dataclass(frozen=True)
class Running:
    """A folder whose tests run."""

    folder: str
    process: subprocess.Popen[bytes]
    #: None where it prints as it runs.
    output: IO[bytes] | None
    #: Where pytest remembers what failed.
    cache: tempfile.TemporaryDirectory[str]
    began: float

    def lines(self) -> list[str]:
        """What was printed so far, and not seen yet."""
        if self.output is None:
            return []
        self.output.seek(0)
        return self.output.read().decode(errors="replace").splitlines()


def main() -> int:
    """Runs the tests in the folders of the command line; returns the exit code."""
    # The longest first, so that the lanes end together; what is long to run is long to read.
    waiting = sorted(sys.argv[1:], key=size)
    alone = len(waiting) == 1
    running: list[Running] = []
    failed: list[Running] = []
    twice = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < LANES:
                running.append(start(waiting.pop(), output=None if alone else tempfile.TemporaryFile()))  # noqa: SIM115 - is read at its end
            time.sleep(LOOK_SECONDS)
            for each in [each for each in running if each.process.poll() is not None]:
                # Before anything is told of it: who stops the run then is shown it, too.
                if each.process.returncode != 0:
                    failed.append(each)
                running.remove(each)
                tell(each)
        while failed:
            twice |= not passes_again(failed.pop(0), running)
    except KeyboardInterrupt:
        stop(running)
        for each in (*failed, *(one for one in running if one not in failed)):
            show(each)
        return 1
    return 1 if twice else 0


def show(each: Running) -> None:
    """The whole output of a folder."""
    print(f"\n---- {each.folder}", *each.lines(), sep="\n", flush=True)


def passes_again(each: Running, running: list[Running]) -> bool:
    """Whether what failed in a folder passes when it is run once more."""
    show(each)
    names = failures(each)
    # 1: tests failed, and nothing worse happened.
    if each.process.returncode != 1 or not 1 <= len(names) <= AGAIN_MAX:
        return False
    second = start(each.folder, output=None, failed_in=each.cache)
    running.append(second)
    passed = second.process.wait() == 0
    running.remove(second)
    found = "UNSTEADY, passed when run again" if passed else "FAILED, and not all passed when run again"
    print(f"\ntests: {found}:", *names, sep="\n       ", flush=True)
    return passed


def failures(each: Running) -> list[str]:
    """The tests that failed in a folder."""
    path = Path(each.cache.name, "v/cache/lastfailed")
    return sorted(json.loads(path.read_text())) if path.exists() else []


def size(folder: str) -> int:
    """Octets of a folder's Python files."""
    return sum(path.stat().st_size for path in (ROOT / folder).rglob("*.py"))


def start(folder: str, *, output: IO[bytes] | None, failed_in: tempfile.TemporaryDirectory[str] | None = None) -> Running:
    """Begin with a folder's tests, or with those that failed, in a process group of their own, so that Ctrl-C comes through this process alone."""
    which = ("--last-failed",) if failed_in else ()
    cache = failed_in or tempfile.TemporaryDirectory()
    process = subprocess.Popen(
        [python(), *PYTEST, "-o", f"cache_dir={cache.name}", *which, folder], cwd=ROOT, env=os.environ | {"NO_COLOR": "1"},
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None, process_group=0,
    )  # fmt: skip
    return Running(folder, process, output, cache, time.monotonic())


def tell(each: Running) -> None:
    """One line about a folder that is done, and one for each reason of its that tests were skipped."""
    lines = each.lines()
    seconds = time.monotonic() - each.began
    state = "ok" if each.process.returncode == 0 else "FAILED"
    print(f"tests: {each.folder:<32}{seconds:7.1f} s  {state:<7}{lines[-1].strip('= ') if lines else ''}", flush=True)
    for line in lines:
        if line.startswith("SKIPPED "):
            print(f"       {line}", flush=True)


def stop(running: list[Running]) -> None:
    """Tell the processes to stop, and kill what does not."""
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            each.process.send_signal(signal.SIGINT)
    give_up = time.monotonic() + GRACE_SECONDS
    for each in running:
        try:
            each.process.wait(max(0.1, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(each.process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
