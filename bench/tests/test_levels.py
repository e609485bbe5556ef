"""How levels are laid out."""

from __future__ import annotations

from typing import Any, cast

from lockstep_bench.drivers import Drivers
from lockstep_bench.levels import MEASURED_SECONDS_MAX, SECONDS_PER_PLAN, WARM_UP_SECONDS_MAX, Bench
from lockstep_sandbox.stack import Sandbox


def bench() -> Bench:
    """Levels over nothing."""
    return Bench(cast("Sandbox", None), cast("Drivers", None), seed="1", warm_up_seconds=5.0, seconds=15.0)


def test_a_closed_loop_is_warm_when_its_first_plans_have_ended() -> None:
    """All of them begin at once, and take as long as what was sustained needs for them; within bounds."""
    levels = bench()
    assert levels.load(concurrency=64).warm_up_seconds == 5.0
    levels.sustained = 4.0
    assert levels.load(concurrency=64).warm_up_seconds == 16.0
    assert levels.load(concurrency=8).warm_up_seconds == 5.0
    assert levels.load(concurrency=4_000).warm_up_seconds == WARM_UP_SECONDS_MAX
    assert levels.load(rate=8.0).warm_up_seconds == 5.0


def test_a_closed_loop_is_measured_over_several_of_its_groups() -> None:
    """Where many plans end together, a window of the usual length holds two groups or three; within bounds."""
    levels = bench()
    assert levels.load(concurrency=64).seconds == 15.0
    assert levels.load(concurrency=200).seconds == 200 * SECONDS_PER_PLAN
    assert levels.load(concurrency=4_000).seconds == MEASURED_SECONDS_MAX
    assert levels.load(rate=8.0).seconds == 15.0


def test_no_two_levels_settle_the_same_plans() -> None:
    """Levels that differ in anything draw from seeds of their own, and the same level from the same."""
    levels = bench()
    told: list[dict[str, Any]] = [{"concurrency": 1}, {"concurrency": 2}, {"rate": 1.0}, {"concurrency": 1, "legs": 3}]
    told.append({"concurrency": 1, "name": "again"})
    assert len({levels.load(**each).seed for each in told}) == len(told)
    assert levels.load(**told[0]) == levels.load(**told[0])
