"""A real node for the contracts' tests, with everything deployed once and each test's changes undone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from contracts_world import Chain, World, running_anvil


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """A fresh node of chain 138."""
    with running_anvil() as url_port:
        yield Chain(url_port)


@pytest.fixture(scope="session")
def deployed(chain: Chain) -> World:
    """Contracts, token and accounts."""
    return World.deploy(chain)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    """The same, as it was when deployed."""
    snapshot = deployed.chain.rpc("evm_snapshot")
    yield deployed
    assert deployed.chain.rpc("evm_revert", snapshot)
