"""What this repository stands on, from its lock files: names, versions, hashes; and licences, from what the packages say of themselves.

Python packages and programs (Postgres among them) come from requirements.lock and bootstrap.lock, node's from tools/package-lock.json, and Debian's packages of
SoftHSM and Prometheus, which only tests use, from tools/softhsm.lock and tools/promtool.lock.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workspace import ROOT

REQUIREMENT = re.compile(
    r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(?:;[^\\\n]*)?((?:\s*\\\n\s+--hash=sha256:[0-9a-f]{64})*)"
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
DEBIAN = re.compile(r"([0-9a-f]{64})  ([a-z0-9.+-]+)_([^_]+)_([a-z0-9]+)\.deb")
INTEGRITY = {"sha512": "SHA-512", "sha384": "SHA-384", "sha1": "SHA-1"}
LICENCES = ROOT / "tools" / "licences.toml"


class LockBroken(Exception):
    """A lock file holds something that is not pinned by a hash."""


@dataclass(frozen=True, order=True)
class Component:
    """Something that is not ours."""

    #: Package URL (ECMA-427), which names no host.
    purl: str
    name: str
    version: str
    #: SPDX expression; "" where the package does not say, or its words are not those of SPDX.
    licence: str
    #: Its own words, where they are not SPDX's.
    said: str
    #: Algorithm, as CycloneDX names it, and hexadecimal digest; every file that would be taken.
    hashes: tuple[tuple[str, str], ...]
    #: Only tools and tests need it.
    is_tool: bool


def components() -> list[Component]:
    """All of them, sorted.

    Raises:
        LockBroken: an entry of a lock has no hash.
    """
    return sorted([*python_components(), *node_components(), *system_components()])


def python_components() -> Iterator[Component]:
    """What the environment is made of."""
    runtime = runtime_names()
    seen = set()
    for lock in ("requirements.lock", "bootstrap.lock"):
        for name, version, hashes in locked(lock, (ROOT / lock).read_text()):
            if (name, version) in seen:
                continue
            seen.add((name, version))
            licence, said = python_licence(name, version)
            digests = tuple(("SHA-256", each) for each in hashes)
            yield Component(
                f"pkg:pypi/{name}@{quote(version, safe='')}", name, version, licence, said, digests, name not in runtime
            )


def locked(lock: str, text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, version and hashes of each entry of a lock.

    Raises:
        LockBroken: a line is none of an entry, or an entry has no hash.
    """
    rest = REQUIREMENT.sub("", text).strip()
    if rest:
        raise LockBroken(f"{lock}: not a pinned entry: {rest.splitlines()[0]}")
    for name, version, tail in REQUIREMENT.findall(text):
        hashes = sorted(HASH.findall(tail))
        if not hashes:
            raise LockBroken(f"{lock}: {name} has no hash")
        yield canonical(name), version, hashes


def canonical(name: str) -> str:
    """A Python package's name as the index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def runtime_names() -> set[str]:
    """The packages that the services need, with all that those need: from what our packages declare."""
    wanted, found = set(), set()
    for folder in (*ROOT.glob("libs/*"), *ROOT.glob("services/*"), ROOT / "contracts", ROOT / "protos"):
        path = folder / "pyproject.toml"
        if path.is_file() and folder.name != "testkit":
            wanted |= {
                canonical(re.split(r"[\s\[<>=!;~]", each)[0])
                for each in tomllib.loads(path.read_text())["project"].get("dependencies", [])
            }
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        wanted |= {canonical(re.split(r"[\s\[<>=!;~(]", each)[0]) for each in needed if "extra ==" not in each}
    return found


def python_licence(name: str, version: str) -> tuple[str, str]:
    """SPDX expression, or the package's own words: its expression, else its classifiers, else its short licence field."""
    try:
        told: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "", "not installed on this machine"
    if told["Version"] != version:
        return "", f"version {told['Version']} is installed"
    if expression := told.get("License-Expression"):
        return str(expression), ""
    classifiers = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier") or [] if each.startswith("License :: ")]
    field = (told.get("License") or "").strip()
    # A whole licence's text is no name of one.
    words = "; ".join(classifiers) or (field if len(field) < 100 else field.splitlines()[0])
    return "", words or "nothing"


def node_components() -> Iterator[Component]:
    """The node tools.

    Raises:
        LockBroken: an entry has no hash.
    """
    packages: dict[str, Any] = json.loads((ROOT / "tools" / "package-lock.json").read_text())["packages"]
    for place, told in packages.items():
        if not place:
            continue
        name = place.rpartition("node_modules/")[2]
        algorithm, _, digest = told.get("integrity", "").partition("-")
        if algorithm not in INTEGRITY:
            raise LockBroken(f"tools/package-lock.json: {name} has no hash")
        hashes = ((INTEGRITY[algorithm], base64.b64decode(digest).hex()),)
        purl = f"pkg:npm/{quote(name, safe='/')}@{told['version']}"
        yield Component(
            purl, name, told["version"], told.get("license", ""), "" if told.get("license") else "nothing", hashes, is_tool=True
        )


def system_components() -> Iterator[Component]:
    """Debian's packages, whose licences their names do not say: tools/licences.toml does.

    Raises:
        LockBroken: a line is no entry.
    """
    for lock in ("tools/softhsm.lock", "tools/promtool.lock"):
        for line in (ROOT / lock).read_text().splitlines():
            found = DEBIAN.fullmatch(line)
            if found is None:
                raise LockBroken(f"{lock}: not a pinned entry: {line}")
            digest, name, version, machine = found.groups()
            purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={machine}"
            yield Component(purl, name, version, "", "nothing", (("SHA-256", digest),), is_tool=True)


def decided(path: Path = LICENCES) -> dict[str, Any]:
    """What was decided about licences."""
    return tomllib.loads(path.read_text())
