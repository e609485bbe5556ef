"""Sets up everything that `make` needs, from lock files only, and does nothing where it is up to date.

Steps, each skipped while a hash over what it depends on stays the same:

    environment   .venv with the locked Python packages, byte-compiled (SQLAlchemy and web3 import four times faster)
    workspace     this repository's packages, editable
    node          tools/node_modules: the EVM node, the Solidity compiler, the contract library
    schemas       .schemas: the official ISO 20022 schemas, checksums verified
    chromium      .chromium: a headless browser, for tests; where it cannot be had, the reason
    softhsm       .softhsm: a hardware security module in software, for tests; where it cannot be had, the reason
    promtool      .prometheus: what tests rules of alerts; where it cannot be had, the reason

A step's stamp lies inside the folder that the step makes, so that removing the folder undoes the step. Needs Python 3.11
or newer, standard library only, and a network the first time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import node
from workspace import ROOT, VENV, packages

PYTHON_MIN = (3, 11)
TOOLS = ROOT / "tools"
SCHEMAS = ROOT / ".schemas"
CHROMIUM = ROOT / ".chromium"
SOFTHSM = ROOT / ".softhsm"
PROMETHEUS = ROOT / ".prometheus"
PYTHON = VENV / "bin" / "python"
#: Networks fail for a moment: a step that fetches is tried this often.
ATTEMPTS_MAX = 3
STEP_SECONDS_MAX = 900


class SetupError(Exception):
    """A step failed for a reason that a person must mend; the message says which."""


@dataclass(frozen=True)
class Step:
    """One part of the set-up."""

    name: str
    #: Where its stamp is kept.
    stamp: Path
    #: Files on whose content it depends.
    inputs: Sequence[Path]
    #: Does it.
    work: Callable[[], None]


def main() -> int:
    """Brings every step up to date; returns the exit code."""
    if sys.version_info < PYTHON_MIN:
        return with_newer_python()
    began = time.monotonic()
    lock = os.open(TOOLS, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits, then finds everything done
    done, key = 0, f"{ROOT} {sys.version} {platform.machine()}"
    try:
        for step in steps():
            key = digest(key, step.inputs)
            if step.stamp.is_file() and step.stamp.read_text() == key:
                continue
            run_step(step)
            step.stamp.write_text(key)
            done += 1
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr, flush=True)
        return 1
    if done:
        print(f"set-up: done in {time.monotonic() - began:.1f} s", flush=True)
    return 0


def steps() -> list[Step]:
    """The steps in their order. Each one's key covers those before it."""
    projects = [package.folder / "pyproject.toml" for package in packages()]
    fetch = sorted(path for path in (TOOLS / "schemas").glob("*") if path.is_file())
    return [
        Step("environment", VENV / ".stamp", [ROOT / "bootstrap.lock", ROOT / "requirements.lock"], environment),
        Step("workspace", VENV / ".stamp-workspace", projects, workspace),
        Step("node", TOOLS / "node_modules" / ".stamp", [TOOLS / n for n in NODE_FILES], node_tools),
        Step("schemas", SCHEMAS / ".stamp", fetch, schemas),
        Step("chromium", CHROMIUM / ".stamp", [TOOLS / "chromium.py"], chromium),
        Step("softhsm", SOFTHSM / ".stamp", [TOOLS / n for n in ("debian.py", "softhsm.py", "softhsm.lock")], softhsm),
        Step("promtool", PROMETHEUS / ".stamp", [TOOLS / n for n in ("debian.py", "promtool.py", "promtool.lock")], promtool),
    ]


NODE_FILES = ("package.json", "package-lock.json", ".npmrc")


def digest(before: str, inputs: Sequence[Path]) -> str:
    """A hash over the key before and the names and contents of `inputs`."""
    state = hashlib.sha256(before.encode())
    for path in inputs:
        state.update(f"\0{path.relative_to(ROOT)}\0".encode())
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def run_step(step: Step) -> None:
    """Does a step and prints its line."""
    print(f"set-up: {step.name:<12}", end="", flush=True)
    began = time.monotonic()
    step.work()
    print(f"{time.monotonic() - began:6.1f} s", flush=True)


# -- the steps -------------------------------------------------------------------------------------------------------


def environment() -> None:
    """Makes .venv with exactly the locked packages. uv fetches; pip, five times slower, stands in where it cannot."""
    for stale in VENV.glob(".stamp*"):
        stale.unlink()
    if not works(PYTHON) or not works(VENV / "bin" / "pip"):
        shutil.rmtree(VENV, ignore_errors=True)
        create_environment()
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    fetch([*pip, "install", "--quiet", "--no-deps", "--require-hashes", "-r", "bootstrap.lock"])
    locked = ["--require-hashes", "requirements.lock"]
    try:
        fetch([*uv("sync"), "--no-build", "--compile-bytecode", *locked], environ=index_of_pip(pip))
    except SetupError as error:
        print(f"(uv: {str(error).splitlines()[-1]}; pip stands in)", end=" ", flush=True)
        fetch([*pip, "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", locked[1]])


