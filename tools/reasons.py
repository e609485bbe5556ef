"""Finds every reason that the code gives: what callers, people and logs see as UPPER_SNAKE.

A reason is the constant first argument (second, where the status comes first) of the calls below, a member of the enums of rejections, or the first of a
tuple that the protocol's own findings return or yield.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workspace import ROOT

#: Callable -> position of its reason.
CALLS: Final = {
    "NotAuthorised": 0,
    "Refusal": 0,
    "Rejection": 0,
    "CheckFailed": 0,
    "PersonNeeded": 0,
    "Finding": 1,
    "LockstepError": 1,
    "precondition": 0,
    "permission_denied": 0,
    "aborted": 0,
    "unavailable": 0,
    "not_found": 0,
    "_no": 1,
    "call": 1,
}
ENUMS: Final = frozenset({"Rejected", "ItemReason"})
#: Modules whose tuples begin with a reason.
TUPLES: Final = frozenset({"coordinator/facts.py", "coordinator/calls.py"})
_REASON: Final = re.compile(r"[A-Z]+(_[A-Z0-9]+)+|INTERNAL|CANCELLED|DRAINING")
SOURCES: Final = ("libs/kit/src", "libs/chain/src", "services/*/src")


def reasons() -> dict[str, set[str]]:
    """Reason -> files that give it."""
    found: dict[str, set[str]] = {}
    for pattern in SOURCES:
        for folder in ROOT.glob(pattern):
            for path in folder.rglob("*.py"):
                for reason in _in_file(path):
                    found.setdefault(reason, set()).add(str(path.relative_to(ROOT)))
    return found


def _in_file(path: Path) -> Iterator[str]:
    tuples = any(str(path).endswith(name) for name in TUPLES)
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call():
                yield from _texts(_argument(node))
            case ast.ClassDef() if node.name in ENUMS:
                yield from (text for each in node.body if isinstance(each, ast.Assign) for text in _texts(each.value))
            case ast.Tuple(elts=[first, *_]) if tuples and isinstance(first, ast.Constant):
                yield from _texts(first)
            case _:
                pass


def _argument(call: ast.Call) -> ast.expr | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
    place = CALLS.get(name)
    return call.args[place] if place is not None and len(call.args) > place else None


def _texts(node: ast.expr | None) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _REASON.fullmatch(node.value):
        yield node.value
