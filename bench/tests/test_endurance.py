"""What a long load says: each stretch by itself, and the last held against the first."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lockstep_bench.costs import Costs
from lockstep_bench.endurance import COMPARED, RATE_SHARE_MIN, RESIDENT_SHARE_MAX, Reading, broken, told
from lockstep_bench.timelines import PHASES, Timeline

MIB = 2**20


def reading(moment: float, *, seconds: float, commits: int, resident: int) -> Reading:
    """Counters at a moment."""
    used = {"coordinator": seconds, "drivers": 100 * seconds}
    costs = Costs(used, {"coordinator": commits}, {"coordinator": Counter({"CreatePlans": commits})}, {"notary": 0}, 0, {}, 0)
    return Reading(moment, costs, {"chain": round(moment) * MIB, "coordinator": resident * MIB, "postgres": 2 * resident * MIB})


def settled(number: int, intended: float, takes: float = 1.0) -> Timeline:
    """A plan that was closed after so long."""
    return Timeline(number, intended, intended, dict.fromkeys(PHASES, intended + takes))


def stretch(**changes: Any) -> dict[str, Any]:
    """One in which all is well."""
    usual = {
        "begins": 0.0,
        "failed": 0,
        "unfinished": 0,
        "turned_away": 0,
        "gone": [],
        "settlements_per_second": 10.0,
        "resident_own_mib": 100.0,
    }
    return usual | changes


def test_each_stretch_tells_of_its_own_plans_and_costs() -> None:
    """What was settled and used between two readings; the chain's node is shown, and not added to what Lockstep holds."""
    plans = [settled(0, 1.0), settled(1, 8.0, 4.0), settled(2, 11.0), settled(3, 21.0)]
    readings = [
        reading(0.0, seconds=1.0, commits=10, resident=50),
        reading(10.0, seconds=3.0, commits=14, resident=60),
        reading(20.0, seconds=7.0, commits=20, resident=70),
    ]
    first, second = told(plans, readings, 30.0)
    assert (first["settlements"], second["settlements"]) == (1, 2), "each is counted where it was closed"
    assert (first["processor_seconds_per_settlement"]["total"], second["processor_seconds_per_settlement"]["total"]) == (2.0, 2.0)
    assert (first["commits_per_settlement"], second["commits_per_settlement"]) == (4.0, 3.0)
    assert (first["closed_p99_ms"], second["closed_p50_ms"]) == (3970, 1000)
    assert second["resident_mib"] == {"chain": 20.0, "coordinator": 70.0, "postgres": 140.0}
    assert (first["resident_own_mib"], second["resident_own_mib"]) == (180.0, 210.0)


def test_nothing_is_wrong_where_time_changes_nothing() -> None:
    """Even where single stretches differ."""
    assert broken([stretch(settlements_per_second=rate) for rate in (11.0, 9.0, 10.0, 12.0, 8.0, 10.5)]) == []


def test_what_slows_down_or_grows_is_told() -> None:
    """The mean of the last stretches is held against the first ones', and memory at the end against what it was after those."""
    steady = [stretch() for _ in range(COMPARED)]
    slow = stretch(settlements_per_second=10.0 * RATE_SHARE_MIN - 0.1)
    assert broken([*steady, slow, slow, slow]) == ["settlements per second, last of first: 0.890 of at least 0.9"]
    assert broken([*steady, slow, stretch(), stretch()]) == []
    large = stretch(resident_own_mib=100.0 * RESIDENT_SHARE_MAX + 0.1)
    assert broken([*steady, large]) == ["resident memory, last of first: 1.101 of at most 1.1"]
    warming = [stretch(resident_own_mib=size) for size in (70.0, 100.0)]
    assert broken([*warming, stretch(), stretch()]) == []


def test_every_process_must_last() -> None:
    """One that ended by itself is named where it was missed first, though plans settle without it."""
    readings = [reading(moment, seconds=moment, commits=0, resident=50) for moment in (0.0, 10.0, 20.0, 30.0)]
    for each in readings[2:]:
        each.resident.pop("coordinator")  # type: ignore[attr-defined]
    stretches = told([], readings, 30.0)
    assert [each["gone"] for each in stretches] == [[], ["coordinator"], []]
    assert broken([stretch(), stretch(begins=10.0, gone=["coordinator"]), stretch()]) == ["10 s: ended by itself: coordinator"]


def test_every_plan_must_settle() -> None:
    """One that does not breaks the promise, whenever it was."""
    assert broken([stretch(), stretch(begins=300.0, failed=2), stretch()]) == ["300 s: failed: 2 of at most 0"]
    assert broken([stretch(unfinished=1)]) == ["0 s: unfinished: 1 of at most 0"]
