"""What every manifest must hold, beyond its schema. Pure: each rule takes the built objects and yields a sentence for each place that breaks it.

The rules of pods are those of the restricted Pod Security Standard, and what a service of this system needs beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from manifest_objects import (
    DATABASE,
    ROLE,
    SERVICE,
    Objects,
    chosen,
    containers,
    found,
    labels,
    name_of,
    of_kind,
    services,
    settings_of,
    templates,
)

from lockstep_kit.rpc.arrows import spiffe_id
from lockstep_kit.rpc.server import ListenSettings

Rule = Callable[[Objects], Iterator[str]]

#: Kinds of volumes that the restricted standard allows and that are used here.
_VOLUMES: Final = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
_PINNED: Final = re.compile(r"[a-z0-9.:/_-]+@sha256:[0-9a-f]{64}")
_SECRET_NAME: Final = re.compile(r"(?i)(password|passwd|secret|token|api_?key|private_?key|pin)$")
_SECRET_TEXT: Final = re.compile(r"PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@|(?i:\b(password|secret|token)\s*[:=]\s*[^\s{/])")
_SECONDS: Final = {"h": 3_600, "m": 60, "s": 1}
#: What comes after a drain: leases and connections are given back, spans are sent.
AFTER_DRAIN_SECONDS: Final = 20
REPLICAS_MIN: Final = 2
#: Label that says with which step of a deployment an object is applied.
STAGE: Final = "lockstep/stage"
_STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "Namespace": ("foundation",),
    "Cluster": ("foundation",),
    "Certificate": ("foundation",),
    "Job": ("migration", "completion"),
    "Deployment": ("service",),
}
#: Step of a job's migrations -> what it is told, and whether it waits until a person lets it run.
_STEPS: Final = {"migration": ("pre", False), "completion": ("post", True)}
#: Connections that a process has beside its pool: the one that listens.
_LISTENING: Final = 1


def restricted(objects: Objects) -> Iterator[str]:
    """Pods keep the restricted Pod Security Standard, and write nowhere but into their volumes."""
    for each, pod in templates(objects):
        who, security = name_of(each), pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser", 1) == 0:
            yield f"{who}: must run as another user than root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{who}: must have the runtime's default seccomp profile"
        yield from (f"{who}: must not have {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))
        for volume in pod.get("volumes", ()):
            if kinds := set(volume) - {"name"} - _VOLUMES:
                yield f"{who}: volume {volume['name']} must not be of kind {', '.join(sorted(kinds))}"
        for container in containers(pod):
            yield from (f"{who}: container {container['name']} {rule}" for rule in _confined(container.get("securityContext", {})))


def _confined(security: Mapping[str, Any]) -> Iterator[str]:
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "must not gain privileges"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "must have a read-only root"
    if security.get("capabilities", {}) != {"drop": ["ALL"]}:
        yield "must drop all capabilities, and add none"
    if security.get("runAsNonRoot") is False or security.get("runAsUser", 1) == 0:
        yield "must not run as root"


def limited(objects: Objects) -> Iterator[str]:
    """Containers say what they need and how much they may have."""
    for each, pod in templates(objects):
        for container in containers(pod):
            for side in ("requests", "limits"):
                told = container.get("resources", {}).get(side, {})
                yield from (
                    f"{name_of(each)}: container {container['name']} has no {side} of {resource}"
                    for resource in _RESOURCES
                    if resource not in told
                )


def probed(objects: Objects) -> Iterator[str]:
    """What runs for long is asked whether it is ready and alive; a service on the port on which it answers probes."""
    for each in of_kind(objects, "Deployment"):
        for container in each["spec"]["template"]["spec"]["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{name_of(each)}: container {container['name']} has no {probe}"
    for each in services(objects):
        (container,) = each["spec"]["template"]["spec"]["containers"]
        port = settings_of(objects, each).get("listen", {}).get("probe_port")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if port is None or container.get(probe, {}).get("grpc", {}).get("port") != port:
                yield f"{name_of(each)}: {probe} must ask by gRPC at listen.probe_port ({port})"


def pinned(objects: Objects) -> Iterator[str]:
    """Images are named by digest."""
    for each, pod in templates(objects):
        for container in containers(pod):
            if not _PINNED.fullmatch(container["image"]):
                yield f"{name_of(each)}: image {container['image']} must be named by its digest, and by no tag"


def without_tokens(objects: Objects) -> Iterator[str]:
    """Pods have an account of their own, and no token of the cluster's API."""
    for each, pod in templates(objects):
        account = pod.get("serviceAccountName", "default")
        if account == "default":
            yield f"{name_of(each)}: must have a service account of its own"
        elif found(objects, "ServiceAccount", account) is None:
            yield f"{name_of(each)}: service account {account} is not there"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name_of(each)}: must not mount a token"
    for each in of_kind(objects, "ServiceAccount"):
        if each.get("automountServiceAccountToken") is not False:
            yield f"{name_of(each)}: must not have its token mounted"


