"""Looks at the licence of everything that this repository stands on.

    tools/licences.py           prints one line for each that is not allowed or not known; exits 1 if there is one

What is allowed, and what was decided about single packages, is in tools/licences.toml.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from components import Component, LockBroken, components, decided

TOKEN = re.compile(r"[()]|[A-Za-z0-9.+-]+")


def main() -> int:
    """Prints the findings; returns 1 if there is one."""
    try:
        findings = list(findings_of(components(), decided()))
    except LockBroken as error:
        findings = [str(error)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def findings_of(found: Sequence[Component], decisions: dict[str, Any]) -> Iterator[str]:
    """What is wrong, one sentence each: also about decisions that are of no package any more."""
    packages = decisions["packages"]
    for each in found:
        licence = licence_of(each, decisions)
        decision = packages.get(each.name, {})
        if not licence:
            yield f"{each.name} {each.version}: nobody knows its licence; it says: {each.said}"
        elif not decision.get("exception") and not is_allowed(licence, decisions["allowed"]):
            yield f"{each.name} {each.version}: {licence} is not allowed"
        elif decision.get("exception") and is_allowed(licence, decisions["allowed"]):
            yield f"tools/licences.toml: {each.name} needs no exception"
    names = {each.name for each in found}
    for name, decision in packages.items():
        if name not in names:
            yield f"tools/licences.toml: there is no {name} any more"
        if not decision.get("reason") or not decision.get("licence"):
            yield f"tools/licences.toml: {name} has no licence or no reason"
    said = {each.said for each in found}
    yield from (f"tools/licences.toml: nobody says {words!r} any more" for words in decisions["words"] if words not in said)


def licence_of(component: Component, decisions: dict[str, Any]) -> str:
    """SPDX expression: as decided, as the package says, or as its words mean; "" where nobody knows."""
    decision = decisions["packages"].get(component.name)
    return decision["licence"] if decision else component.licence or decisions["words"].get(component.said, "")


def is_allowed(expression: str, allowed: Sequence[str]) -> bool:
    """Whether an SPDX expression lets us: all parts of an AND, one part of an OR. What is no expression does not."""
    tokens = TOKEN.findall(expression)
    if "".join(tokens) != expression.replace(" ", ""):
        return False
    rest = list(reversed(tokens))

    def any_of() -> bool:
        value = all_of()
        while rest and rest[-1].upper() == "OR":
            rest.pop()
            # Both sides are read, whatever the first one says.
            value = all_of() or value
        return value

    def all_of() -> bool:
        value = one()
        while rest and rest[-1].upper() == "AND":
            rest.pop()
            value = one() and value
        return value

    def one() -> bool:
        if not rest:
            return False
        token = rest.pop()
        if token == "(":
            value = any_of()
            return bool(rest) and rest.pop() == ")" and value
        return token in allowed

    value = any_of()
    return value and not rest


if __name__ == "__main__":
    sys.exit(main())
