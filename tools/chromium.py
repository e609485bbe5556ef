"""Unpacks the locked headless Chromium into `.chromium`, for the tests of the console's page and for its pictures.

It comes as an npm package (`tools/package.json`) that holds the program and the libraries and fonts that it needs, each compressed with Brotli; none of the
package's own code is run. It is for Linux on x86-64. Where it was not had, or does not start, `.chromium/absent` says why, and so do the tests that are skipped
for it. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import node
from workspace import ROOT

FOLDER = ROOT / ".chromium"
PACKED = ROOT / "tools" / "node_modules" / "@sparticuz" / "chromium" / "bin"
ABSENT = FOLDER / "absent"
#: What is in the package, and what is unpacked where.
ARCHIVES = ("al2023.tar", "swiftshader.tar", "fonts.tar")
UNPACK = "const [from, to] = process.argv.slice(1); require('fs').writeFileSync(to, require('zlib').brotliDecompressSync(require('fs').readFileSync(from)))"
#: The package's own fonts alone, so that a page looks the same everywhere.
FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{folder}</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""
SECONDS_MAX = 300


class NotHadError(Exception):
    """Chromium cannot be had here; the message says why."""


def main() -> int:
    """Has it in the folder, or the reason why not; returns the exit code, which is 0 in either case."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        unpack()
        start()
    except (NotHadError, OSError, tarfile.TarError, subprocess.SubprocessError) as error:
        ABSENT.write_text(f"{error}\n", encoding="utf-8")
        print(f"not had: {error}; the tests of the console's page are skipped; remove .chromium to try again")
    return 0


def unpack() -> None:
    """Puts the program, its libraries and its fonts into the folder.

    Raises:
        NotHadError: The package was not had.
    """
    if not PACKED.is_dir():
        raise NotHadError("its package was not installed: it is for Linux on x86-64, and npm leaves out what it cannot get")
    run([*node.find("node"), "-e", UNPACK, str(PACKED / "chromium.br"), str(FOLDER / "chromium")])
    (FOLDER / "chromium").chmod(0o755)
    for name in ARCHIVES:
        archive = FOLDER / name
        run([*node.find("node"), "-e", UNPACK, str(PACKED / f"{name}.br"), str(archive)])
        extract(archive, FOLDER)
        archive.unlink()
    (FOLDER / "fonts.conf").write_text(FONTS.format(folder=FOLDER / "fonts"), encoding="utf-8")


def extract(archive: Path, folder: Path) -> None:
    """Unpacks an archive, with nothing outside the folder where this Python looks after that: it does from 3.11.4 on."""
    with tarfile.open(archive) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)  # noqa: S202 - what is packed is locked by its hash


def start() -> None:
    """Starts it once.

    Raises:
        NotHadError: It does not start.
    """
    run([str(FOLDER / "chromium"), "--version"], {"LD_LIBRARY_PATH": str(FOLDER / "lib")})


def run(command: list[str], environ: dict[str, str] | None = None) -> None:
    """Runs a program.

    Raises:
        NotHadError: It failed; the message is what it said last.
    """
    done = subprocess.run(
        command,
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotHadError(f"{Path(command[0]).name}: {said[-1] if said else 'failed'}")


if __name__ == "__main__":
    sys.exit(main())
