"""The page with plots, the lines for people, and the limits."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lockstep_bench import limits, plot, report
from lockstep_bench.timelines import PHASES, Timeline, Window, told


def level(**changes: Any) -> dict[str, Any]:
    """A level as it is measured."""
    plans = [Timeline(number, number * 0.5, number * 0.5, dict.fromkeys(PHASES, number * 0.5 + 1.0)) for number in range(20)]
    costs = {"processor_seconds_per_settlement": {"coordinator": 0.1, "postgres": 0.2, "total": 0.3}}
    counts = {"commits_per_settlement": {"total": 3.0}, "rpcs_per_settlement": {"total": 2.0}}
    said = told(plans, Window(2.0, 10.0, 12.0))
    kind = {
        "load": "1 at a time",
        "rate": None,
        "concurrency": 1,
        "warm_up_seconds": 2.0,
        "measured_seconds": 8.0,
        "resident_total_mib": 900.0,
    }
    return {**kind, **said, **costs, **counts, **changes}


def result(*levels: dict[str, Any]) -> dict[str, Any]:
    """A result that keeps every limit."""
    return {"cores": 2, "seed": "<1>", "up_seconds": 9.0, "levels": list(levels or [level()])}


def test_the_page_needs_nothing_else_and_is_well_formed() -> None:
    """Nothing is fetched, what comes from outside is escaped, and every drawing is XML with numbers for places."""
    page = plot.page(result(level(), level(load="2 a second", rate=2.0, concurrency=None, over_time=[])))
    assert "src=" not in page
    assert "href=" not in page
    assert "<1>" not in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 7
    for each in drawings:
        ET.fromstring(each)
        assert "nan" not in each
        assert "inf" not in each


def test_bars_are_as_high_as_what_they_show() -> None:
    """A bar of twice the value is twice as high; stacked ones stand upon one another."""
    heights = [
        float(each) for each in re.findall(r'height="([0-9.]+)" fill[^>]*><title>', plot.bars("t", ["a", "b"], {"s": [1.0, 2.0]}))
    ]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    stacked = plot.bars("t", ["a"], {"s": [1.0], "u": [1.0]}, stacked=True)
    (first, second) = (
        float(each) for each in re.findall(r'y="([0-9.]+)" width="[0-9.]+" height="[0-9.]+" fill[^>]*><title>', stacked)
    )
    assert second < first


def test_a_line_is_interrupted_where_there_is_nothing() -> None:
    """No value is made up between two that are there."""
    drawn = plot.lines("t", [0, 1, 2, 3, 4, 5, 6], {"s": [1.0, 2.0, math.nan, 3.0, 4.0, math.nan, 5.0]})
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 1, "what stands alone is a point"


def test_what_was_measured_is_shaded() -> None:
    """The shade has the window's share of the axis."""
    drawn = plot.lines("t", [0, 1, 2, 3, 4], {"s": [1.0] * 5}, (1.0, 3.0))
    whole = plot.lines("t", [0, 1, 2, 3, 4], {"s": [1.0] * 5}, (0.0, 4.0))
    part, all_ = (float(re.findall(r'width="([0-9.]+)" height="[0-9.]+" fill="#eef3f7"', each)[0]) for each in (drawn, whole))
    assert part == pytest.approx(all_ / 2, abs=0.2)


def test_people_see_every_phase_and_every_cost() -> None:
    """The lines of a level name all that is measured of it."""
    said = "\n".join(report.lines(level()))
    for name in (*PHASES, "settlements_per_second", "processor_seconds_per_settlement", "rpcs_per_settlement"):
        assert name in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"up_seconds": 20.1}, "everything up"),
        ({"levels": [level(concurrency=16, resident_total_mib=1229.0)]}, "resident"),
        ({"levels": [level(committed_p50_ms=4001)]}, "COMMITTED"),
        ({"levels": [level(closed_p50_ms=5001)]}, "CLOSED"),
        ({"levels": [level(settlements=0)]}, "settlements"),
        ({"levels": [level(failed=1)]}, "failed"),
        ({"levels": [level(unfinished=1)]}, "unfinished"),
        ({"levels": [level(turned_away=1)]}, "turned away"),
        ({"levels": [level(concurrency=None, overload=True, delivered_share=0.89)]}, "delivered"),
    ],
)
def test_each_limit_is_noticed_when_it_does_not_hold(changes: dict[str, Any], said: str) -> None:
    """One broken limit is told, by its name, and no other."""
    assert limits.broken(result()) == []
    (found,) = limits.broken(result() | changes)
    assert said in found


def test_latency_is_limited_for_one_plan_alone() -> None:
    """Many at a time may take longer."""
    assert limits.broken(result(level(concurrency=64, closed_p50_ms=9000, committed_p50_ms=9000))) == []
