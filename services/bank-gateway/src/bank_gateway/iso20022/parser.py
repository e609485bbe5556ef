"""XML from outside, parsed so that nothing but elements, attributes and text can come of it.

Entities, document types, comments and processing instructions are refused outright, before anything is parsed: a comment inside an amount would cut it
short in a parser that keeps it, and an entity would split it in one that does not resolve it.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from lxml import etree

from lockstep_kit.fields import FieldInvalid, require

OCTETS_MAX: Final = 1 << 20
ELEMENTS_MAX: Final = 50_000
ATTRIBUTES_MAX: Final = 64
#: Of all elements together; a message of the largest size has hardly more amounts than this.
ATTRIBUTES_ALL_MAX: Final = 10_000
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
#: Every attribute has one of these; texts seldom do.
_ATTRIBUTE: Final = re.compile(r"""=\s*["']""")
#: Whether an element has more attributes than any may have.
_CROWDED: Final = etree.XPath(f"boolean(descendant-or-self::*[@*[{ATTRIBUTES_MAX + 1}]])")
#: XML 1.0, production 23, of a document in UTF-8.
_DECLARATION: Final = re.compile(
    r"""<\?xml\s+version\s*=\s*(['"])1\.0\1(\s+encoding\s*=\s*(['"])(?i:utf-8)\3)?(\s+standalone\s*=\s*(['"])(yes|no)\5)?\s*\?>"""
)


def parse(octets: bytes) -> etree._Element:
    """The root of a document.

    Raises:
        FieldInvalid: too large, not UTF-8, not well-formed, or with something that no payment message needs.
    """
    require(len(octets) <= OCTETS_MAX, "message", f"must have at most {OCTETS_MAX} octets")
    text = octets.removeprefix(_BYTE_ORDER_MARK)
    try:
        head = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FieldInvalid("message", "must be UTF-8") from error
    require("\x00" not in head, "message", "must be UTF-8")
    require("<!" not in head, "message", "must hold no document type, comment or CDATA section")
    declaration = _DECLARATION.match(head)
    require(declaration is not None or not head.startswith("<?xml "), "message", "must be declared as XML 1.0 in UTF-8")
    require("<?" not in head[declaration.end() if declaration else 0 :], "message", "must hold no processing instruction")
    # In what is well-formed and holds nothing of the above, every "<" begins or ends an element: a crowd is seen before it is made.
    begun = head.count("<") - head.count("</") - (declaration is not None)
    require(begun <= ELEMENTS_MAX, "message", f"must have at most {ELEMENTS_MAX} elements")
    # Every attribute has an equals sign: what has few of these has no crowd.
    signs = head.count("=")
    crowd = (
        next(itertools.islice(_ATTRIBUTE.finditer(head), ATTRIBUTES_ALL_MAX, None), None) if signs > ATTRIBUTES_ALL_MAX else None
    )
    require(crowd is None, "message", f"must have at most {ATTRIBUTES_ALL_MAX} attributes")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
        encoding="utf-8",
    )
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise FieldInvalid("message", f"must be well-formed XML: {error.msg}") from error
    require(not root.getroottree().docinfo.doctype, "message", "must hold no document type")
    crowded = signs > ATTRIBUTES_MAX and _CROWDED(root)
    require(not crowded, "message", f"must have at most {ATTRIBUTES_MAX} attributes on an element")
    return root
