"""What belongs to this repository: its packages, found by looking, so that a new one is governed from its first day.

Standard library only: `setup.py` runs with it before anything is installed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"

#: Where packages live, in the order in which they are installed and checked.
PACKAGE_PATTERNS = ("protos", "contracts", "libs/*", "services/*", "sandbox", "sandbox/*", "bench")

#: Settings of a build backend that say where a module is; `uv_build` takes `src` where none is given.
GENERATED_SOURCE = "gen"


@dataclass(frozen=True)
class Package:
    """One installable package of the workspace."""

    #: The folder with pyproject.toml.
    folder: Path
    #: The folder that is on the import path.
    source: Path
    #: Names of the import packages in `source`.
    modules: tuple[str, ...]

    @property
    def is_service(self) -> bool:
        """Whether it is one of the services."""
        return self.folder.parent.name == "services"

    @property
    def is_generated(self) -> bool:
        """Whether its code is generated, and so is not held to rules for people."""
        return self.source.name == GENERATED_SOURCE

    @property
    def tests(self) -> Path:
        """Its folder of tests, which may be missing."""
        return self.folder / "tests"


def packages(root: Path = ROOT) -> list[Package]:
    """Every package of the workspace, or of another copy of this repository, that has code."""
    found = []
    for pattern in PACKAGE_PATTERNS:
        for folder in sorted(root.glob(pattern)):
            if not (folder / "pyproject.toml").is_file():
                continue
            source = next((s for s in (folder / "src", folder / GENERATED_SOURCE) if s.is_dir()), None)
            modules = sorted(path.parent.name for path in source.glob("*/__init__.py")) if source else []
            if source and modules:
                found.append(Package(folder, source, tuple(modules)))
    return found


def test_folders() -> list[Path]:
    """Every folder of tests: the packages' own, then those that need more than one package."""
    own = [package.tests for package in packages()]
    return [folder for folder in (*own, ROOT / "tools" / "tests", ROOT / "tests") if any(folder.glob("**/*.py"))]


def python() -> str:
    """The environment's Python; the running one where it is that already."""
    own = VENV / "bin" / "python"
    return str(own) if own.exists() else sys.executable
