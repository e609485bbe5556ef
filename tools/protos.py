"""Generates, checks and compares the protocol's code: `protos/lockstep/**/*.proto` -> `protos/gen/lockstep`.

    tools/protos.py              writes protos/gen
    tools/protos.py --check      says which generated files differ from what would be written; exits 1 if any does
    tools/protos.py --lint       buf's rules of protos/buf.yaml, and compatibility with the committed baseline
    tools/protos.py --baseline   takes the protocol as it is now for the baseline of later comparisons

Works offline. Run with the environment's Python: grpcio-tools, mypy-protobuf and buf come from the lock file.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parents[1] / "protos"
GENERATED = PROTOS / "gen" / "lockstep"
BASELINE = PROTOS / "baseline.binpb"
PROGRAMS = Path(sys.executable).parent


def main() -> int:
    """Returns the exit code: 0 when everything asked for was done or holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="refuse generated files that differ")
    mode.add_argument("--lint", action="store_true", help="run buf lint, and buf breaking against the baseline")
    mode.add_argument("--baseline", action="store_true", help="write protos/baseline.binpb")
    asked = parser.parse_args()
    if asked.lint:
        return lint()
    if asked.baseline:
        return buf("build", "--exclude-source-info", "-o", BASELINE.name)
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        if asked.check:
            return report_drift(fresh)
        replace(fresh)
    return 0


def generate(folder: Path) -> Path:
    """Generates everything below `folder`; returns the package's folder."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("lockstep/**/*.proto"))
    services = [path for path in sources if path.endswith("_service.proto")]
    protoc(sources, f"--python_out={folder}", f"--mypy_out=quiet:{folder}")
    protoc(services, f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet,only_async:{folder}")
    package = folder / "lockstep"
    for directory in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (directory / "__init__.py").touch()
    (package / "py.typed").touch()
    return package


def protoc(sources: list[str], *outputs: str) -> None:
    """Runs the compiler of grpcio-tools; its plug-ins are found beside the running Python."""
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", *outputs, *sources]
    environment = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run(command, cwd=PROTOS, env=environment, check=True)


def buf(*arguments: str) -> int:
    """Runs buf in protos/; returns its exit code."""
    return subprocess.run([PROGRAMS / "buf", *arguments], cwd=PROTOS, check=False).returncode


def lint() -> int:
    """Returns 0 when the definitions follow buf.yaml and break nothing of the baseline."""
    if not BASELINE.exists():
        print("protos/baseline.binpb is missing: run `make protos-baseline`")
        return 1
    return buf("lint") or buf("breaking", "--against", BASELINE.name)


def report_drift(fresh: Path) -> int:
    """Prints each generated file that is missing, left over or different; returns 1 if there is one."""
    stale = sorted(
        name
        for name in files(fresh) | files(GENERATED)
        if not ((fresh / name).is_file() and (GENERATED / name).is_file())
        or not filecmp.cmp(fresh / name, GENERATED / name, shallow=False)
    )
    for name in stale:
        print(f"protos/gen/lockstep/{name} is not what the definitions generate: run `make protos`")
    return 1 if stale else 0


def files(package: Path) -> set[Path]:
    """Every file below `package` that is kept under version control, relative to it."""
    found = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts}


def replace(fresh: Path) -> None:
    """Puts the fresh package in the place of the old one; files that did not change keep their time stamps."""
    for name in files(GENERATED) - files(fresh):
        (GENERATED / name).unlink()
    for name in files(fresh):
        target = GENERATED / name
        if not (target.is_file() and filecmp.cmp(fresh / name, target, shallow=False)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, target)


if __name__ == "__main__":
    sys.exit(main())
