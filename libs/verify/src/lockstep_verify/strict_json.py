"""JSON in one reading, and its one writing (RFC 8785). Pure.

A document holds objects, arrays, strings, booleans and integers of at most 53 bits. What two readers could read differently is refused: a key that stands
twice, a number with a fraction or an exponent, null, a string that is not Unicode.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

DEPTH_MAX: Final = 32
_INTEGER_END: Final = 2**53
#: Strings, and what opens and closes lists and objects outside them. A string that never ends reaches to the end, so that nothing is looked at twice.
_MARKS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class NotStrict(ValueError):
    """The bytes are no such document."""


def parse(octets: bytes) -> Any:
    """The document in the bytes.

    Raises:
        NotStrict: there is none.
    """
    try:
        _check_depth(octets)
        value = json.loads(
            octets.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_integer,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
        _check(value)
    except (UnicodeError, ValueError) as error:
        raise NotStrict(str(error)) from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("a key stands twice")
    return found


def _integer(text: str) -> int:
    # A text of any length is no reason to work on it.
    if len(text) > 17 or text == "-0" or not -_INTEGER_END < int(text) < _INTEGER_END:
        raise NotStrict("an integer has at most 53 bits")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise NotStrict(f"{text} is no integer")


def _check(value: Any) -> None:
    if value is None:
        raise NotStrict("null stands for nothing")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict | list):
        for each in value:
            _check(each)
        for each in value.values() if isinstance(value, dict) else ():
            _check(each)


def _check_depth(octets: bytes) -> None:
    """Depth is bounded before anything recurses: how deep the interpreter can go depends on what else is loaded."""
    depth = 0
    for found in _MARKS.finditer(octets):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        if depth > DEPTH_MAX:
            raise NotStrict(f"deeper than {DEPTH_MAX}")


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a document that `parse` returned, or of one like it."""
    return _write(value).encode("utf-8")


def _write(value: Any) -> str:
    if isinstance(value, dict):
        # The RFC sorts by UTF-16 code units, which differs from code points beyond the first plane.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_write(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def statement(octets: bytes, domain: str) -> Any:
    """The document of a signed statement: its domain, a line feed, and RFC 8785 bytes.

    Raises:
        NotStrict: the bytes are no statement of that domain.
    """
    head = domain.encode("ascii") + b"\n"
    if not octets.startswith(head):
        raise NotStrict(f"the statement is not one of {domain}")
    document = parse(octets[len(head) :])
    if canonical(document) != octets[len(head) :]:
        raise NotStrict("the bytes are not the document's RFC 8785 bytes")
    return document
