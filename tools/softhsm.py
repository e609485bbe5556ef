"""Gets SoftHSM, a hardware security module in software, for the tests of accounts whose keys lie in one (PKCS#11).

It is what the machine has installed, or else the pinned Debian packages of `tools/softhsm.lock`, unpacked into `.softhsm` (`debian`).

What was found is written down in `.softhsm/found`: the module's path, and that of the program which makes tokens for it. Where it cannot be had,
`.softhsm/absent` says why, and so do the tests that are skipped for it. Standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from debian import NotHadError, fetch, run_or_say
from workspace import ROOT

FOLDER = ROOT / ".softhsm"
LOCK = ROOT / "tools" / "softhsm.lock"
FOUND = FOLDER / "found"
ABSENT = FOLDER / "absent"
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
    fetch(LOCK, root, otherwise="install SoftHSM, or let LOCKSTEP_SOFTHSM name its module")
    module, utility = next(root.glob("usr/lib/*/softhsm/libsofthsm2.so"), None), root / "usr" / "bin" / UTILITY
    if module is None or not utility.is_file():
        raise NotHadError("the pinned packages do not hold it")
    return str(module), str(utility)


if __name__ == "__main__":
    sys.exit(main())
