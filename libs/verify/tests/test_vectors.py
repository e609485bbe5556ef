"""Both verifiers over every vector: what holds is proved, and every change is found where it was made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lockstep_testkit.bundles.__main__ import unexpected
from lockstep_testkit.bundles.reading import NODE, ROOT, VECTORS, names, second_verifier, vector
from lockstep_testkit.bundles.vectors import vectors
from lockstep_verify.checks import CHECKS
from lockstep_verify.verifying import verify

NAMES = names()


def test_each_vector_is_what_it_was_made_for() -> None:
    """Of a valid bundle nothing fails, and of a changed one exactly the checks that the change was meant for."""
    made = vectors()
    assert [each for each in (unexpected(one, verify(one.bundle, one.trust)) for one in made) if each] == []
    assert sorted(one.name for one in made) == NAMES
    assert all(vector(one.name)[:2] == (one.bundle, one.trust) for one in made)


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_the_one_that_is_kept(name: str) -> None:
    """The report about a vector is the one beside it."""
    bundle, trust, report = vector(name)
    assert verify(bundle, trust) == report


def test_every_check_has_a_vector_that_it_fails() -> None:
    """No check is there that nothing can fail, but those that read what others have proved already."""
    failed = {check["name"] for name in NAMES for check in vector(name)[2].get("checks", ()) if check["result"] == "FAILED"}
    assert {check.name for check in CHECKS} - failed == set()


@pytest.mark.integration
def test_the_second_verifier_says_the_same() -> None:
    """The verifier in JavaScript gives the same report about every vector, down to places and words."""
    reports = second_verifier([(VECTORS / name / "bundle.json", VECTORS / name / "trust.json") for name in NAMES])
    assert {name: report for name, report in zip(NAMES, reports, strict=True) if report != vector(name)[2]} == {}


@pytest.mark.integration
@pytest.mark.parametrize(("name", "code"), [("committed", 0), ("seal-trimmed", 1), ("payload-changed", 1), ("json-cut", 2)])
def test_both_commands(name: str, code: int) -> None:
    """Both commands print the report, and exit with 0 where it is proved, 1 where something fails, 2 where nothing can be read."""
    files = [str(VECTORS / name / "bundle.json"), "--trust", str(VECTORS / name / "trust.json")]
    ours = _run([sys.executable, "-m", "lockstep_verify", *files])
    theirs = _run([*NODE, str(ROOT / "libs" / "verify-js" / "verify.mjs"), *files])
    assert ours.returncode == theirs.returncode == code
    assert ours.stdout == theirs.stdout
    report = vector(name)[2]
    assert report["verdict"] in ours.stdout
    told: Any = json.loads(_run([sys.executable, "-m", "lockstep_verify", *files, "--json"]).stdout)
    assert told == report


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A bundle that cannot be read is no bundle that fails: the exit code says so."""
    assert (
        _run([sys.executable, "-m", "lockstep_verify", str(tmp_path / "none"), "--trust", str(tmp_path / "none")]).returncode == 2
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