def disruptions(objects: Objects) -> Iterator[str]:
    """Replicas are spread, replaced without a gap, and not taken away together."""
    for each in of_kind(objects, "Deployment"):
        budgets = (budget["spec"]["selector"] for budget in of_kind(objects, "PodDisruptionBudget"))
        if not any(chosen(selector, labels(each)) for selector in budgets):
            yield f"{name_of(each)}: has no PodDisruptionBudget"
        if each["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield f"{name_of(each)}: must be replaced without a gap (maxUnavailable 0)"
    for each in services(objects):
        name = each["metadata"]["name"]
        scaler = found(objects, "HorizontalPodAutoscaler", name)
        if scaler is None or scaler["spec"].get("minReplicas", 1) < REPLICAS_MIN:
            yield f"{name_of(each)}: must have a HorizontalPodAutoscaler of {REPLICAS_MIN} replicas or more"
        if "replicas" in each["spec"]:
            yield f"{name_of(each)}: must not set replicas, which its autoscaler holds"
        if not each["spec"]["template"]["spec"].get("topologySpreadConstraints"):
            yield f"{name_of(each)}: must have topologySpreadConstraints"
        own = found(objects, "Service", name)
        if own is None or own["spec"].get("clusterIP") != "None":
            yield f"{name_of(each)}: must have a headless Service of its name, so that callers see every replica"


def drained(objects: Objects) -> Iterator[str]:
    """A pod is not killed before its service has drained."""
    for each in services(objects):
        pod = each["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if pause <= 0:
            yield f"{name_of(each)}: must have a preStop sleep, until its name stops standing for it"
        drain = settings_of(objects, each).get("listen", {}).get("drain_seconds", ListenSettings().drain_seconds)
        needed = pause + drain + AFTER_DRAIN_SECONDS
        if pod.get("terminationGracePeriodSeconds", 30) < needed:
            yield f"{name_of(each)}: terminationGracePeriodSeconds must be {needed} or more: preStop, listen.drain_seconds, and what comes after"


def connected(objects: Objects) -> Iterator[str]:
    """All replicas that there may be, one more while they are replaced, have their connections."""
    for each in services(objects):
        name, settings = each["metadata"]["name"], settings_of(objects, each)
        scaler, cluster = found(objects, "HorizontalPodAutoscaler", name), found(objects, "Cluster", f"{name}-db")
        if cluster is None:
            yield f"{name_of(each)}: has no database cluster {name}-db"
        if scaler is None or cluster is None:
            continue
        needed = (scaler["spec"]["maxReplicas"] + 1) * (settings.get("database", {}).get("pool_size_max", 10) + _LISTENING)
        parameters = cluster["spec"]["postgresql"]["parameters"]
        for role in cluster["spec"]["managed"]["roles"]:
            if not needed <= role.get("connectionLimit", 0) < int(parameters["max_connections"]):
                yield f"{name_of(each)}: {needed} connections must be within the role's connectionLimit, and that below max_connections"
        if cluster["spec"].get("inheritedMetadata", {}).get("labels", {}).get(ROLE) != DATABASE:
            yield f"{name_of(cluster)}: its pods must have the label {ROLE}: {DATABASE}"


def without_secrets(objects: Objects) -> Iterator[str]:
    """No secret stands in a manifest: they are referenced by name."""
    for each in of_kind(objects, "Secret"):
        yield f"{name_of(each)}: a manifest must not hold a Secret"
    for each in of_kind(objects, "ConfigMap"):
        for key, text in {**each.get("data", {}), **each.get("binaryData", {})}.items():
            if _SECRET_NAME.search(key) or _SECRET_TEXT.search(text):
                yield f"{name_of(each)}: {key} must not hold a secret"
    for each, pod in templates(objects):
        for container in containers(pod):
            for variable in container.get("env", ()):
                if "value" in variable and (_SECRET_NAME.search(variable["name"]) or _SECRET_TEXT.search(variable["value"])):
                    yield f"{name_of(each)}: variable {variable['name']} must not hold a secret"
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    yield f"{name_of(each)}: variable {variable['name']} must not come from a secret: services read files"
            yield from (
                f"{name_of(each)}: a secret must not become variables" for ref in container.get("envFrom", ()) if "secretRef" in ref
            )


def certified(objects: Objects) -> Iterator[str]:
    """A service shows its own SPIFFE id, under its own name, for no longer than callers' certificates may live."""
    for each in services(objects):
        name = each["metadata"]["name"]
        certificate = found(objects, "Certificate", name)
        if certificate is None:
            yield f"{name_of(each)}: has no Certificate"
            continue
        spec = certificate["spec"]
        if spec.get("uris") != [spiffe_id(name)]:
            yield f"{name_of(certificate)}: uris must be {spiffe_id(name)} alone"
        if name not in spec.get("dnsNames", ()):
            yield f"{name_of(certificate)}: dnsNames must have {name}, by which it is called"
        if {"server auth", "client auth"} - set(spec.get("usages", ())):
            yield f"{name_of(certificate)}: usages must have server auth and client auth"
        life, before = _seconds(spec["duration"]), _seconds(spec["renewBefore"])
        longest = (
            settings_of(objects, each).get("listen", {}).get("certificate_seconds_max", ListenSettings().certificate_seconds_max)
        )
        if not before < life <= longest:
            yield f"{name_of(certificate)}: duration must be {longest:.0f} s or less, which is listen.certificate_seconds_max, and longer than renewBefore"
        volumes = each["spec"]["template"]["spec"].get("volumes", ())
        if not any(volume.get("secret", {}).get("secretName") == spec["secretName"] for volume in volumes):
            yield f"{name_of(each)}: must mount {spec['secretName']}"


def _seconds(text: str) -> int:
    """Seconds of a duration such as 8h or 1h30m."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def selected(objects: Objects) -> Iterator[str]:
    """What selects pods selects some, and a port that is named by name is there."""
    ports = [
        (
            labels(each),
            {port["name"] for container in each["spec"]["template"]["spec"]["containers"] for port in container.get("ports", ())},
        )
        for each in of_kind(objects, "Deployment")
    ]
    for each in of_kind(objects, "Service"):
        chosen_ports = [named for by, named in ports if chosen({"matchLabels": each["spec"]["selector"]}, by)]
        if not chosen_ports:
            yield f"{name_of(each)}: selects no pod"
        for port in each["spec"]["ports"]:
            if any(port["targetPort"] not in named for named in chosen_ports):
                yield f"{name_of(each)}: its pods have no port {port['targetPort']}"
    for each in of_kind(objects, "PodMonitor"):
        by = each["spec"]["selector"]["matchLabels"]
        for endpoint in each["spec"]["podMetricsEndpoints"]:
            if by.get(ROLE) == SERVICE and any(endpoint["port"] not in named for own, named in ports if own.get(ROLE) == SERVICE):
                yield f"{name_of(each)}: the services have no port {endpoint['port']}"


def staged(objects: Objects) -> Iterator[str]:
    """Each object says with which step it is applied, and each step has what it stands on: databases before migrations, those before services."""
    for each in objects:
        wanted = _STAGES.get(each["kind"], ("foundation", "service"))
        stage = each["metadata"].get("labels", {}).get(STAGE)
        if stage not in wanted:
            yield f"{name_of(each)}: label {STAGE} must be {' or '.join(wanted)}"
        elif each["kind"] == "Job":
            step, waits = _STEPS[stage]
            if each["spec"]["template"]["spec"]["containers"][0]["args"][-2:] != ["--step", step]:
                yield f"{name_of(each)}: must end its arguments with --step {step}"
            if each["spec"].get("suspend", False) is not waits:
                yield f"{name_of(each)}: must {'' if waits else 'not '}be suspended"


#: Every rule, by its name.
RULES: Final[Mapping[str, Rule]] = {
    rule.__name__: rule
    for rule in (
        restricted,
        limited,
        probed,
        pinned,
        without_tokens,
        disruptions,
        drained,
        connected,
        without_secrets,
        certified,
        selected,
        staged,
    )
}
