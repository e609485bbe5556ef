"""Every rule of the monitor is told to people, and what is no alarm says so."""

from __future__ import annotations

import re
from pathlib import Path

from lockstep_monitor.findings import Rule

PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitor.md"


def test_every_rule_is_documented() -> None:
    """Each rule stands in a row of docs/monitor.md, and no row names another; those that only warn say so."""
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| [A-Z]+_", line)]
    named = {name for row in rows for name in re.findall(r"[A-Z]+(?:_[A-Z]+)+", row.split("|")[1])}
    assert named == {rule.value for rule in Rule}
    for row in rows:
        warns = {Rule(name).warns for name in re.findall(r"[A-Z]+(?:_[A-Z]+)+", row.split("|")[1])}
        assert warns == {"(warning)" in row}