def create_environment() -> None:
    """Makes an empty environment with pip.

    Raises:
        SetupError: This Python has no ensurepip, as on a Debian without python3-venv, and no other way is at hand.
    """
    ways = [[sys.executable, "-m", "venv", str(VENV)]]
    if shutil.which("uv"):
        ways.append(["uv", "venv", "--seed", "--python", sys.executable, str(VENV)])
    ways.append([sys.executable, "-m", "virtualenv", "--python", sys.executable, str(VENV)])
    for way in ways:
        if subprocess.run(way, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            return
        shutil.rmtree(VENV, ignore_errors=True)
    message = "this Python cannot make virtual environments: install python3-venv (or virtualenv, or uv)"
    raise SetupError(message)


def works(program: Path) -> bool:
    """Whether a program of the environment starts: a moved or upgraded machine leaves links that lead nowhere."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, check=False, timeout=60).returncode == 0
    except OSError:
        return False


def index_of_pip(pip: list[str]) -> dict[str, str]:
    """The package index that pip is set to use, told to uv, which does not read pip's settings."""
    if any(name in os.environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        return {}
    asked = subprocess.run(
        [*pip, "config", "get", "global.index-url"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    index = os.environ.get("PIP_INDEX_URL") or asked.stdout.strip()
    return {"UV_DEFAULT_INDEX": index} if index else {}


def workspace() -> None:
    """Installs this repository's packages editable: after each sync, which removes them."""
    editables = [argument for package in packages() for argument in ("-e", str(package.folder))]
    if editables:
        fetch([*uv("install"), "--no-deps", "--no-build-isolation", *editables])


def uv(command: str) -> list[str]:
    """The start of a `uv pip` command on the environment."""
    return [str(VENV / "bin" / "uv"), "pip", command, "--quiet", "--python", str(PYTHON)]


def node_tools() -> None:
    """Installs the locked node packages without running any of their scripts, then looks whether the EVM node starts.

    npm skips an optional package that fails, even on its integrity, and exits with 0.

    Raises:
        SetupError: The EVM node is missing, and LOCKSTEP_ANVIL names no other.
    """
    fetch([*node.find("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=TOOLS)
    anvil = Path(os.environ.get("LOCKSTEP_ANVIL") or TOOLS / "node_modules" / ".bin" / "anvil")
    if not works(anvil):
        message = (
            f"the EVM node does not start: {anvil}. The locked one is for Linux on x86-64 with glibc; elsewhere, install "
            "Foundry's anvil and let LOCKSTEP_ANVIL name it"
        )
        raise SetupError(message)


def schemas() -> None:
    """Fetches the pinned ISO 20022 schemas and verifies each file's checksum."""
    fetch([str(PYTHON), str(TOOLS / "schemas" / "fetch.py")])
    SCHEMAS.mkdir(exist_ok=True)


def chromium() -> None:
    """Unpacks the headless browser, or notes why it cannot be had here; only tests need it."""
    get_or_note("chromium.py")


def softhsm() -> None:
    """Gets SoftHSM, or notes why it cannot be had here; only tests need it."""
    get_or_note("softhsm.py")


def promtool() -> None:
    """Gets promtool, or notes why it cannot be had here; only tests need it."""
    get_or_note("promtool.py")


def get_or_note(tool: str) -> None:
    """Runs a tool that gets something which not every machine can have, and shows what it says."""
    run = subprocess.run(
        [str(PYTHON), str(TOOLS / tool)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        timeout=STEP_SECONDS_MAX,
    )  # fmt: skip
    print(f"{run.stdout.strip()} " if run.stdout.strip() else "", end="", flush=True)


# -- running programs ------------------------------------------------------------------------------------------------


def fetch(command: list[str], *, cwd: Path = ROOT, environ: dict[str, str] | None = None) -> None:
    """Runs a command that may fetch, a bounded number of times.

    Raises:
        SetupError: It failed each time; the message ends with what it printed last.
    """
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"  # build backends are found on the path
    environ = {**os.environ, "PATH": path, **(environ or {})}
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            run = subprocess.run(
                command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=STEP_SECONDS_MAX,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            output = str(error)
        else:
            if run.returncode == 0:
                return
            output = run.stdout
        if attempt < ATTEMPTS_MAX:
            time.sleep(2**attempt)
    lines = "\n".join(output.strip().splitlines()[-25:])
    raise SetupError(f"`{' '.join(command[:6])} …` failed {ATTEMPTS_MAX} times:\n{lines}")


def with_newer_python() -> int:
    """Starts again with a newer Python of this machine, if it has one."""
    for minor in range(20, PYTHON_MIN[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            os.execv(found, [found, *sys.argv])
    print("set-up: Python 3.11 or newer is needed; this is " + platform.python_version(), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
