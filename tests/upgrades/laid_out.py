"""The release before, as it lies beside this tree, and programs of either."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lockstep_testkit.databases import TestDatabase

HERE: Final = Path(__file__).resolve().parent
TREE: Final = HERE.parents[1]
TELLING: Final = HERE / "telling"
#: What `tools/previous.py` exits with where the history does not reach so far.
NO_HISTORY: Final = 3
#: What `make setup` installs: both releases run in this tree's environment.
LOCKS: Final = ("requirements.lock", "tools/package-lock.json")
PROGRAM_SECONDS_MAX: Final = 300.0


class NoHistory(Exception):
    """This copy of the repository does not hold the release before; the message says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """Code that programs run."""

    #: Its tree.
    folder: Path
    #: What comes before the installed packages, as PYTHONPATH takes it.
    path: str

    @classmethod
    def before(cls, folder: Path) -> Release:
        """The release before this tree, laid out in a new folder.

        Raises:
            NoHistory: it is not to be had here.
            AssertionError: the file that names it is wrong.
        """
        tool = subprocess.run(
            [sys.executable, TREE / "tools" / "previous.py", folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROGRAM_SECONDS_MAX,
        )
        if tool.returncode == NO_HISTORY:
            raise NoHistory(tool.stderr.strip())
        assert tool.returncode == 0, tool.stderr
        return cls(folder, tool.stdout.strip())

    def run(self, *arguments: str) -> str:
        """A Python program of this release, run to its end; what it printed.

        Raises:
            AssertionError: it failed; says what it told on standard error.
        """
        environ = os.environ | {"PYTHONPATH": self.path}
        program = subprocess.run(
            [sys.executable, *arguments], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=PROGRAM_SECONDS_MAX,
        )  # fmt: skip
        assert program.returncode == 0, program.stdout[-2_000:] + program.stderr
        return program.stdout

    def migrate(self, package: str, database: TestDatabase, step: str) -> None:
        """A step of the release's migrations of a service, as its operator would run them."""
        owner = urlsplit(database.owner_url)
        place = owner._replace(netloc=owner.netloc.replace(f":{owner.password}@", "@")).geturl()
        with tempfile.NamedTemporaryFile("w") as password:
            password.write(str(owner.password))
            password.flush()
            arguments = ("--owner-url", place, "--owner-password-file", password.name, "--role", database.role, "--step", step)
            self.run("-m", f"{package}.migrate", *arguments)

    def differences(self) -> str:
        """What of this tree's environment is not the release's own: what fails may fail for that."""
        other = [name for name in LOCKS if (self.folder / name).read_bytes() != (TREE / name).read_bytes()]
        return "".join(
            f"{name} is another than the release before had, which runs with this tree's all the same\n" for name in other
        )
