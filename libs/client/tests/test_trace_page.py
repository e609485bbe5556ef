"""The waterfall on terminals of any width, and the page that stands alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lockstep_client.timeline import Stretch, Track
from lockstep_client.trace_page import trace_page
from lockstep_client.waterfall import BAR_WIDTH_MIN, TIME_WIDTH, bars, columns, main_trace, without_statements

PLAN = "0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11"
SECOND = 1_000_000_000


def span(name: str, parent: str = "", start: int = 0, end: int = 1, **more: Any) -> dict[str, Any]:
    """A span of the store; times in seconds."""
    times = {"start_unix_nano": start * SECOND, "end_unix_nano": end * SECOND}
    return {"span_id": name, "parent_span_id": parent, "service": "coordinator", "name": name, "status": "unset", **times, **more}


@pytest.mark.parametrize("width", [40, 80, 120, 250])
def test_a_waterfall_fits_its_terminal(width: int) -> None:
    """Service, name, times and bar fit the width where there is room for the narrowest bar, and the name gives way before the bar."""
    lines = bars([span("a" * 60), span("b", "a" * 60)])
    services, names, bar = columns(lines, width)
    assert services == len("coordinator")
    assert bar >= BAR_WIDTH_MIN
    gaps = 9
    assert services + names + 2 * TIME_WIDTH + bar + gaps <= max(width, services + 8 + 2 * TIME_WIDTH + BAR_WIDTH_MIN + gaps)


def test_links_and_lost_parents_are_told() -> None:
    """A span says how many others it links to, and whether its parent is missing."""
    lines = bars([span("a", links=[{"trace_id": "t", "span_id": "s"}]), span("b", "lost")])
    assert [(line.name, line.links, line.adrift) for line in lines] == [("a", 1, False), ("b", 0, True)]


def test_the_plans_own_trace_is_shown() -> None:
    """The trace that the plan names, else the one that tells most of the plan, however large others are."""
    about: dict[str, Any] = {"attributes": {"lockstep.plan_id": PLAN}}
    batch: dict[str, Any] = {"attributes": {"lockstep.plan_ids": ["other", PLAN]}}
    traces = [
        {"trace_id": "large", "spans": [span("a", **batch), span("b"), span("c"), span("d")]},
        {"trace_id": "own", "spans": [span("e", **about), span("f", **about)]},
    ]
    assert main_trace(traces, PLAN)["trace_id"] == "own"
    assert main_trace(traces, PLAN, "large")["trace_id"] == "large"
    assert main_trace(traces, PLAN, "unknown")["trace_id"] == "own"


def test_statements_can_be_left_out() -> None:
    """Database statements are told apart from what they are for."""
    spans = [span("a"), span("b", "a", attributes={"db.system.name": "postgresql"})]
    assert [each["name"] for each in without_statements(spans)] == ["a"]


def test_a_page_stands_alone() -> None:
    """A page says all that the trace does, loads and runs nothing, and shows what services say as text."""
    hostile = "<script>alert(1)</script>"
    spans = [
        span(hostile, start=5, end=9, status="error", attributes={"lockstep.plan_id": PLAN, "a": '"><img src=x>'}),
        span(
            "b",
            hostile,
            6,
            7,
            links=[{"trace_id": "t", "span_id": "s"}],
            events=[{"name": "moved", "attributes": {"to": "CLOSED"}}],
        ),
    ]
    tracks = [
        Track("states", (Stretch("DRAFT", 4 * SECOND, 8 * SECOND), Stretch("CLOSED", 8 * SECOND, 8 * SECOND))),
        Track(f"leg {hostile}", (Stretch("voted YES", 5 * SECOND, 5 * SECOND),)),
    ]
    page = trace_page(PLAN, ("CLOSED / COMMITTED", tracks), {"trace_id": "t" * 32, "spans": spans})
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"<[^>]*\s(src|href|on\w+)\s*=|url\(", page)
    assert "default-src 'none'" in page
    for text in (PLAN, "t" * 32, "CLOSED / COMMITTED", "DRAFT", "voted YES", "&lt;script&gt;", "moved", "lockstep.plan_id"):
        assert text in page
    # From 4 to 9 s: the draft takes the first four fifths, the second span begins at two fifths.
    assert "left:0.000%;width:80.000%" in page
    assert "left:40.000%;width:20.000%" in page
