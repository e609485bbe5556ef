"""The release of a hold as a file, for counterparties that exchange files: `<ReleaseOrder xmlns="urn:lockstep:rail:v1">`, signed where messages are."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from lxml import etree

from bank_simulator.checks import CheckError, parse_time
from bank_simulator.iso20022.parser import parse
from bank_simulator.iso20022.schemas import RAIL
from bank_simulator.iso20022.signatures import require_signed

ROOT: Final = "ReleaseOrder"
_FIELDS: Final = {
    "Id": r"[\x21-\x7e]{1,128}", "CreDt": r".{1,40}", "Fr": r"[A-Z0-9]{8,11}", "To": r"[A-Z0-9]{8,11}",
    "UETR": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "Key": r"[0-9A-F]{64}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """Who tells whom, under which name, which key of which payment."""

    name: str
    sender: str
    receiver: str
    uetr: UUID
    key: bytes


def read_release(body: bytes, certificates: Collection[str] | None) -> ReleaseOrder | None:
    """A release; None for what is none. With certificates it must be signed with one of them, without them it must not be signed.

    Raises:
        CheckError: It is a release that breaks a rule.
    """
    root = parse(body)
    if root.tag != f"{{{RAIL}}}{ROOT}":
        return None
    if certificates is not None:
        require_signed(root, certificates)
    told = {etree.QName(child).localname: child.text or "" for child in root}
    if list(told) != list(_FIELDS) or len(root) != len(_FIELDS) or root.attrib or any(len(child) for child in root):
        raise CheckError(ROOT, "FIELDS", f"it holds exactly {', '.join(_FIELDS)}, in this order")
    for field, pattern in _FIELDS.items():
        if not re.fullmatch(pattern, told[field]):
            raise CheckError(f"{ROOT}/{field}", "FORM", "it has another form")
    parse_time(f"{ROOT}/CreDt", told["CreDt"])
    return ReleaseOrder(told["Id"], told["Fr"], told["To"], UUID(told["UETR"]), bytes.fromhex(told["Key"]))
