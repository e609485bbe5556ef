"""Programs that are in no package index of Python or Node, from pinned Debian packages: for tests alone.

apt fetches and verifies them from the sources that the machine is set to use, and their SHA-256 is held against a lock. They are unpacked into a
folder; nothing is installed, and no root is needed. Standard library only.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

#: A line of a lock: SHA-256, package, version, architecture.
LOCKED = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<package>[a-z0-9.+-]+)_(?P<version>[^_]+)_(?P<architecture>[a-z0-9]+)\.deb")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
APT_SECONDS_MAX = 120


class NotHadError(Exception):
    """A program cannot be had here; the message says why."""


def fetch(lock: Path, root: Path, *, otherwise: str) -> None:
    """Fetches the pinned packages of a lock and unpacks them into `root`; `otherwise` is what to do where that cannot be.

    Raises:
        NotHadError: They cannot be had, or are others than the pinned ones.
    """
    locked = [LOCKED.fullmatch(line) for line in lock.read_text(encoding="utf-8").splitlines() if line]
    mine = [each for each in locked if each is not None and each["architecture"] == ARCHITECTURES.get(platform.machine())]
    if not mine:
        raise NotHadError(f"no package is pinned for {platform.machine()}; {otherwise}")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotHadError(f"this machine has no apt; {otherwise}")
    with tempfile.TemporaryDirectory(prefix="download-", dir=root.parent) as scratch:
        folder = Path(scratch)
        wanted = [f"{each['package']}={each['version']}" for each in mine]
        try:
            apt(["download", *wanted], folder)
        except NotHadError:
            # The machine may have no lists, as containers often do: they are fetched into a folder of their own.
            apt(["update", "--quiet=2"], folder)
            apt(["download", *wanted], folder)
        for each in mine:
            package = next(folder.glob(f"{each['package']}_*.deb"))
            if hashlib.sha256(package.read_bytes()).hexdigest() != each["digest"]:
                raise NotHadError(f"{package.name} is not the pinned package")
        for package in sorted(folder.glob("*.deb")):
            run_or_say(["dpkg-deb", "--extract", str(package), str(root)], folder)


def apt(arguments: list[str], folder: Path) -> None:
    """Runs apt-get with what it keeps in a folder of its own; what is installed stays as it is."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lists = folder / "lists"
    # The machine's own lists serve, until there is another set.
    settings = [f"Dir::State::Lists={lists}"] if arguments[0] == "update" or any(lists.glob("*Packages*")) else []
    settings += [f"Dir::Cache={folder / 'cache'}", "APT::Sandbox::User=root"]
    options = [option for each in settings for option in ("-o", each)]
    run_or_say(["apt-get", *options, *arguments], folder)


def run_or_say(command: list[str], folder: Path) -> None:
    """Runs a program.

    Raises:
        NotHadError: It failed; the message is what it said last.
    """
    run = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=APT_SECONDS_MAX
    )
    if run.returncode != 0:
        said = (run.stderr or run.stdout).strip().splitlines()
        raise NotHadError(f"{command[0]}: {said[-1] if said else 'failed'}")
