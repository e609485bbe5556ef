"""Who reaches whom by the network policies, worked out pod by pod, and held against the picture in `lockstep_kit.rpc.arrows`. Pure.

A connection passes where a policy of the one that opens it lets it out and a policy of the one that takes it lets it in; a pod that no policy chooses is open,
which the default policy must keep from happening. What the cluster itself does (probes by the node) is not judged.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lockstep_kit.rpc.arrows import ARROWS, Caller
from manifest_objects import DATABASE, NAMESPACE, ROLE, Object, Objects, chosen, labels, of_kind

_NAME: Final = "app.kubernetes.io/name"
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
#: Callers that are no service: a client anywhere that may be one, and whoever has no business here.
CLIENT, STRANGER, NEIGHBOUR, METRICS, DATABASE_OPERATOR = "client", "stranger", "neighbour", "prometheus", "database-operator"
COLLECTOR: Final = "otel-collector"
#: A block of addresses that is larger is not one counterparty.
_PREFIX_MIN: Final = {4: 24, 6: 48}

Edge = tuple[str, str, str]


@dataclass(frozen=True)
class Pod:
    """Pods that are alike."""

    name: str
    labels: Mapping[str, str]
    #: Name of a port -> its number.
    ports: Mapping[str, int] = field(default_factory=dict)
    #: Labels of its namespace.
    namespace: Mapping[str, str] = field(default_factory=lambda: {_NAMESPACE_NAME: NAMESPACE})


def pods(objects: Objects) -> Iterator[Pod]:
    """What the objects make, and whoever else may be about."""
    for each in of_kind(objects, "Deployment", "Job"):
        declared = (port for container in each["spec"]["template"]["spec"]["containers"] for port in container.get("ports", ()))
        yield Pod(each["metadata"]["name"], labels(each), {port["name"]: port["containerPort"] for port in declared})
    for each in of_kind(objects, "Cluster"):
        inherited = each["spec"].get("inheritedMetadata", {}).get("labels", {})
        yield Pod(each["metadata"]["name"], inherited, {"postgresql": 5432, "status": 8000, "metrics": 9187})
    yield Pod(Caller.JOURNAL_BRIDGE, {_NAME: Caller.JOURNAL_BRIDGE})
    yield Pod(NEIGHBOUR, {_NAME: NEIGHBOUR})
    yield Pod(CLIENT, {"lockstep/client": "true"}, namespace={_NAMESPACE_NAME: "elsewhere", "lockstep/clients": "true"})
    yield Pod(STRANGER, {}, namespace={_NAMESPACE_NAME: "elsewhere", "lockstep/clients": "true"})
    yield Pod(METRICS, {}, namespace={_NAMESPACE_NAME: "monitoring"})
    yield Pod(DATABASE_OPERATOR, {}, namespace={_NAMESPACE_NAME: "cnpg-system"})


def findings(objects: Objects) -> Iterator[str]:
    """Where the policies are not the picture."""
    known = list(pods(objects))
    passing, wanted = set(_passing(objects, known)), set(_wanted(objects))
    for source, target, port in sorted(passing - wanted):
        yield f"NetworkPolicy: {source} reaches {target} ({port}), which the picture does not have"
    for source, target, port in sorted(wanted - passing):
        yield f"NetworkPolicy: {source} does not reach {target} ({port}), which the picture has"
    for policy in of_kind(objects, "NetworkPolicy"):
        yield from _too_wide(policy)


def _wanted(objects: Objects) -> Iterator[Edge]:
    """The picture: the arrows, each service's database, spans, metrics where they are collected, and the databases' operator."""
    for server, rows in ARROWS.items():
        for caller in {caller for row in rows.values() for caller in row.callers}:
            yield (CLIENT if caller is Caller.CLIENT else caller.value, server, "grpc")
        yield from ((source, f"{server}-db", "postgresql") for source in (server, f"{server}-migrate", f"{server}-db"))
        yield (server, COLLECTOR, "otlp")
        yield from ((DATABASE_OPERATOR, f"{server}-db", port) for port in ("postgresql", "status"))
        if any(of_kind(objects, "PodMonitor")):
            yield from ((METRICS, target, "metrics") for target in (server, f"{server}-db"))


def _passing(objects: Objects, known: list[Pod]) -> Iterator[Edge]:
    policies = list(of_kind(objects, "NetworkPolicy"))
    for source in known:
        for target in known:
            for port, number in target.ports.items():
                if _out(policies, source, target, port, number) and _in(policies, source, target, port, number):
                    yield (source.name, target.name, port)


def _out(policies: list[Object], source: Pod, target: Pod, port: str, number: int) -> bool:
    """Whether the source's policies let it out; one of another namespace is not ours to hold."""
    if source.namespace[_NAMESPACE_NAME] != NAMESPACE:
        return True
    mine = [each["spec"] for each in policies if "Egress" in each["spec"]["policyTypes"] and _chooses(each, source)]
    # A rule without peers is for what no selector can name, and is judged by itself.
    rules = [rule for spec in mine for rule in spec.get("egress", ()) if rule.get("to")]
    return not mine or any(_matches(rule, "to", target, port, number) for rule in rules)


def _in(policies: list[Object], source: Pod, target: Pod, port: str, number: int) -> bool:
    mine = [each["spec"] for each in policies if "Ingress" in each["spec"]["policyTypes"] and _chooses(each, target)]
    rules = [rule for spec in mine for rule in spec.get("ingress", ())]
    return not mine or any(_matches(rule, "from", source, port, number) for rule in rules)


def _chooses(policy: Object, pod: Pod) -> bool:
    return chosen(policy["spec"]["podSelector"], pod.labels)


def _matches(rule: Mapping[str, Any], side: str, pod: Pod, port: str, number: int) -> bool:
    ports = rule.get("ports")
    if ports and not any(each["port"] in (port, number) and each.get("protocol", "TCP") == "TCP" for each in ports):
        return False
    peers = rule.get(side)
    return not peers or any(_is(peer, pod) for peer in peers)


def _is(peer: Mapping[str, Any], pod: Pod) -> bool:
    if "ipBlock" in peer:
        return False
    elsewhere = peer.get("namespaceSelector")
    if elsewhere is None and pod.namespace[_NAMESPACE_NAME] != NAMESPACE:
        return False
    return (elsewhere is None or chosen(elsewhere, pod.namespace)) and chosen(peer.get("podSelector", {}), pod.labels)


def _too_wide(policy: Object) -> Iterator[str]:
    """Ways out of the picture that are wider than one counterparty."""
    who, spec = policy["metadata"]["name"], policy["spec"]
    of_databases = spec["podSelector"].get("matchLabels", {}).get(ROLE) == DATABASE
    for rule in spec.get("egress", ()):
        if not rule.get("ports"):
            yield f"NetworkPolicy/{who}: a way out names no port"
        # Their instances ask the cluster's API, which no selector names.
        if not rule.get("to") and not of_databases:
            yield f"NetworkPolicy/{who}: a way out names no peer"
        for peer in rule.get("to", ()):
            block = ipaddress.ip_network(peer["ipBlock"]["cidr"]) if "ipBlock" in peer else None
            if block is not None and block.prefixlen < _PREFIX_MIN[block.version]:
                yield f"NetworkPolicy/{who}: {block} is wider than one counterparty"
