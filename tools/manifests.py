"""Builds what `deploy/k8s` deploys, and checks it without a cluster.

    tools/manifests.py             builds every overlay; prints one line for each finding; exits 1 if there is one

Each overlay is built by the locked kubectl, as `kubectl apply -k` would; LOCKSTEP_KUBECTL names another one. Kubernetes' own kinds are validated against its
published schemas, strictly; the operators' against those in `manifest_kinds.yaml`. Then come the rules (`manifest_rules`), the picture of who reaches whom
(`manifest_network`), and the settings, which each service's own code reads (`manifest_settings`).
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import manifest_network
import manifest_objects
import manifest_rules
import manifest_settings
import referencing
import yaml
from manifest_objects import NAMESPACE, Object, Objects, name_of
from workspace import ROOT, VENV

OVERLAYS: Final = ROOT / "deploy" / "k8s" / "overlays"
KINDS: Final = ROOT / "tools" / "manifest_kinds.yaml"
#: What the manifests are written for: preStop sleeps and matchLabelKeys are stable in it, and in all that follow.
KUBERNETES_VERSIONS: Final = ("1.34", "1.37")
BUILD_SECONDS_MAX: Final = 120
#: Its schema takes any metadata.
_CLUSTER_WIDE: Final = frozenset({"Namespace"})


class BuildError(Exception):
    """An overlay cannot be built; the message is what kubectl said."""


def main() -> int:
    """Prints the findings; returns 1 if there is one."""
    found = [f"{overlay.name}: {finding}" for overlay in overlays() for finding in findings_of(overlay)]
    for finding in found:
        print(finding)
    return 1 if found else 0


def overlays() -> list[Path]:
    """The folders that are deployed."""
    return sorted(path.parent for path in OVERLAYS.glob("*/kustomization.yaml"))


def findings_of(overlay: Path) -> list[str]:
    """What is wrong with one overlay."""
    try:
        objects = manifest_objects.read(built(overlay))
    except BuildError as error:
        return [str(error)]
    # Rules read what the schemas promise.
    return list(malformed(objects)) or list(broken(objects))


def built(overlay: Path) -> str:
    """The YAML documents of an overlay.

    Raises:
        BuildError: it cannot be built.
    """
    kubectl = os.environ.get("LOCKSTEP_KUBECTL") or str(VENV / "bin" / "kubectl")
    try:
        run = subprocess.run(
            [kubectl, "kustomize", str(overlay)], capture_output=True, text=True, check=False, timeout=BUILD_SECONDS_MAX
        )
    except OSError as error:
        raise BuildError(f"{kubectl} does not start: {error.strerror}; LOCKSTEP_KUBECTL may name another one") from None
    if run.returncode:
        raise BuildError(run.stderr.strip())
    return run.stdout


def malformed(objects: Objects) -> Iterator[str]:
    """Objects that are not as their schema says, stand elsewhere than in the namespace, or are there twice."""
    document = yaml.safe_load(KINDS.read_text())
    seen: set[str] = set()
    for each in objects:
        who = name_of(each)
        if who in seen:
            yield f"{who}: is there twice"
        seen.add(who)
        if each["kind"] not in _CLUSTER_WIDE and each["metadata"].get("namespace") != NAMESPACE:
            yield f"{who}: must be in the namespace {NAMESPACE}"
        kind = f"{each['apiVersion']}/{each['kind']}"
        yield from _of_operators(each, kind, document) if kind in document else _of_kubernetes(each)


def _of_kubernetes(each: Object) -> Iterator[str]:
    for version in KUBERNETES_VERSIONS:
        validator = _validator(version, each["apiVersion"], each["kind"])
        if validator is None:
            yield f"{name_of(each)}: {each['apiVersion']} has no schema, neither in Kubernetes {version} nor in {KINDS.name}"
            continue
        for error in validator.iter_errors(each):
            yield f"{name_of(each)}: {_place(error)} {error.message} (Kubernetes {version})"


@functools.cache
def _validator(version: str, api_version: str, kind: str) -> jsonschema.Draft202012Validator | None:
    """Of one of Kubernetes' own kinds; None where the version has none such. A schema's file has the kind's name, its group without the domain, its version."""
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    schema = _schema(version, f"{name}.json")
    if schema is None:
        return None
    registry: Any = referencing.Resource.from_contents(_schema(version, "_definitions.json")) @ referencing.Registry()
    return jsonschema.Draft202012Validator(schema, registry=referencing.Resource.from_contents(schema) @ registry)


@functools.cache
def _schema(version: str, file: str) -> Any:
    """Content of one of the locked schemas; None where there is none such."""
    place = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict" / file
    return json.loads(place.read_text()) if place.is_file() else None


def _of_operators(each: Object, kind: str, document: dict[str, Any]) -> Iterator[str]:
    parts = {"apiVersion": {}, "kind": {}, "metadata": {"$ref": "#/$defs/metadata"}, "spec": document[kind]}
    schema = {
        "$defs": document["$defs"],
        "type": "object",
        "additionalProperties": False,
        "required": list(parts),
        "properties": parts,
    }
    for error in jsonschema.Draft202012Validator(schema).iter_errors(each):
        yield f"{name_of(each)}: {_place(error)} {error.message}"


def _place(error: jsonschema.ValidationError) -> str:
    return ".".join(str(part) for part in error.path)


def broken(objects: Objects) -> Iterator[str]:
    """Where the objects, each well formed, are together not what they must be."""
    for rule in manifest_rules.RULES.values():
        yield from rule(objects)
    yield from manifest_network.findings(objects)
    yield from manifest_settings.findings(objects)


if __name__ == "__main__":
    sys.exit(main())
