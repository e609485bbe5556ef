"""Runs the checks: everything that is looked at before a test runs.

    tools/check.py                 all of them, two at a time
    tools/check.py NAME…           only these

One line per check with its seconds; the output of those that fail follows. Exits 1 if any fails.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from workspace import ROOT, VENV, packages, python, test_folders

Command = list[str]

#: A check that hangs is a check that fails.
COMMAND_SECONDS_MAX = 600
LANES = 2


def main() -> int:
    """Runs the checks named on the command line, or all; returns the exit code."""
    unknown = [name for name in sys.argv[1:] if name not in CHECKS]
    if unknown:
        print(f"no such check: {', '.join(unknown)}; there are: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    names = sys.argv[1:] or list(CHECKS)
    failed = []
    with concurrent.futures.ThreadPoolExecutor(LANES) as lanes:
        running = {lanes.submit(run_check, name): name for name in names}
        for finished in concurrent.futures.as_completed(running):
            name, (seconds, output) = running[finished], finished.result()
            print(f"check: {name:<16}{seconds:6.1f} s  {'FAILED' if output else 'ok'}", flush=True)
            if output:
                failed.append((name, output))
    for name, output in failed:
        print(f"\n---- {name}\n{output}", flush=True)
    return 1 if failed else 0


def run_check(name: str) -> tuple[float, str]:
    """Runs a check's commands; returns its seconds, and the output of those that failed."""
    began = time.monotonic()
    outputs = [run_command(command) for command in CHECKS[name]()]
    return time.monotonic() - began, "\n".join(output for output in outputs if output)


def run_command(command: Command) -> str:
    """Runs one command; returns nothing if it succeeds, else what it printed."""
    environ = os.environ | {"PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", "NO_COLOR": "1"}
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=COMMAND_SECONDS_MAX,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{' '.join(command[:5])} … took longer than {COMMAND_SECONDS_MAX} s"
    return "" if run.returncode == 0 else run.stdout.strip() or f"{command[0]} exited with {run.returncode}"


# -- the checks ------------------------------------------------------------------------------------------------------


def lint() -> Iterator[Command]:
    """Rules of ruff, then its format."""
    yield [program("ruff"), "check", "--quiet", "."]
    yield [program("ruff"), "format", "--quiet", "--diff", "."]


def types() -> Iterator[Command]:
    """Types: one run over every package's code, then one for each folder of tests, whose files may share names."""
    mypy = [program("mypy"), "--no-error-summary", "--sqlite-cache"]
    sources = [str(package.source) for package in packages() if not package.is_generated]
    yield [*mypy, *sources]
    yield [*mypy, *paths(ROOT / "tools", "*.py"), "conftest.py"]
    for folder in test_folders():
        yield [*mypy, str(folder)]


def imports() -> Iterator[Command]:
    """Who may import whom."""
    yield [python(), "tools/imports.py"]


def proto_lint() -> Iterator[Command]:
    """Rules of buf, and compatibility with the baseline."""
    yield [python(), "tools/protos.py", "--lint"]


def proto_check() -> Iterator[Command]:
    """The committed generated code is what the definitions generate."""
    yield [python(), "tools/protos.py", "--check"]


def contracts_check() -> Iterator[Command]:
    """The committed contract artifacts are what the sources compile to."""
    yield [sys.executable, "tools/node.py", "node", "contracts/compile.mjs", "--check"]


def docs_check() -> Iterator[Command]:
    """The committed generated pages are what would be generated."""
    yield [python(), "tools/docs.py", "--check"]


def vectors_check() -> Iterator[Command]:
    """The committed vectors of the verifiers are what would be generated."""
    yield [python(), "-m", "lockstep_testkit.bundles", "libs/verify/vectors", "--check"]


def licences() -> Iterator[Command]:
    """The licence of everything that is locked is one that is allowed."""
    yield [python(), "tools/licences.py"]


def manifests() -> Iterator[Command]:
    """What is deployed to Kubernetes is valid and keeps its rules."""
    yield [python(), "tools/manifests.py"]


def tree_check() -> Iterator[Command]:
    """What no file of the tree may hold."""
    yield [python(), "tools/tree_check.py"]


#: Every check by the name of its make target; the longest first, so that two lanes end together.
CHECKS: dict[str, Callable[[], Iterator[Command]]] = {
    "types": types,
    "contracts-check": contracts_check,
    "lint": lint,
    "imports": imports,
    "proto-check": proto_check,
    "proto-lint": proto_lint,
    "manifests": manifests,
    "docs-check": docs_check,
    "vectors-check": vectors_check,
    "tree-check": tree_check,
    "licences": licences,
}


def program(name: str) -> str:
    """A program of the environment."""
    return str(Path(python()).parent / name)


def paths(folder: Path, pattern: str) -> list[str]:
    """The files in a folder that match, sorted."""
    return [str(path) for path in sorted(folder.glob(pattern))]


if __name__ == "__main__":
    sys.exit(main())
