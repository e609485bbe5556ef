from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_sandbox.postgres import CONNECTIONS_MAX, locked_down

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

# The tools are scripts beside one another, not a package that could be imported by name.
manifests: Any = importlib.import_module("manifests")
manifest_objects: Any = importlib.import_module("manifest_objects")
RULES: dict[str, Any] = importlib.import_module("manifest_rules").RULES
network: Any = importlib.import_module("manifest_network")
settings: Any = importlib.import_module("manifest_settings")

Objects = list[dict[str, Any]]
Change = Callable[[Objects], object]


@pytest.fixture(scope="module")
def production() -> Objects:
    """The overlay `prod`, built."""
    found: Objects = manifest_objects.read(manifests.built(manifests.OVERLAYS / "prod"))
    return found


def one(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    """The object of a kind and a name."""
    found: dict[str, Any] = manifest_objects.found(objects, kind, name)
    assert found is not None
    return found


def pod(objects: Objects, name: str = "coordinator") -> dict[str, Any]:
    """The pods of a Deployment."""
    spec: dict[str, Any] = one(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def container(objects: Objects, name: str = "coordinator") -> dict[str, Any]:
    """The container of a Deployment that runs for long."""
    first: dict[str, Any] = pod(objects, name)["containers"][0]
    return first


def without(objects: Objects, kind: str, name: str) -> None:
    """Take one object away."""
    objects.remove(one(objects, kind, name))


def rules_of(objects: Objects, policy: str, side: str) -> list[dict[str, Any]]:
    """The rules of a NetworkPolicy."""
    found: list[dict[str, Any]] = one(objects, "NetworkPolicy", policy)["spec"][side]
    return found


def installation(objects: Objects, name: str) -> dict[str, str]:
    """The variables that an overlay gives a service."""
    reference = container(objects, name)["envFrom"][0]["configMapRef"]["name"]
    held: dict[str, str] = one(objects, "ConfigMap", reference)["data"]
    return held


#: What is wrong -> how it comes to be so, and what is said of it.
WRONG: dict[str, dict[str, tuple[Change, str]]] = {
    "restricted": {
        "root": (lambda o: pod(o)["securityContext"].update(runAsUser=0), "another user than root"),
        "seccomp": (lambda o: pod(o)["securityContext"].pop("seccompProfile"), "seccomp"),
        "host's network": (lambda o: pod(o).update(hostNetwork=True), "hostNetwork"),
        "host's files": (lambda o: pod(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
        "privileges": (lambda o: container(o)["securityContext"].pop("allowPrivilegeEscalation"), "gain privileges"),
        "privileged": (lambda o: container(o)["securityContext"].update(privileged=True), "gain privileges"),
        "writable root": (lambda o: container(o)["securityContext"].update(readOnlyRootFilesystem=False), "read-only root"),
        "capability": (lambda o: container(o)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "capabilities"),
        "beginning as root": (lambda o: pod(o)["initContainers"][0]["securityContext"].update(runAsUser=0), "as root"),
        "migration": (
            lambda o: one(o, "Job", "notary-migrate")["spec"]["template"]["spec"]["containers"][0].pop("securityContext"),
            "Job/notary-migrate",
        ),
    },
    "limited": {
        "no limit of memory": (lambda o: container(o)["resources"]["limits"].pop("memory"), "no limits of memory"),
        "no request": (lambda o: container(o)["resources"].pop("requests"), "no requests of cpu"),
        "beginning": (lambda o: pod(o)["initContainers"][0].pop("resources"), "container keys"),
    },
    "probed": {
        "not asked whether alive": (lambda o: container(o).pop("livenessProbe"), "livenessProbe"),
        "collector": (lambda o: container(o, "otel-collector").pop("readinessProbe"), "otel-collector"),
        "another port": (lambda o: container(o)["readinessProbe"]["grpc"].update(port=7443), "listen.probe_port"),
        "by HTTP": (lambda o: container(o).update(startupProbe={"httpGet": {"path": "/", "port": 8081}}), "startupProbe"),
    },
    "pinned": {
        "newest": (lambda o: container(o).update(image="lockstep/coordinator:latest"), "by its digest"),
        "no tag": (lambda o: container(o, "otel-collector").update(image="otel/opentelemetry-collector-contrib"), "by its digest"),
        "tag": (lambda o: pod(o)["initContainers"][0].update(image="lockstep/coordinator:1.2.3"), "by its digest"),
    },
    "without_tokens": {
        "default account": (lambda o: pod(o).pop("serviceAccountName"), "account of its own"),
        "no such account": (lambda o: without(o, "ServiceAccount", "coordinator"), "is not there"),
        "token": (lambda o: pod(o).pop("automountServiceAccountToken"), "not mount a token"),
        "account's token": (lambda o: one(o, "ServiceAccount", "notary").update(automountServiceAccountToken=True), "notary"),
    },
    "disruptions": {
        "no budget": (lambda o: without(o, "PodDisruptionBudget", "coordinator"), "no PodDisruptionBudget"),
        "gap": (
            lambda o: one(o, "Deployment", "coordinator")["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
            "without a gap",
        ),
        "one replica": (lambda o: one(o, "HorizontalPodAutoscaler", "coordinator")["spec"].update(minReplicas=1), "2 replicas"),
        "held twice": (lambda o: one(o, "Deployment", "coordinator")["spec"].update(replicas=2), "must not set replicas"),
        "one machine": (lambda o: pod(o).pop("topologySpreadConstraints"), "topologySpreadConstraints"),
        "one address": (lambda o: one(o, "Service", "notary")["spec"].pop("clusterIP"), "headless"),
    },
    "drained": {
        "killed early": (lambda o: pod(o).update(terminationGracePeriodSeconds=20), "must be 40 or more"),
        "no pause": (lambda o: container(o).pop("lifecycle"), "preStop"),
    },
    "connected": {
        "too many replicas": (lambda o: one(o, "HorizontalPodAutoscaler", "coordinator")["spec"].update(maxReplicas=20), "231"),
        "no database": (lambda o: without(o, "Cluster", "notary-db"), "no database cluster notary-db"),
    },
    "without_secrets": {
        "Secret": (
            lambda o: o.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "lockstep"}}),
            "must not hold a Secret",
        ),
        "password": (lambda o: container(o)["env"].append({"name": "PGPASSWORD", "value": "x"}), "PGPASSWORD"),
        "in a URL": (lambda o: installation(o, "notary").update(LOCKSTEP_X="https://me:word@host/"), "LOCKSTEP_X"),
        "as a variable": (
            lambda o: container(o)["env"].append({"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}}),
            "services read files",
        ),
        "all as variables": (lambda o: container(o)["envFrom"].append({"secretRef": {"name": "x"}}), "become variables"),
    },
    "certified": {
        "another's id": (
            lambda o: one(o, "Certificate", "notary")["spec"].update(uris=["spiffe://lockstep.local/coordinator"]),
            "spiffe://lockstep.local/notary alone",
        ),
        "a week": (lambda o: one(o, "Certificate", "notary")["spec"].update(duration="168h"), "certificate_seconds_max"),
        "only for serving": (lambda o: one(o, "Certificate", "notary")["spec"]["usages"].remove("client auth"), "client auth"),
        "another name": (lambda o: one(o, "Certificate", "notary")["spec"]["dnsNames"].remove("notary"), "by which it is called"),
        "not mounted": (lambda o: one(o, "Certificate", "notary")["spec"].update(secretName="x"), "must mount x"),
        "none": (lambda o: without(o, "Certificate", "notary"), "no Certificate"),
    },
    "staged": {
        "no step": (lambda o: one(o, "Service", "notary")["metadata"]["labels"].pop("lockstep/stage"), "foundation or service"),
        "database too late": (
            lambda o: one(o, "Cluster", "notary-db")["metadata"]["labels"].update({"lockstep/stage": "service"}),
            "must be foundation",
        ),
        "completed too soon": (lambda o: one(o, "Job", "notary-complete")["spec"].pop("suspend"), "must be suspended"),
        "all at once": (
            lambda o: one(o, "Job", "notary-migrate")["spec"]["template"]["spec"]["containers"][0]["args"].__setitem__(-1, "all"),
            "--step pre",
        ),
    },
    "selected": {
        "nobody": (
            lambda o: one(o, "Service", "notary")["spec"]["selector"].update({"app.kubernetes.io/name": "x"}),
            "selects no pod",
        ),
        "no such port": (lambda o: container(o, "notary")["ports"].pop(0), "no port grpc"),
        "no metrics": (lambda o: container(o, "notary")["ports"].pop(2), "no port metrics"),
    },
}


def cases() -> Iterator[Any]:
    """Each of the above as a test of its own."""
    for rule, wrong in WRONG.items():
        yield from (pytest.param(rule, change, said, id=f"{rule}: {name}") for name, (change, said) in wrong.items())


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_the_overlays_are_as_they_must_be(overlay: str) -> None:
    """Each overlay is built, is what Kubernetes and its operators take, and breaks no rule."""
    assert manifests.findings_of(manifests.OVERLAYS / overlay) == []


def test_every_rule_is_seen_to_catch_something() -> None:
    """There is no rule without a manifest that breaks it."""
    assert set(WRONG) == set(RULES)


@pytest.mark.parametrize(("rule", "change", "said"), list(cases()))
def test_a_rule_catches(production: Objects, rule: str, change: Change, said: str) -> None:
    """What is made wrong is found by its rule."""
    objects = copy.deepcopy(production)
    assert list(RULES[rule](objects)) == []
    change(objects)
    assert any(said in finding for finding in RULES[rule](objects)), list(RULES[rule](objects))


REACHES: dict[str, tuple[Change, str]] = {
    "no default": (lambda o: without(o, "NetworkPolicy", "default-deny"), "none holds neighbour (Ingress)"),
    "an arrow more": (
        lambda o: (
            (
                rules_of(o, "notary", "egress")[0]["to"].append(
                    {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "coordinator"}}}
                ),
                rules_of(o, "coordinator", "ingress")[0]["from"].append(
                    {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "notary"}}}
                ),
            )
        ),
        "notary reaches coordinator (grpc)",
    ),
    "an arrow less": (
        lambda o: rules_of(o, "event-journal", "ingress")[0]["from"].pop(0),
        "coordinator does not reach event-journal (grpc)",
    ),
    "everybody at the chain": (
        lambda o: rules_of(o, "dlt-gateway", "ingress")[0].pop("from"),
        "stranger reaches dlt-gateway (grpc)",
    ),
    "no client at the chain": (
        lambda o: rules_of(o, "dlt-gateway", "ingress")[0]["from"].pop(),
        "client does not reach dlt-gateway (grpc)",
    ),
    "every pod is a client": (
        lambda o: rules_of(o, "coordinator", "ingress")[0]["from"][0].pop("podSelector"),
        "stranger reaches coordinator (grpc)",
    ),
    "every port": (lambda o: rules_of(o, "coordinator", "ingress")[0].pop("ports"), "client reaches coordinator (metrics)"),
    "another's database": (
        lambda o: (
            (
                rules_of(o, "coordinator-db", "ingress")[0]["from"].append({"podSelector": {}}),
                rules_of(o, "notary", "egress")[1]["to"].append({"podSelector": {"matchLabels": {"lockstep/role": "database"}}}),
            )
        ),
        "notary reaches coordinator-db (postgresql)",
    ),
    "everywhere": (
        lambda o: rules_of(o, "notary-chain", "egress")[0].update(to=[{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
        "wider than one counterparty",
    ),
    "anywhere": (lambda o: rules_of(o, "notary-chain", "egress")[0].pop("to"), "names no peer"),
    "any port out": (lambda o: rules_of(o, "notary-chain", "egress")[0].pop("ports"), "names no port"),
}


@pytest.mark.parametrize("name", REACHES)
def test_policies_that_are_not_the_picture_are_found(production: Objects, name: str) -> None:
    """Whoever reaches what the picture does not have, or does not reach what it has, is named."""
    objects, (change, said) = copy.deepcopy(production), REACHES[name]
    assert list(network.findings(objects)) == []
    change(objects)
    assert any(said in finding for finding in network.findings(objects)), list(network.findings(objects))


REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "no such setting": ("notary", {"LOCKSTEP_REGISTRI": "x"}, "LOCKSTEP_REGISTRI overrides no setting"),
    "another asset's places": ("coordinator", {"LOCKSTEP_INSTALLATION__ASSETS": '{"EUR":3}'}, "installation.assets.EUR must be 2"),
    "one endpoint": ("dlt-gateway", {"LOCKSTEP_CHAIN__RPC_URLS": '["https://chain.example"]'}, "chain"),
    "plaintext": ("bank-gateway", {"LOCKSTEP_RAIL__HTTP__URL": "http://bank.example"}, "rail.http.url"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_a_service_would_refuse_are_found(production: Objects, name: str) -> None:
    """The service's own code says of an installation's values what it would say at its start."""
    service, values, said = REFUSED[name]
    objects = copy.deepcopy(production)
    assert list(settings.findings(objects)) == []
    installation(objects, service).update(values)
    assert any(service in finding and said in finding for finding in settings.findings(objects)), list(settings.findings(objects))


MALFORMED: dict[str, tuple[Change, str]] = {
    "Kubernetes' kind": (lambda o: container(o).update(imagePullPolice="Always"), "imagePullPolice"),
    "operator's kind": (lambda o: one(o, "Cluster", "notary-db")["spec"].update(instanzes=3), "instanzes"),
    "unknown kind": (lambda o: one(o, "Cluster", "notary-db").update(kind="Clusterr"), "has no schema"),
    "another namespace": (
        lambda o: one(o, "Service", "notary")["metadata"].update(namespace="default"),
        "must be in the namespace",
    ),
    "twice": (lambda o: o.append(one(o, "Service", "notary")), "is there twice"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_kubernetes_would_refuse_is_found(production: Objects, name: str) -> None:
    """A field or kind that nobody knows, or an object in the wrong place, is named."""
    few = [each for each in production if each["kind"] in ("Deployment", "Cluster", "Service")]
    objects, (change, said) = copy.deepcopy(few), MALFORMED[name]
    change(objects)
    assert any(said in finding for finding in manifests.malformed(objects))


def test_an_overlay_that_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kubectl says is the finding; where there is no kubectl, that is."""
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    assert "missing.yaml" in manifests.findings_of(tmp_path)[0]
    monkeypatch.setenv("LOCKSTEP_KUBECTL", str(tmp_path / "none"))
    assert "LOCKSTEP_KUBECTL" in manifests.findings_of(tmp_path)[0]


def test_databases_are_made_as_the_sandbox_makes_them(production: Objects) -> None:
    """What PostgreSQL gives everybody is taken back, and a role has as many connections."""
    for cluster in manifest_objects.of_kind(production, "Cluster"):
        begun, (role,) = cluster["spec"]["bootstrap"]["initdb"], cluster["spec"]["managed"]["roles"]
        assert begun["owner"] == f"{role['name']}_owner"
        assert begun["postInitApplicationSQL"] == list(locked_down(begun["owner"]))
        assert role["connectionLimit"] == CONNECTIONS_MAX


def test_what_a_platform_provides_is_told(production: Objects) -> None:
    """Every secret and every map that the manifests name and nothing here makes has its row in docs/kubernetes.md."""
    made = {each["metadata"]["name"] for each in manifest_objects.of_kind(production, "ConfigMap")}
    made |= {each["spec"]["secretName"] for each in manifest_objects.of_kind(production, "Certificate")}
    # The databases' operator makes each cluster's authority.
    made |= {f"{each['metadata']['name']}-ca" for each in manifest_objects.of_kind(production, "Cluster")}
    named = set()
    for _, spec in manifest_objects.templates(production):
        for volume in spec.get("volumes", ()):
            named |= {volume[kind][key] for kind, key in (("secret", "secretName"), ("configMap", "name")) if kind in volume}
    told = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / "docs" / "kubernetes.md").read_text()))
    assert named - made <= told
