"""What a load is made of."""

from __future__ import annotations

import itertools
import statistics
import uuid
from dataclasses import replace

import pytest

from lockstep_bench.schedule import Load, arrivals, work

LOAD = Load(rate=50.0, concurrency=None, warm_up_seconds=10.0, seconds=90.0, grace_seconds=1.0, seed="1")


def test_the_same_seed_gives_the_same_work() -> None:
    """Plans and their moments are those of the seed, and of nothing else."""
    assert arrivals(LOAD) == arrivals(replace(LOAD))
    assert [work("1", number) for number in range(50)] == [work("1", number) for number in range(50)]


def test_another_seed_gives_other_work() -> None:
    """No two seeds share a moment or a plan's id."""
    assert not set(arrivals(LOAD)) & set(arrivals(replace(LOAD, seed="2")))
    assert not {work("1", number).plan_id for number in range(50)} & {work("2", number).plan_id for number in range(50)}


def test_arrivals_come_at_the_rate_and_independently() -> None:
    """Gaps have the rate's mean, and deviate by as much, as a Poisson process' do; all lie within the load."""
    found = arrivals(LOAD)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < LOAD.until
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.1)


def test_a_closed_loop_has_no_arrivals() -> None:
    """Asking for them is a mistake that is told."""
    with pytest.raises(ValueError, match="closed loop"):
        arrivals(replace(LOAD, rate=None, concurrency=4))


def test_plans_have_ids_of_their_own_and_amounts_above_nothing() -> None:
    """Each plan of a seed can be created beside all others, and moves something."""
    found = [work("1", number) for number in range(1_000)]
    assert len({each.plan_id for each in found}) == len(found)
    assert all(uuid.UUID(each.plan_id).version == 7 for each in found)
    assert [each.plan_id for each in found] == sorted(each.plan_id for each in found)
    assert all(0 < float(each.quantity) <= 1 and 0 < float(each.price) <= 25 for each in found)
