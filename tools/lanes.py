"""Runs the packages' tests, two folders at a time, each in a process of its own with its own databases: they wait more than they compute.

    tools/lanes.py FOLDER…

One line per folder with its seconds and what pytest says at the end, and what was skipped; the whole output of those that fail follows. Exits 1 if any
fails. Told to stop, it tells the processes, which clean up, and waits for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO

from workspace import ROOT, python

LANES = 2
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
    output: IO[bytes]
    began: float

    def lines(self) -> list[str]:
        """What was printed so far."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace").splitlines()


def main() -> int:
    """Runs the tests in the folders of the command line; returns the exit code."""
    # The longest first, so that the lanes end together; what is long to run is long to read.
    waiting = sorted(sys.argv[1:], key=size)
    running: list[Running] = []
    failed: list[Running] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < LANES:
                running.append(start(waiting.pop()))
            time.sleep(LOOK_SECONDS)
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                tell(each)
                if each.process.returncode != 0:
                    failed.append(each)
    except KeyboardInterrupt:
        stop(running)
        failed += running
    for each in failed:
        print(f"\n---- {each.folder}", *each.lines(), sep="\n", flush=True)
    return 1 if failed or waiting else 0


def size(folder: str) -> int:
    """Octets of a folder's Python files."""
    return sum(path.stat().st_size for path in (ROOT / folder).rglob("*.py"))


def start(folder: str) -> Running:
    """Begin with a folder's tests, in a process group of their own, so that Ctrl-C comes through this process alone."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 - is read when the process has ended
    process = subprocess.Popen(
        [python(), *PYTEST, folder], cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, process_group=0,
    )  # fmt: skip
    return Running(folder, process, output, time.monotonic())


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
