"""The official schemas, from the folder that set-up filled and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lxml import etree

from lockstep_kit.fields import FieldInvalid

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
HEADER: Final = "head.001.001.02"
RAIL: Final = "urn:lockstep:rail:v1"
MESSAGE: Final = "BusinessMessage"


class Schemas:
    """Compiled schemas by the name of their message definition; each is read once, when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compiled: dict[str, etree.XMLSchema] = {}

    def require_valid(self, element: etree._Element) -> None:
        """Validate an element by the schema of its namespace.

        Raises:
            FieldInvalid: it breaks the schema; the rule is the first finding.
        """
        definition = (etree.QName(element).namespace or "").removeprefix(NAMESPACE)
        schema = self._schema(definition)
        if not schema.validate(element):
            finding = schema.error_log[0]
            raise FieldInvalid(
                str(finding.path or etree.QName(element).localname), f"must be valid by {definition}: {finding.message}"
            )

    def _schema(self, definition: str) -> etree.XMLSchema:
        if definition not in self._compiled:
            # lxml validates with one schema object in one thread at a time; this process has one event loop.
            self._compiled[definition] = etree.XMLSchema(etree.parse(self._folder / f"{definition}.xsd"))
        return self._compiled[definition]
