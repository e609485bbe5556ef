"""The official schemas: each is the very file that this gateway was built for, or the process does not start.

A message is validated by the schema of its own namespace; nothing that a message says about schemas is looked at. What a schema refuses is told by the
field and the rule of XML Schema that it breaks, never by the value: what is refused may hold a person's name or account.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lxml import etree

from lockstep_kit.fields import FieldInvalid

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
HEADER: Final = "head.001.001.02"
RAIL: Final = "urn:lockstep:rail:v1"
MESSAGE: Final = "BusinessMessage"
#: Elements of one message in which the bank may deviate from the schema, where that is agreed.
DEVIATIONS_MAX: Final = 1_000

#: SHA-256 of each official schema that is spoken here, as ISO 20022 publishes it.
PINNED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "head.001.001.02": "730d4f342859b57be250b4215973adc36c7e60b0c48f171e1b4b5584dc355247",
        "pacs.008.001.13": "118183330dbdded59219efac775149660d7d32527cadc218ca5d97df07f2f481",
        "pacs.002.001.15": "0fdced4d1479741a0eeedad1ec36d1b1f2da4dfc1b0b0ad9b14808d45ccb06f3",
        "pacs.028.001.06": "a577cf53f331041db89df640edc298d563657de1e4060d266966ae6ff0f1734c",
        "camt.056.001.11": "4bb0e2311902b4bddba8b2cf55d4a58407ae140a0eb3005cdea0cdc0ccd6cadd",
        "camt.029.001.13": "1b599353ec5d9492e0983a9c028fd1f1175324f51dc0b87d0c8990bf270ac171",
        "camt.053.001.13": "0b2fb63eb1bc61a62fac95af8d4033d28475ed3c92379268a66064807de0c3b1",
        "camt.054.001.13": "45027b1e058a670818068e10323a9a89a111afb423f09e0fd59ed1e0ce5d1178",
        "tsin.005.001.01": "c57ad77ae663e2e61366ce9445ac185e984cb1356b4b023b4f9bd1d34241222b",
        "tsrv.001.001.01": "fa447d6d286cb3a3510c2305cdd516e00d844360e4000a697935d47644ddf5e7",
        "tsrv.003.001.01": "862f8c4526f4d30e4a4cc474c337425ca3adfca9904885e572493ee95e4c7fe0",
        "tsrv.004.001.01": "d1d152da0fdec9e8a6cc1489d5d1efe5f08d4aa2418ab90a2ecf42abd6e24b25",
        "tsrv.019.001.01": "5ce2843cb136c9bf1a7e7d91bbf51cd758b603b6ea748a20346629dc85f65030",
        "pacs.009.001.12": "fc0e5c52b27318ec31e3950e3a00022afcfb9143de4e8211cf0514d5743538e0",
        "pacs.004.001.14": "878cab9d95236b25a5d0dc85ec154122c6d1528f8efc5198b2957d938f7f7b12",
        "camt.103.001.03": "2d5f24673a6d6946c430539c56e2c20ac2ffd9c80aceb65df2aa9a65088d5905",
        "camt.049.001.07": "584c7542a1dc7888b14ab05dee0f62ffb2d7e5267579f9639c4d74a0fb411e9c",
        "camt.046.001.08": "af68f584c56750ab979f2223d31dc78436fd94dd456cd03d9e0c20f7585ed298",
        "camt.047.001.08": "71af658fdb35ac33d755ca8f81a6a68728697288285385b98abf34c9763136c5",
        "camt.025.001.09": "09ccbdfaf0b2027de5cab4830a0b59795310d85d95980052926d4bc41cf1a93e",
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

    def require_valid(self, element: etree._Element, deviations: Collection[str] = ()) -> None:
        """Validate an element by the schema of its namespace, which must be one of PINNED.

        An element that breaks it where that is agreed (`deviations`: definition and place) is removed first; what is left must be valid as a whole.

        Raises:
            FieldInvalid: it breaks the schema; field and rule are those of the first finding.
        """
        definition = (etree.QName(element).namespace or "").removeprefix(NAMESPACE)
        for _ in range(DEVIATIONS_MAX):
            with self._lock:
                schema = self._compiled[definition]
                if schema.validate(element):
                    return
                finding = schema.error_log[0]
            broken, place = _place(element, finding.path or "")
            parent = broken.getparent()
            if f"{definition} {place}" not in deviations or broken is element or parent is None:
                break
            parent.remove(broken)
        # SCHEMAV_CVC_PATTERN_VALID is what XML Schema calls cvc-pattern-valid.
        rule = finding.type_name.removeprefix("SCHEMAV_").replace("_", "-").lower()
        raise FieldInvalid(place, f"must be valid by {definition} ({rule})")


def _compiled(path: Path, digest: str) -> etree.XMLSchema:
    octets = path.read_bytes()
    if hashlib.sha256(octets).hexdigest() != digest:
        raise SchemaChanged(f"{path.name} is not the official schema: its SHA-256 is not {digest}")
    return etree.XMLSchema(etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True)))


def _place(element: etree._Element, path: str) -> tuple[etree._Element, str]:
    """The element that a finding is about, and where it is, by names: the path that lxml tells counts elements, as in /*/*[2]/*."""
    steps = [etree.QName(element).localname]
    for step in path.strip("/").split("/")[1:]:
        number = int(step.partition("[")[2].rstrip("]") or 1)
        if not step.startswith("*") or number > len(element):
            break
        element = element[number - 1]
        steps.append(etree.QName(element).localname)
    return element, "/".join(steps)
