"""For every test of the repository: which of them are integration tests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, and nothing of the code: no test fails because the machine has other things to do.
settings.register_profile("lockstep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lockstep")

#: Fixtures of these packages start real things: databases, a chain, processes.
REAL = ("lockstep_testkit", "lockstep_sandbox")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks as integration tests those that ask for a fixture that starts real things; others may say so themselves."""
    for item in items:
        if isinstance(item, pytest.Function) and any(is_real(item, name) for name in item.fixturenames):
            item.add_marker("integration")


def is_real(item: pytest.Function, name: str) -> bool:
    """Whether a fixture of a test is defined by one of the packages above."""
    definitions = item._fixtureinfo.name2fixturedefs.get(name, ())  # noqa: SLF001 - pytest offers no public way
    return any(definition.func.__module__.startswith(REAL) for definition in definitions)
