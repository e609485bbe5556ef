"""Who reaches whom by the network policies, worked out pod by pod, and held against the picture in `lockstep_kit.rpc.arrows`. Pure.

A connection passes where a policy of the one that opens it lets it out and a policy of the one that takes it lets it in; a pod that no policy chooses is open,
which the default policy must keep from happening. What the cluster itself does (probes by the node) is not judged.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from manifest_objects import DATABASE, NAMESPACE, ROLE, Object, Objects, chosen, labels, of_kind

from lockstep_kit.rpc.arrows import ARROWS, Caller

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


@dataclass(frozen=True)
class _Held:
    """A pod with what the policies say of it."""

    pod: Pod
    #: Rules by direction; None where no policy holds it.
    rules: Mapping[str, list[Mapping[str, Any]] | None]


def findings(objects: Objects) -> Iterator[str]:
    """Where the policies are not the picture."""
    policies = list(of_kind(objects, "NetworkPolicy"))
    known = [_held(policies, each) for each in pods(objects)]
    for each in known:
        for direction, rules in each.rules.items():
            if rules is None and _is_ours(each.pod):
                yield f"NetworkPolicy: none holds {each.pod.name} ({direction})"
    passing, wanted = set(_passing(known)), set(_wanted(objects))
    for source, target, port in sorted(passing - wanted):
        yield f"NetworkPolicy: {source} reaches {target} ({port}), which the picture does not have"
    for source, target, port in sorted(wanted - passing):
        yield f"NetworkPolicy: {source} does not reach {target} ({port}), which the picture has"
    for policy in policies:
        yield from _too_wide(policy)


def _wanted(objects: Objects) -> Iterator[Edge]:
    """The picture: the arrows, each service's database, spans, metrics where they are collected, and the databases' operator."""
    for server, rows in ARROWS.items():
        for caller in {caller for row in rows.values() for caller in row.callers}:
            yield (CLIENT if caller is Caller.CLIENT else caller.value, server, "grpc")
        yield from (
            (source, f"{server}-db", "postgresql") for source in (server, f"{server}-migrate", f"{server}-complete", f"{server}-db")
        )
        yield (server, COLLECTOR, "otlp")
        yield from ((DATABASE_OPERATOR, f"{server}-db", port) for port in ("postgresql", "status"))
        if any(of_kind(objects, "PodMonitor")):
            yield from ((METRICS, target, "metrics") for target in (server, f"{server}-db"))


def _held(policies: list[Object], pod: Pod) -> _Held:
    rules: dict[str, list[Mapping[str, Any]] | None] = {}
    for direction in ("Ingress", "Egress"):
        specs = [each["spec"] for each in policies if direction in each["spec"]["policyTypes"] and _chooses(each, pod)]
        rules[direction] = [rule for spec in specs for rule in spec.get(direction.lower(), ())] if specs and _is_ours(pod) else None
    return _Held(pod, rules)


def _is_ours(pod: Pod) -> bool:
    return pod.namespace[_NAMESPACE_NAME] == NAMESPACE


def _passing(known: list[_Held]) -> Iterator[Edge]:
    for source in known:
        out = source.rules["Egress"]
        # A rule without peers is for what no selector can name, and is judged by itself.
        named = None if out is None else [rule for rule in out if rule.get("to")]
        for target in known:
            for port, number in target.pod.ports.items():
                if _lets(named, "to", target.pod, port, number) and _lets(
                    target.rules["Ingress"], "from", source.pod, port, number
                ):
                    yield (source.pod.name, target.pod.name, port)


def _lets(rules: list[Mapping[str, Any]] | None, side: str, peer: Pod, port: str, number: int) -> bool:
    return rules is None or any(_matches(rule, side, peer, port, number) for rule in rules)


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
    if elsewhere is None and not _is_ours(pod):
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
