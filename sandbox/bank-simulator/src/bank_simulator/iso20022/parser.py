"""Bytes to a tree, for input that may be hostile.

Guarantees: no entity is expanded, nothing outside the bytes is read, a document type is refused before it is parsed, size, depth and
attributes are limited, and no comment or processing instruction can split a text that is then read in half.
"""

from __future__ import annotations

from typing import Final

from lxml import etree

from bank_simulator.checks import CheckError

MESSAGE_BYTES_MAX: Final = 1024 * 1024
#: No element of the schemas that are spoken here has more than two.
ATTRIBUTES_MAX: Final = 8
FIELD_WHOLE: Final = "BusinessMessage"


def parse(body: bytes) -> etree._Element:
    """The root element of a UTF-8 document.

    Raises:
        CheckError: It is too large, in another encoding, has a document type, is not well-formed, or holds what no message needs.
    """
    if len(body) > MESSAGE_BYTES_MAX:
        raise CheckError(FIELD_WHOLE, "SIZE", f"a message has {MESSAGE_BYTES_MAX} bytes at most")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckError(FIELD_WHOLE, "ENCODING", "a message is UTF-8") from None
    if b"\0" in body:
        raise CheckError(FIELD_WHOLE, "ENCODING", "a message is UTF-8")
    if b"<!DOCTYPE" in body:
        raise CheckError(FIELD_WHOLE, "DOCTYPE", "a message has no document type")
    try:
        root = etree.fromstring(body, _parser())
    except etree.XMLSyntaxError as error:
        raise CheckError(FIELD_WHOLE, "WELL_FORMED", f"not well-formed in line {error.lineno}") from None
    information = root.getroottree().docinfo
    if information.doctype or information.internalDTD is not None:
        raise CheckError(FIELD_WHOLE, "DOCTYPE", "a message has no document type")
    if (information.encoding or "UTF-8").upper() != "UTF-8":
        raise CheckError(FIELD_WHOLE, "ENCODING", "a message is UTF-8")
    _require_plain(root)
    return root


def _parser() -> etree.XMLParser:
    # Comments and instructions are kept so that they can be seen and refused.
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, attribute_defaults=False,
        huge_tree=False, recover=False, remove_comments=False, remove_pis=False,
    )  # fmt: skip


def _require_plain(root: etree._Element) -> None:
    if root.getprevious() is not None or root.getnext() is not None:
        raise CheckError(FIELD_WHOLE, "PLAIN", "a message has no comments or processing instructions")
    for node in root.iter():
        if not isinstance(node.tag, str):
            raise CheckError(FIELD_WHOLE, "PLAIN", "a message has no comments or processing instructions")
        if len(node.attrib) > ATTRIBUTES_MAX:
            raise CheckError(local(node), "ATTRIBUTES", f"an element has {ATTRIBUTES_MAX} attributes at most")


def local(element: etree._Element) -> str:
    """An element's name without its namespace."""
    return etree.QName(element).localname


def place(element: etree._Element) -> str:
    """Where an element is, as people write it: Document/FIToFICstmrCdtTrf/CdtTrfTxInf[2]/ChrgBr."""
    steps = []
    node: etree._Element | None = element
    while node is not None and local(node) != FIELD_WHOLE:
        parent = node.getparent()
        alike = [node] if parent is None else [child for child in parent if child.tag == node.tag]
        steps.append(f"{local(node)}[{alike.index(node) + 1}]" if len(alike) > 1 else local(node))
        node = parent
    return "/".join(reversed(steps))
