"""Gets promtool, which checks rules of alerts and tests them against recorded series.

It is what the machine has installed, or else that of the pinned Debian package of `tools/promtool.lock` (`debian`), of which nothing else is kept.
What was found is written down in `.prometheus/found`; where it cannot be had, `.prometheus/absent` says why, and so do the tests that are skipped
for it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from debian import NotHadError, fetch, run_or_say
from workspace import ROOT

FOLDER = ROOT / ".prometheus"
LOCK = ROOT / "tools" / "promtool.lock"
FOUND = FOLDER / "found"
ABSENT = FOLDER / "absent"
PROGRAM = "promtool"


def main() -> int:
    """Has it in the folder, or the reason why not; returns the exit code, which is 0 in either case."""
    FOLDER.mkdir(exist_ok=True)
    for outcome in (FOUND, ABSENT):
        outcome.unlink(missing_ok=True)
    try:
        program = shutil.which(PROGRAM) or str(fetched())
        run_or_say([program, "--version"], FOLDER)
    except (NotHadError, OSError, subprocess.TimeoutExpired) as error:
        ABSENT.write_text(f"{error}\n", encoding="utf-8")
        print(f"not had: {error}; the tests that need it are skipped; remove .prometheus to try again")
    else:
        FOUND.write_text(f"{program}\n", encoding="utf-8")
    return 0


def fetched() -> Path:
    """The pinned package's.

    Raises:
        NotHadError: It cannot be had, or the package does not hold it.
    """
    root, kept = FOLDER / "root", FOLDER / PROGRAM
    shutil.rmtree(root, ignore_errors=True)
    fetch(LOCK, root, otherwise="install Prometheus, or let LOCKSTEP_PROMTOOL name its promtool")
    program = root / "usr" / "bin" / PROGRAM
    if not program.is_file():
        raise NotHadError("the pinned package does not hold it")
    program.replace(kept)
    shutil.rmtree(root)
    return kept


if __name__ == "__main__":
    sys.exit(main())
