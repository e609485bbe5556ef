"""Gets SoftHSM, a hardware security module in software, for the tests of accounts whose keys lie in one (PKCS#11).

It is in no package index of Python or Node. So it is what the machine has installed, or else the pinned Debian packages: apt fetches and verifies them from
the sources that the machine is set to use, and their SHA-256 is held against `tools/softhsm.lock`. They are unpacked into `.softhsm`; nothing is installed,
and no root is needed.

What was found is written down in `.softhsm/found`: the module's path, and that of the program which makes tokens for it. Where it cannot be had,
`.softhsm/absent` says why, and so do the tests that are skipped for it. Standard library only.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from workspace import ROOT

FOLDER = ROOT / ".softhsm"
LOCK = ROOT / "tools" / "softhsm.lock"
FOUND = FOLDER / "found"
ABSENT = FOLDER / "absent"
#: A line of the lock: SHA-256, package, version, architecture.
LOCKED = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<package>[a-z0-9.+-]+)_(?P<version>[^_]+)_(?P<architecture>[a-z0-9]+)\.deb")
#: Where distributions put the module.
INSTALLED = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    *(f"/usr/lib/{triplet}/softhsm/libsofthsm2.so" for triplet in ("x86_64-linux-gnu", "aarch64-linux-gnu")),
)
UTILITY = "softhsm2-util"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
APT_SECONDS_MAX = 120


class NotHadError(Exception):
    """SoftHSM cannot be had here; the message says why."""


def main() -> int:
    """Has it in the folder, or the reason why not; returns the exit code, which is 0 in either case."""
    FOLDER.mkdir(exist_ok=True)
    for outcome in (FOUND, ABSENT):
        outcome.unlink(missing_ok=True)
    try:
        module, utility = installed() or fetched()
        run_or_say([utility, "--version"], FOLDER)
    except (NotHadError, OSError, subprocess.TimeoutExpired) as error:
        ABSENT.write_text(f"{error}\n", encoding="utf-8")
        print(f"not had: {error}; the tests that need it are skipped; remove .softhsm to try again")
    else:
        FOUND.write_text(f"{module}\n{utility}\n", encoding="utf-8")
    return 0


def installed() -> tuple[str, str] | None:
    """What the machine has."""
    utility = shutil.which(UTILITY)
    module = next((path for path in INSTALLED if Path(path).is_file()), None)
    return (module, utility) if module and utility else None


def fetched() -> tuple[str, str]:
    """What the pinned packages hold, unpacked.

    Raises:
        NotHadError: They cannot be had, or hold something else.
    """
    root = FOLDER / "root"
    shutil.rmtree(root, ignore_errors=True)
    fetch(root)
    module, utility = next(root.glob("usr/lib/*/softhsm/libsofthsm2.so"), None), root / "usr" / "bin" / UTILITY
    if module is None or not utility.is_file():
        raise NotHadError("the pinned packages do not hold it")
    return str(module), str(utility)


def fetch(root: Path) -> None:
    """Fetches the pinned packages and unpacks them.

    Raises:
        NotHadError: They cannot be had, or are others than the pinned ones.
    """
    locked = [LOCKED.fullmatch(line) for line in LOCK.read_text(encoding="utf-8").splitlines() if line]
    mine = [each for each in locked if each is not None and each["architecture"] == ARCHITECTURES.get(platform.machine())]
    if not mine:
        raise NotHadError(
            f"no package is pinned for {platform.machine()}; install SoftHSM, or let LOCKSTEP_SOFTHSM name its module"
        )
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotHadError("this machine has no apt; install SoftHSM, or let LOCKSTEP_SOFTHSM name its module")
    with tempfile.TemporaryDirectory(prefix="download-", dir=FOLDER) as scratch:
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


if __name__ == "__main__":
    sys.exit(main())
