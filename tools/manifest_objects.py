"""Kubernetes objects as they are built, and what the checks ask of them again and again. Pure.

An object is the mapping that its YAML is; a pod is what a Deployment, a Job or a database cluster makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

Object = Mapping[str, Any]
Objects = Sequence[Object]

NAMESPACE: Final = "lockstep"
#: Label that says what a pod is, and its values.
ROLE: Final = "lockstep/role"
SERVICE, MIGRATION, DATABASE, TELEMETRY = "service", "migration", "database", "telemetry"
_INTEGER_BITS_MAX: Final = 64


class _Loader(yaml.SafeLoader):
    """As Kubernetes reads YAML: digits that fit no integer, as an address's, are text."""


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    value: int = loader.construct_yaml_int(node)
    return value if value.bit_length() < _INTEGER_BITS_MAX else str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read(text: str) -> list[Object]:
    """The objects of a stream of YAML documents."""
    return [each for each in yaml.load_all(text, _Loader) if each is not None]


def name_of(each: Object) -> str:
    """Kind and name, as findings say them."""
    return f"{each['kind']}/{each['metadata']['name']}"


def of_kind(objects: Objects, *kinds: str) -> Iterator[Object]:
    """The objects of these kinds."""
    return (each for each in objects if each["kind"] in kinds)


def found(objects: Objects, kind: str, name: str) -> Object | None:
    """The object of a kind and a name; None where there is none."""
    return next((each for each in of_kind(objects, kind) if each["metadata"]["name"] == name), None)


def templates(objects: Objects) -> Iterator[tuple[Object, Object]]:
    """Each object that makes pods by a template, with the pod's specification."""
    for each in of_kind(objects, "Deployment", "Job", "StatefulSet", "DaemonSet", "CronJob"):
        spec = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
        yield each, spec["template"]["spec"]


def labels(workload: Object) -> Mapping[str, str]:
    """Labels of a workload's pods."""
    own: Mapping[str, str] = workload["spec"]["template"]["metadata"].get("labels", {})
    return own


def services(objects: Objects) -> Iterator[Object]:
    """Deployments of the services."""
    return (each for each in of_kind(objects, "Deployment") if labels(each).get(ROLE) == SERVICE)


def containers(pod: Object) -> Iterator[Object]:
    """All containers of a pod, those that begin it too."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def chosen(selector: Object, by: Mapping[str, str]) -> bool:
    """Whether a label selector chooses what has these labels.

    Raises:
        ValueError: it has an operator that nothing here needs.
    """
    for expression in selector.get("matchExpressions", ()):
        if expression["operator"] != "In":
            raise ValueError(f"matchExpressions: {expression['operator']} is not judged here")
        if by.get(expression["key"]) not in expression["values"]:
            return False
    return all(by.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def settings_of(objects: Objects, deployment: Object) -> Mapping[str, Any]:
    """What a service's settings file holds; nothing where it has none."""
    for volume in deployment["spec"]["template"]["spec"].get("volumes", ()):
        if volume["name"] == "settings":
            held = found(objects, "ConfigMap", volume["configMap"]["name"])
            if held is not None:
                document: Mapping[str, Any] = yaml.safe_load(held["data"]["settings.yaml"])
                return document
    return {}
