"""Builds the services' container images with whatever engine this machine has.

    tools/images.py                                builds them, tagged lockstep/<service>:<revision>
    tools/images.py --registry HOST/PATH           tags them for a registry, pushes them, and writes their digests into deploy/k8s/components/images

The revision is git's; a tree with changes that are not committed is built for trying out alone, and not pushed. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from workspace import ROOT

SERVICES: Final = ("coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal")
ENGINES: Final = ("docker", "podman")
DOCKERFILE: Final = Path("deploy", "images", "Dockerfile")
COMPONENT: Final = Path("deploy", "k8s", "components", "images", "kustomization.yaml")
ANSWER_SECONDS_MAX: Final = 30
BUILD_SECONDS_MAX: Final = 3_600
_REGISTRY: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-][a-z0-9]+)*)*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class ImagesError(Exception):
    """Images cannot be made; the message says why, for a person."""


def main(root: Path = ROOT) -> int:
    """Builds, and pushes where it is told to; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the services' container images.")
    parser.add_argument("--registry", help="host and path to push to, as in registry.example/settlement")
    registry = parser.parse_args().registry
    try:
        make(root, registry)
    except ImagesError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def make(root: Path, registry: str | None) -> None:
    """Build every image; with a registry push each, and write down its digest.

    Raises:
        ImagesError: no engine answers, a name is wrong, the tree has changes and would be pushed, or a step failed.
    """
    if registry is not None and not _REGISTRY.fullmatch(registry):
        raise ImagesError(f"--registry must be a host with a path, without a scheme or a tag: {registry}")
    program, revision = engine(), revision_of(root)
    if registry is not None and revision.endswith("-changed"):
        raise ImagesError("the tree has changes that are not committed: what is pushed must be a revision that can be built again")
    digests: dict[str, str] = {}
    for service in SERVICES:
        name = f"{registry}/{service}" if registry else f"lockstep/{service}"
        run(program, "build", "--file", str(root / DOCKERFILE), "--target", service, "--tag", f"{name}:{revision}", str(root))
        print(f"built {name}:{revision}", flush=True)
        if registry:
            digests[service] = pushed(program, name, revision)
            print(f"pushed {name}@{digests[service]}", flush=True)
    if registry:
        write_digests(root / COMPONENT, registry, digests)


def engine() -> str:
    """The container engine that answers.

    Raises:
        ImagesError: none does.
    """
    for program in filter(shutil.which, ENGINES):
        try:
            asked = subprocess.run([program, "info"], capture_output=True, check=False, timeout=ANSWER_SECONDS_MAX)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if asked.returncode == 0:
            return program
    raise ImagesError(f"no container engine answers here; {' or '.join(ENGINES)} is needed to build images")


def revision_of(root: Path) -> str:
    """Git's short revision, with `-changed` where the tree is not that.

    Raises:
        ImagesError: the tree is not git's.
    """
    revision = run("git", "-C", str(root), "rev-parse", "--short=12", "HEAD").strip()
    return f"{revision}-changed" if run("git", "-C", str(root), "status", "--porcelain").strip() else revision


def pushed(program: str, name: str, revision: str) -> str:
    """Push an image; the digest by which the registry has it.

    Raises:
        ImagesError: it is refused, or the engine does not say the digest.
    """
    run(program, "push", f"{name}:{revision}")
    told = run(program, "image", "inspect", "--format", "{{json .RepoDigests}}", f"{name}:{revision}")
    digests: list[str] = [each.partition("@")[2] for each in json.loads(told) or () if each.partition("@")[0] == name]
    if len(digests) != 1 or not _DIGEST.fullmatch(digests[0]):
        raise ImagesError(f"{program} names no single digest of {name}:{revision}")
    return digests[0]


def write_digests(path: Path, registry: str, digests: Mapping[str, str]) -> None:
    """Name each service's image by its new digest; everything else in the file stays as it is.

    Raises:
        ImagesError: the file has no place for one of them.
    """
    text = path.read_text()
    for service, digest in digests.items():
        place = re.compile(rf"(  - name: lockstep/{service}\n    newName: )\S+(\n    digest: )\S+\n")
        text, count = place.subn(rf"\g<1>{registry}/{service}\g<2>{digest}\n", text)
        if count != 1:
            raise ImagesError(f"{path} has no single place for {service}")
    path.write_text(text)


def run(*command: str) -> str:
    """What a program prints.

    Raises:
        ImagesError: it failed; with the last lines of what it said.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=BUILD_SECONDS_MAX)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImagesError(f"{command[0]}: {error}") from None
    if done.returncode:
        lines = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise ImagesError(f"`{' '.join(command[:2])} …` failed:\n{lines}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
