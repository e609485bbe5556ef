"""The release before, laid out once for this folder's tests; where the history is not there they are skipped, and say so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from upgrades.laid_out import TREE, NoHistory, Release


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before this tree."""
    try:
        return Release.before(tmp_path_factory.mktemp("before") / "tree")
    except NoHistory as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def this() -> Release:
    """This tree, whose packages are installed."""
    return Release(TREE, "")
