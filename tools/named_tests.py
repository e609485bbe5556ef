"""Tests that documentation names as `path::test_name`: each must be there, so that a claim does not outlive the test that shows it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from workspace import ROOT

_NAMED = re.compile(r"`([\w./-]+\.py)::(\w+)`")


def missing(root: Path = ROOT) -> Iterator[str]:
    """A sentence about each test that a page of docs names and that is not there."""
    for page in sorted((root / "docs").rglob("*.md")):
        for path, name in sorted(set(_NAMED.findall(page.read_text()))):
            if name not in _tests(root / path):
                yield f"{page.relative_to(root)} names the test {path}::{name}, which is not there"


@cache
def _tests(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )
