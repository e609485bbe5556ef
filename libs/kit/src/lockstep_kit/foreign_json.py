"""JSON from outside, read with its nesting bounded. Pure.

How deep the interpreter may go depends on what else is loaded: a library that raises Python's limit of recursion lets `json` exhaust the stack, which ends the
process. So the depth is looked at before anything recurses.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: No document of ours, of a bank or of a node nests as deeply.
DEPTH_MAX: Final = 64

#: Brackets outside of strings. A string that does not end reaches to the end, so that nothing is looked at twice.
_MARKS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class TooDeep(ValueError):
    """The document nests more deeply than any that is meant."""


def read_json(octets: bytes | bytearray) -> Any:
    """The document in UTF-8 bytes.

    Raises:
        ValueError: there is none, or it nests more deeply than `DEPTH_MAX`.
    """
    text = octets.decode("utf-8")
    depth = 0
    for found in _MARKS.finditer(text):
        mark = found[0]
        if mark in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise TooDeep(f"the document nests more than {DEPTH_MAX} deep")
        elif mark in "]}":
            depth -= 1
    return json.loads(text)
