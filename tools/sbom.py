"""Writes the bill of materials: CycloneDX 1.6 (ECMA-424), JSON, of everything that the locks hold.

    tools/sbom.py [FILE]        writes it; to standard output without a file

The same locks give the same octets: there is no time stamp but that of SOURCE_DATE_EPOCH, where it is set, and the serial number comes from the content.
It is written here because the libraries for it bring a dozen packages of their own into what they are to list.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components import Component, components, decided
from licences import licence_of
from workspace import packages

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "lockstep.local")
SPDX_REFERENCE = "LicenseRef-"


def main() -> int:
    """Returns the exit code."""
    text = json.dumps(bill(components(), decided(), own(), moment()), indent=2, ensure_ascii=False) + "\n"
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


def moment() -> str | None:
    """When it was made, as far as anybody is to know."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(given), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if given else None


def own() -> list[tuple[str, str]]:
    """This repository's packages with their versions."""
    projects = [tomllib.loads((each.folder / "pyproject.toml").read_text())["project"] for each in packages()]
    return sorted((each["name"], each["version"]) for each in projects)


def bill(found: list[Component], decisions: dict[str, Any], ours: list[tuple[str, str]], made_at: str | None) -> dict[str, Any]:
    """The document."""
    root = "pkg:generic/lockstep"
    parts = [component(each, licence_of(each, decisions)) for each in found]
    inside = [
        {"type": "library", "bom-ref": f"pkg:generic/{name}@{version}", "name": name, "version": version} for name, version in ours
    ]
    content = json.dumps([parts, inside], sort_keys=True)
    about: dict[str, Any] = {
        "component": {"type": "application", "bom-ref": root, "name": "lockstep", "components": inside},
        "lifecycles": [{"phase": "pre-build"}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, content)}",
        "version": 1,
        "metadata": ({"timestamp": made_at} if made_at else {}) | about,
        "components": parts,
        "dependencies": [{"ref": root, "dependsOn": [each["bom-ref"] for each in parts]}],
    }


def component(each: Component, licence: str) -> dict[str, Any]:
    """One entry. What only tools and tests need is left out of what runs."""
    told: dict[str, Any] = {
        "type": "library",
        "bom-ref": each.purl,
        "name": each.name,
        "version": each.version,
        "scope": "excluded" if each.is_tool else "required",
        "hashes": [],
        "purl": each.purl,
    }
    if len(each.hashes) == 1:
        told["hashes"] = [{"alg": algorithm, "content": content} for algorithm, content in each.hashes]
    else:
        # `hashes` are of one file: a package that is published as several has one entry of evidence for each.
        del told["hashes"]
        told["externalReferences"] = [
            {"type": "distribution", "url": each.purl, "hashes": [{"alg": algorithm, "content": content}]}
            for algorithm, content in each.hashes
        ]
    if licence:
        told["licenses"] = [{"expression": licence}] if is_expression(licence) else [{"license": {"id": licence}}]
    return told


def is_expression(licence: str) -> bool:
    """Whether it is more than one SPDX id: those alone may stand as an id."""
    return " " in licence or licence.startswith(SPDX_REFERENCE)


if __name__ == "__main__":
    sys.exit(main())
