"""The table of drills in the package's README."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_every_drill_names_tests_that_are_there() -> None:
    """Each row of the table names a test, and each test that is named exists."""
    table = (HERE.parent / "README.md").read_text().partition("## Drills")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        named = re.findall(r"`([^`]+)::(\w+)`", row)
        assert named, row
        for file, test in named:
            path = ROOT / file if "/" in file else HERE / file
            assert f"async def {test}(" in path.read_text(), f"{file}::{test}"
