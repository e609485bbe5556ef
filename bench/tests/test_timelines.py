"""What many plans say together."""

from __future__ import annotations

import math
import statistics

import pytest

from lockstep_bench.timelines import PHASES, Timeline, Window, latencies, over_time, percentile, spread, stays, told

WINDOW = Window(begins=2.0, ends=6.0, waited_until=10.0)


def settled(number: int, intended: float, *, late: float = 0.0, takes: float = 1.0) -> Timeline:
    """A plan that took a fifth of its time for each phase."""
    begun = intended + late
    seen = {phase: begun + takes * (index + 1) / len(PHASES) for index, phase in enumerate(PHASES)}
    return Timeline(number, intended, begun, seen)


@pytest.mark.parametrize("percent", [50, 95, 99])
@pytest.mark.parametrize("count", [2, 3, 10, 101, 500])
def test_a_percentile_is_the_one_of_the_standard_library(percent: int, count: int) -> None:
    """Interpolated between neighbours, ends included."""
    values = [((7 * number) % count) ** 1.5 for number in range(count)]
    assert percentile(values, percent) == pytest.approx(statistics.quantiles(values, n=100, method="inclusive")[percent - 1])


def test_a_percentile_of_one_is_that_one_and_of_none_is_none() -> None:
    """Few plans have percentiles too; none have none."""
    assert percentile([3.0], 99) == 3.0
    assert math.isnan(percentile([], 50))
    assert spread("closed", []) == {}


def test_latency_counts_from_the_intended_beginning() -> None:
    """A driver that comes late to a plan hides nothing."""
    (found,) = latencies([settled(0, 3.0, late=2.0)], "closed", WINDOW)
    assert found == pytest.approx(3.0)
    said = told([settled(0, 3.0, late=2.0)], WINDOW)
    assert said["driver_late_max_ms"] == 2000
    assert said["closed_p50_ms"] == 3000


def test_what_never_ended_counts_with_all_the_time_that_it_was_waited_for() -> None:
    """A level in which plans hang has no good percentiles."""
    hanging = Timeline(1, 3.0, 3.0, {"created": 3.1, "executed": 3.2})
    assert latencies([hanging], "closed", WINDOW) == [7.0]
    said = told([settled(0, 3.0), hanging], WINDOW)
    assert (said["unfinished"], said["failed"], said["closed_max_ms"]) == (1, 0, 7000)


def test_what_belongs_to_the_warm_up_is_not_measured() -> None:
    """Plans of the warm-up and of after the load have no part in latencies; closings count where they happen."""
    plans = [settled(0, 1.5), settled(1, 3.0), settled(2, 5.5), settled(3, 6.5)]
    said = told(plans, WINDOW)
    assert said["begun"] == 2
    assert said["settlements"] == 2, "the first was closed inside, the third after"
    assert said["settlements_per_second"] == 0.5


def test_failures_are_told_and_have_no_latency() -> None:
    """A plan that was refused is not a quick one."""
    refused = Timeline(1, 3.0, 3.0, {}, failure="RESOURCE_EXHAUSTED")
    said = told([settled(0, 3.0), refused], WINDOW)
    assert (said["failed"], said["unfinished"], said["failures"]) == (1, 0, ["RESOURCE_EXHAUSTED"])
    assert said["closed_p99_ms"] == 1000


def test_what_was_turned_away_has_not_failed() -> None:
    """It is told apart: nothing was promised for it."""
    away = Timeline(1, 3.0, 3.0, {}, failure="OVERLOADED", turned_away=True)
    said = told([settled(0, 3.0), away], WINDOW)
    assert (said["turned_away"], said["failed"], said["unfinished"], said["closed_p99_ms"]) == (1, 0, 0, 1000)
    assert "failures" not in said


def test_what_is_under_way_tells_whether_a_level_was_steady() -> None:
    """Plans that have begun and not ended count, at the window's first moment and at its last; what was refused does not."""
    hanging = [Timeline(number, number * 1.0, number * 1.0) for number in range(6)]
    refused = Timeline(9, 1.0, 1.0, {}, failure="RESOURCE_EXHAUSTED")
    said = told([settled(10, 1.5), *hanging, refused], WINDOW)
    assert (said["under_way_first"], said["under_way_last"]) == (3, 6)


def test_a_state_lasts_until_the_next_is_entered() -> None:
    """Stays come from the coordinator's own times, and only of states that are asked about."""
    plan = settled(0, 3.0)
    plan.entered = {"INITIATED": 3.0, "READY_FOR_PREPARE": 3.1, "PREPARED": 3.6, "EXECUTING": 4.0, "COMMITTED": 5.0, "CLOSED": 7.0}
    found = {state: round(values[0], 3) for state, values in stays([plan], WINDOW).items()}
    assert found == {"READY_FOR_PREPARE": 0.5, "PREPARED": 0.4, "EXECUTING": 1.0, "COMMITTED": 2.0}


def test_every_plan_is_in_one_second_of_its_beginning_and_one_of_its_closing() -> None:
    """Nothing is counted twice or lost over time; what is empty at the end is not shown."""
    plans = [settled(number, number * 0.13) for number in range(40)]
    found = over_time(plans, WINDOW)
    assert sum(each["begun"] for each in found) == len(plans)
    assert sum(each["closed"] for each in found) == len(plans)
    assert [each["second"] for each in found] == list(range(len(found)))
    assert found[-1]["closed"] > 0
