"""What is locked is pinned by hashes, has a licence that is allowed, and stands in the bill of materials."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
# The tools are scripts beside one another, not a package that could be imported by name.
parts: Any = importlib.import_module("components")
licences: Any = importlib.import_module("licences")
sbom: Any = importlib.import_module("sbom")

LOCKS = (
    "requirements.lock",
    "runtime.lock",
    "bootstrap.lock",
    "tools/package-lock.json",
    "tools/softhsm.lock",
    "tools/promtool.lock",
    "tools/schemas/schemas.lock",
)
LENGTHS = {"SHA-256": 64, "SHA-384": 96, "SHA-512": 128}
DECISIONS = {"allowed": ["MIT", "Apache-2.0"], "words": {}, "packages": {}}


def component(**told: Any) -> Any:
    usual = {
        "purl": "pkg:pypi/a@1",
        "name": "a",
        "version": "1",
        "licence": "MIT",
        "said": "",
        "hashes": (("SHA-256", "0" * 64),),
        "is_tool": False,
    }
    return parts.Component(**(usual | told))


def test_every_entry_has_a_hash() -> None:
    """Of all that is locked, and no entry was passed over; tools need more packages than services."""
    found = parts.components()
    assert all(each.hashes for each in found)
    for each in found:
        for algorithm, digest in each.hashes:
            assert re.fullmatch(f"[0-9a-f]{{{LENGTHS[algorithm]}}}", digest)
    text = (ROOT / "requirements.lock").read_text()
    assert {each.name for each in found if each.purl.startswith("pkg:pypi/")} >= {
        parts.canonical(name) for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text)
    }
    runtime = {each.name for each in found if not each.is_tool}
    assert {"grpcio", "asyncpg", "cryptography", "structlog", "protobuf"} <= runtime
    assert not {"pytest", "mypy", "ruff", "solc", "softhsm2", "prometheus"} & runtime


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_a_host(lock: str) -> None:
    """Where a package comes from is the machine's setting and none of the repository's; whom its authors ask for money is no matter."""
    text = re.sub(r'"funding":.*?[\]}]', "", (ROOT / lock).read_text(), flags=re.DOTALL)
    assert not re.search(r"https?://|git\+|file:|--(extra-)?index|--find-links", text)


@pytest.mark.parametrize(
    "text",
    ["a==1\n", "a==1 \\\n    --hash=md5:00\n", "a>=1\n", "a @ file:x\n", "--index x\na==1\n", f"a==1 \\\n    --hash=sha256:{'0' * 63}\n"],
)  # fmt: skip
def test_a_lock_without_a_hash_is_refused(text: str) -> None:
    """No hash, a weak one, a cut one, no pin, something that is no entry."""
    with pytest.raises(parts.LockBroken):
        list(parts.locked("x.lock", text))


def test_every_licence_is_allowed() -> None:
    """And every decision is of a package that is there, with its reason."""
    assert list(licences.findings_of(parts.components(), parts.decided())) == []


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True), ("GPL-3.0-only OR MIT", True), ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", True), ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False), ("", False), ("MIT AND", False),
        ("MIT MIT", False), ("MIT)", False), ("(MIT", False), ("see LICENSE", False), ("MIT; whatever", False), ("GPL-2.0-only WITH MIT", False),
    ],
)  # fmt: skip
def test_expressions_are_read(expression: str, holds: bool) -> None:
    """All parts of an AND, one part of an OR; what is no expression allows nothing."""
    assert licences.is_allowed(expression, DECISIONS["allowed"]) is holds


def test_what_nobody_decided_is_found() -> None:
    """A licence that is not allowed, one that nobody knows, an exception that nothing needs, a decision about nothing."""
    found = [component(licence="GPL-3.0-only"), component(licence="", said="my own")]
    assert [each.partition(":")[0] for each in licences.findings_of(found, DECISIONS)] == ["a 1", "a 1"]
    decisions = DECISIONS | {"packages": {"a": {"licence": "MIT", "reason": "x", "exception": True}, "b": {"licence": "MIT"}}}
    assert len(list(licences.findings_of([component()], decisions))) == 3
    decided = DECISIONS | {"packages": {"a": {"licence": "GPL-3.0-only", "reason": "x", "exception": True}}}
    assert list(licences.findings_of([component(licence="GPL-3.0-only")], decided)) == []


def test_the_bill_keeps_the_rules_of_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """CycloneDX 1.6: what is required is there, references are unique and lead somewhere, hashes and licences have their forms, nothing names a host."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    found = parts.components()
    document = sbom.bill(found, parts.decided(), sbom.own(), sbom.moment())
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert document.keys() <= {"bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies"}
    references = [each["bom-ref"] for each in document["components"]]
    own = [each["bom-ref"] for each in document["metadata"]["component"]["components"]]
    root = document["metadata"]["component"]["bom-ref"]
    assert len({root, *references, *own}) == 1 + len(references) + len(own)
    assert len(references) == len(found) > 140
    assert {"pkg:generic/lockstep-coordinator@0.1.0", "pkg:generic/lockstep-kit@0.1.0"} <= set(own)
    for each in document["dependencies"]:
        assert {each["ref"], *each["dependsOn"]} <= {root, *references}
    for each in document["components"]:
        assert each["type"] == "library"
        assert each["scope"] in ("required", "excluded")
        assert re.fullmatch(r"pkg:(pypi|npm|deb)/[A-Za-z0-9%@/._+-]+@[A-Za-z0-9%._+-]+(\?arch=[a-z0-9]+)?", each["purl"])
        (licence,) = each["licenses"]
        assert licence.keys() == {"expression"} or re.fullmatch(r"[A-Za-z0-9.+-]+", licence["license"]["id"])
        digests = each.get("hashes") or [digest for one in each["externalReferences"] for digest in one["hashes"]]
        assert all(re.fullmatch(f"[0-9a-f]{{{LENGTHS[digest['alg']]}}}", digest["content"]) for digest in digests)
    assert "://" not in json.dumps(document)


def test_the_bill_is_the_same_each_time(tmp_path: Path) -> None:
    """Two processes write the same octets; a moment is in it only where one is given; another version is another bill."""
    runs = [
        subprocess.run([sys.executable, "tools/sbom.py"], cwd=ROOT, capture_output=True, check=True, timeout=600).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert "timestamp" not in json.loads(runs[0])["metadata"]
    dated = sbom.bill([component()], DECISIONS, [], "2026-01-01T00:00:00Z")
    assert dated["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"
    other = sbom.bill([component(purl="pkg:pypi/a@2", version="2")], DECISIONS, [], None)
    assert other["serialNumber"] != dated["serialNumber"]
