"""An installation of the release before becomes one of this tree's while it works. What happens in which order stands in `scenario`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from upgrades.laid_out import HERE, TELLING, TREE, Release

pytestmark = pytest.mark.integration

SERVICES: Final = ("coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal")
SECONDS_MAX: Final = 1_200.0
STOPPED_SECONDS_MAX: Final = 60.0
SHOWN: Final = 20_000
#: At every stage some plans are begun; fewer than these would say that nobody was there to be disturbed.
PLANS_MIN: Final = 20


def upgraded(before: Release, folder: Path) -> dict[str, Any]:
    """What came to pass in an upgrade under way, run by the release before.

    Raises:
        AssertionError: something did not hold; says what, where the releases' environments differ, and what the programs said last.
    """
    environ = os.environ | {"PYTHONPATH": f"{TELLING}{os.pathsep}{before.path}"}
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, HERE / "scenario.py", folder, before.folder, TREE],
            env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=SECONDS_MAX)
        finally:
            if process.poll() is None:
                # It stops what it has started.
                process.terminate()
                process.wait(STOPPED_SECONDS_MAX)
    assert process.returncode == 0, before.differences() + log.read_text()[-SHOWN:]
    # What the client logs meanwhile stands before it.
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def test_an_installation_is_upgraded_while_plans_settle(before: Release, tmp_path: Path) -> None:
    """Every plan settles once, also those that were held; each release does work of every service; no watcher misses anything."""
    told = upgraded(before, tmp_path)
    assert told["settled"] >= PLANS_MIN
    assert told["events"] > told["settled"]
    assert told["replaced"] == sorted(["monitor", *SERVICES, *(f"{each}-2" for each in SERVICES)])
    assert set(told["done"]) == set(SERVICES)
    for service, shares in told["done"].items():
        assert shares["before"] > 0, (service, told["done"])
        assert shares["this"] > 0, (service, told["done"])
