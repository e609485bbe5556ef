"""docs/errors.md lists every reason that the code gives."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
# The tools are scripts beside one another, not a package that could be imported by name.
reasons = importlib.import_module("reasons")


def test_every_reason_is_documented() -> None:
    """A reason that a caller can see stands in a table of docs/errors.md."""
    listed = set(re.findall(r"(?m)^\| ([A-Z][A-Z0-9_]+) \|", (ROOT / "docs" / "errors.md").read_text()))
    given = reasons.reasons()
    missing = {reason: sorted(files) for reason, files in given.items() if reason not in listed}
    assert not missing
    assert len(given) > 50
