"""The official schemas: each is the very file that this gateway was built for, or the process does not start.

A message is validated by the schema of its own namespace; nothing that a message says about schemas is looked at. What a schema refuses is told by the
field and the rule of XML Schema that it breaks, never by the value: what is refused may hold a person's name or account.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lxml import etree

from lockstep_kit.fields import FieldInvalid

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
HEADER: Final = "head.001.001.02"
RAIL: Final = "urn:lockstep:rail:v1"
MESSAGE: Final = "BusinessMessage"

#: SHA-256 of each official schema that is spoken here, as ISO 20022 publishes it.
PINNED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "head.001.001.02": "730d4f342859b57be250b4215973adc36c7e60b0c48f171e1b4b5584dc355247",
        "pacs.008.001.13": "118183330dbdded59219efac775149660d7d32527cadc218ca5d97df07f2f481",
        "pacs.002.001.15": "0fdced4d1479741a0eeedad1ec36d1b1f2da4dfc1b0b0ad9b14808d45ccb06f3",
        "pacs.028.001.06": "a577cf53f331041db89df640edc298d563657de1e4060d266966ae6ff0f1734c",
        "camt.056.001.11": "4bb0e2311902b4bddba8b2cf55d4a58407ae140a0eb3005cdea0cdc0ccd6cadd",
        "camt.029.001.13": "1b599353ec5d9492e0983a9c028fd1f1175324f51dc0b87d0c8990bf270ac171",
        "camt.054.001.13": "45027b1e058a670818068e10323a9a89a111afb423f09e0fd59ed1e0ce5d1178",
    }
)


class SchemaChanged(ValueError):
    """A schema in the folder is not the official one: its SHA-256 differs."""


class Schemas:
    """The compiled schemas. May be used from any thread, by one at a time: lxml keeps its findings on the schema."""

    def __init__(self, folder: Path) -> None:
        """Read, verify and compile every schema of PINNED.

        Raises:
            OSError: one is not in the folder.
            SchemaChanged: one is not the official one.
        """
        self._lock = threading.Lock()
        self._compiled = {definition: _compiled(folder / f"{definition}.xsd", digest) for definition, digest in PINNED.items()}

    def require_valid(self, element: etree._Element) -> None:
        """Validate an element by the schema of its namespace, which must be one of PINNED.

        Raises:
            FieldInvalid: it breaks the schema; field and rule are those of the first finding.
        """
        definition = (etree.QName(element).namespace or "").removeprefix(NAMESPACE)
        with self._lock:
            schema = self._compiled[definition]
            if schema.validate(element):
                return
            finding = schema.error_log[0]
        # SCHEMAV_CVC_PATTERN_VALID is what XML Schema calls cvc-pattern-valid.
        rule = finding.type_name.removeprefix("SCHEMAV_").replace("_", "-").lower()
        raise FieldInvalid(_place(element, finding.path or ""), f"must be valid by {definition} ({rule})")


def _compiled(path: Path, digest: str) -> etree.XMLSchema:
    octets = path.read_bytes()
    if hashlib.sha256(octets).hexdigest() != digest:
        raise SchemaChanged(f"{path.name} is not the official schema: its SHA-256 is not {digest}")
    return etree.XMLSchema(etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True)))


def _place(element: etree._Element, path: str) -> str:
    """Where a finding is, by names: the path that lxml tells counts elements, as in /*/*[2]/*."""
    steps = [etree.QName(element).localname]
    for step in path.strip("/").split("/")[1:]:
        number = int(step.partition("[")[2].rstrip("]") or 1)
        if not step.startswith("*") or number > len(element):
            break
        element = element[number - 1]
        steps.append(etree.QName(element).localname)
    return "/".join(steps)
