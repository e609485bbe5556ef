"""Canonical bytes: RFC 8785 (JSON Canonicalization Scheme), for everything that is hashed or signed. Pure.

Documents hold objects, arrays, strings, booleans and integers of at most 53 bits: no floats and no null, so that no number can be written in
two ways. Amounts and hashes are strings. A field that is absent is left out, never null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

import orjson
import rfc8785

from lockstep_kit.ids import Digest, sha256

Document: TypeAlias = "str | int | bool | Sequence[Document] | Mapping[str, Document]"

#: First integer that a reader of JSON may round.
_INTEGER_END: Final = 2**53


def canonical(document: Document) -> bytes:
    """RFC 8785 bytes of a document.

    Raises:
        TypeError: the document holds something other than strings, integers, booleans, arrays and objects.
        rfc8785.CanonicalizationError: an integer beyond 53 bits, or a string that is not Unicode.
    """
    # Where all is ASCII, sorting by code points is RFC 8785's order and one spelling is left for each string: a fast writer gives the same bytes.
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS) if _plain(document) else rfc8785.dumps(document)


def _plain(document: object) -> bool:
    """Whether the document is built of ASCII strings, dictionaries, lists, tuples and integers of 53 bits; TypeError if it is no document."""
    if isinstance(document, str):
        return document.isascii()
    if isinstance(document, int):
        return -_INTEGER_END < document < _INTEGER_END
    # Dictionaries and lists are told by their own type: to ask whether something is a Mapping costs ten times as much.
    if isinstance(document, dict) or isinstance(document, Mapping):  # noqa: SIM101
        plain = isinstance(document, dict)
        for key, value in document.items():
            # Most values are strings: they are looked at here, without a call.
            plain = (value.isascii() if type(value) is str else _plain(value)) and plain and isinstance(key, str) and key.isascii()
        return plain
    if isinstance(document, list | tuple) or (isinstance(document, Sequence) and not isinstance(document, bytes | bytearray)):
        plain = isinstance(document, list | tuple)
        for value in document:
            plain = _plain(value) and plain
        return plain
    raise TypeError(f"a canonical document cannot hold {type(document).__name__}")


def digest_of(document: Document) -> Digest:
    """SHA-256 of a document's canonical bytes."""
    return sha256(canonical(document))


def statement(domain: str, document: Document) -> bytes:
    """The bytes that are signed for a document: its domain, a line feed, its canonical bytes.

    The domain keeps a signature made for one purpose from being valid for another.
    """
    return domain.encode("ascii") + b"\n" + canonical(document)


def time_text(moment: datetime) -> str:
    """RFC 3339 text of a moment, always in UTC with six decimals, so that it has one form."""
    if moment.tzinfo is None:
        raise TypeError("a moment without an offset is not a point in time")
    # Four times as fast as strftime, and years before 1000 have their four digits.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def time_from_text(text: str) -> datetime:
    """The moment of `time_text`.

    Raises:
        ValueError: another form.
    """
    moment = datetime.fromisoformat(text)
    # ISO 8601 has many forms of a moment: this one is the only one here.
    if moment.tzinfo is None or time_text(moment) != text:
        raise ValueError(f"not a moment in UTC with six decimals: {text!r}")
    return moment
