"""The model check, as far as every run of the tests makes it; `make test-model` makes all of it."""

from __future__ import annotations

import pytest

from model import promela
from model.checking import MUTANTS, check, mutate

#: Searched to their end in seconds, and between them every stage of a plan's life.
COVERING = ("drafting", "closing", "delegated-three", "unwinding", "restored", "restored-delegated")


@pytest.mark.parametrize("name", COVERING)
def test_rules_hold_in_every_state(name: str) -> None:
    """No state of the configuration breaks a rule, and from each the plan can come to an end or to a person."""
    found = check(name)
    assert found.violation is None, found.trace
    assert found.exhausted
    assert found.states > 1_000


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_seeded_bug_is_caught(name: str) -> None:
    """A bug that is put into production's functions is caught, by the very rule that it breaks."""
    caught = mutate(name)
    assert caught.right, (caught.rule, caught.found.violation, caught.found.trace)


def test_enough_seeded_bugs() -> None:
    """At least twenty different bugs are hunted."""
    assert len(MUTANTS) >= 20


@pytest.mark.skipif(promela.missing() != "", reason="spin and gcc are not both installed")
def test_second_model_holds() -> None:
    """The model in Promela, written by other means, holds too, and one of its bugs is found."""
    assert promela.verify(promela.VERIFIED[1]).errors == 0
    assert promela.verify(promela.BUGS[0]).errors > 0
