"""The official schemas, and validation against them in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lxml import etree

from bank_simulator.checks import CheckError
from bank_simulator.domain import (
    BOOKING,
    CANCELLATION,
    INSTITUTION_PAYMENT,
    PAYMENT,
    RECEIPT,
    RESERVATION,
    RESERVATION_DELETION,
    RESERVATION_QUERY,
    RESERVATION_REPORT,
    RESOLUTION,
    RETURN,
    STATEMENT,
    STATUS,
    STATUS_QUERY,
)
from bank_simulator.instruments import APPLICATION, ISSUANCE, NOTIFICATION, TERMINATION, UNDERTAKING_STATUS
from bank_simulator.iso20022.parser import place

HEADER: Final = "head.001.001.02"
NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
RAIL: Final = "urn:lockstep:rail:v1"
TRADE: Final = (APPLICATION, ISSUANCE, NOTIFICATION, TERMINATION, UNDERTAKING_STATUS)
SPOKEN: Final = (
    HEADER, PAYMENT, INSTITUTION_PAYMENT, STATUS, STATUS_QUERY, CANCELLATION, RESOLUTION, BOOKING, STATEMENT, RETURN, RESERVATION,
    RESERVATION_DELETION, RESERVATION_QUERY, RECEIPT, RESERVATION_REPORT, *TRADE,
)  # fmt: skip


class Schemas:
    """The schemas of every message that is spoken here, compiled once. Not for several threads: lxml keeps errors on the schema."""

    def __init__(self, folder: Path) -> None:
        """Compiles all of them.

        Raises:
            OSError: One is not in the folder.
        """
        self._compiled = {NAMESPACE + name: etree.XMLSchema(etree.parse(folder / f"{name}.xsd")) for name in SPOKEN}

    def require_valid(self, element: etree._Element) -> None:
        """An AppHdr or Document that its own schema takes.

        Raises:
            CheckError: The schema refuses it; field and rule are those of the first error.
        """
        schema = self._compiled[etree.QName(element).namespace or ""]
        if schema.validate(element):
            return
        first = schema.error_log[0]
        raise CheckError(_field(element, first.path), f"XSD_{first.type_name.removeprefix('SCHEMAV_')}", first.message[:300])


def _field(root: etree._Element, path: str | None) -> str:
    # The path counts elements from the validated element, which may stand below another root.
    node = root
    for step in (path or "").strip("/").split("/")[1:]:
        number = int(step.partition("[")[2].rstrip("]") or 1)
        if not step.startswith("*") or number > len(node):
            break
        node = node[number - 1]
    return place(node)
