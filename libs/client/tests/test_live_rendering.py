"""Live views at any width and moment: what they say is there, fits, and is in the order in which somebody should look at it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console, RenderableType

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import amount_pb2, signature_pb2
from lockstep_client.fitting import left_text, span_text
from lockstep_client.overview import Overview, awaited_people, by_urgency, overview_document, overview_renderable
from lockstep_client.rendering import plan_renderable

WIDTHS = (40, 80, 120, 200)
NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
WIDE = "第一次結算"
ENDS = (leg_pb2.PLAN_OUTCOME_COMMITTED, leg_pb2.PLAN_OUTCOME_COMMITTED, leg_pb2.PLAN_OUTCOME_ABORTED)


def at(moment: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(moment)
    return time


def lines(shown: RenderableType, width: int) -> list[str]:
    """What is shown on a terminal of a width, without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False, legacy_windows=False).print(shown)
    return out.getvalue().splitlines()


def words(shown: RenderableType, width: int) -> str:
    return "".join("".join(lines(shown, width)).split())


def made(number: int, *, left: timedelta = timedelta(minutes=5), who: str = "", ticket: timedelta | None = None) -> settlement.Plan:
    """An open plan that was made an hour ago."""
    plan = settlement.Plan(state=settlement.PLAN_STATE_PREPARED, create_time=at(NOW - timedelta(hours=1)))
    plan.header.plan_id = f"{number:08d}-0000-4000-8000-000000000000"
    plan.header.deadline.CopyFrom(at(NOW + left))
    plan.header.reference = WIDE
    if who:
        plan.waiting.add(kind=settlement.WAITING_KIND_GATE, gate=signature_pb2.GATE_RELEASE, who=[who], signatures_missing=1)
    if ticket is not None:
        plan.escalations.add(escalation_id="e", reason="LEG_UNKNOWN", leg_id="cash", detail="x", raise_time=at(NOW - ticket))
    return plan


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_fits(world: Any, width: int) -> None:
    """Whatever the width, no line is longer, and state, legs, who is awaited, what is left, and the ticket are all there."""
    plan = world.message(state=settlement.PLAN_STATE_PREPARED)
    plan.header.reference = WIDE
    until = at(NOW + timedelta(minutes=4, seconds=10))
    plan.waiting.add(
        kind=settlement.WAITING_KIND_GATE, gate=signature_pb2.GATE_RELEASE, who=[WIDE], signatures_missing=1, until=until
    )
    plan.escalations.add(
        escalation_id="t-1", reason="LEG_UNKNOWN", detail=WIDE * 20, raise_time=at(NOW - timedelta(hours=3, minutes=2))
    )
    shown = plan_renderable(plan, NOW)
    assert max(cell_len(line) for line in lines(shown, width)) <= width
    text = words(shown, width)
    for said in (
        plan.header.plan_id, "PREPARED", WIDE, "4m10sleft", "OPENfor3h2m", "delivery", "payment", "dlt-gateway", "bank-gateway",
    ):  # fmt: skip
        assert said in text, said


def test_limits_run_down(world: Any) -> None:
    """What is left becomes less from moment to moment and is overdue in the end; a picture without a moment says neither."""
    plan = world.message(state=settlement.PLAN_STATE_PREPARED)
    plan.header.deadline.CopyFrom(at(NOW + timedelta(seconds=61)))
    assert "(1m 1s left)" in "\n".join(lines(plan_renderable(plan, NOW), 200))
    assert "(1m 0s left)" in "\n".join(lines(plan_renderable(plan, NOW + timedelta(seconds=1)), 200))
    assert "(9s overdue)" in "\n".join(lines(plan_renderable(plan, NOW + timedelta(seconds=70)), 200))
    still = "\n".join(lines(plan_renderable(plan), 200))
    assert "left" not in still
    assert "overdue" not in still
    closed = world.message(state=settlement.PLAN_STATE_CLOSED, outcome=1)
    assert "deadline" not in "\n".join(lines(plan_renderable(closed, NOW), 200))


def test_spans() -> None:
    """A span is told in its two largest units, and never below nothing."""
    told = {0: "0s", -5: "0s", 59.9: "59s", 60: "1m 0s", 3_599: "59m 59s", 3_600: "1h 0m", 90_000: "1d 1h"}
    assert {seconds: span_text(seconds) for seconds in told} == told
    assert left_text(NOW, NOW) == "0s overdue"


def overview(*plans: settlement.Plan, more: bool = False) -> Overview:
    recent = [settlement.Plan(state=settlement.PLAN_STATE_CLOSED, outcome=outcome) for outcome in ENDS]
    at_risk = operators.AssetAtRisk(amount=amount_pb2.Amount(asset="EUR", minor_units="9875000", scale=2), leg_count=1)
    at_risk.oldest_age.seconds = 125
    return Overview(NOW, plans, more, (operators.EscalationFile(plan_id="p"),), (at_risk,), (*recent, *plans[:1]))


def test_the_most_urgent_is_first() -> None:
    """Open tickets stand first, the oldest of them on top; then what waits for people; each by what is left; the rest after."""
    plans = [
        made(1, left=timedelta(minutes=1)),
        made(2, left=timedelta(minutes=9), who="anna"),
        made(3, left=timedelta(minutes=3), who="bert"),
        made(4, ticket=timedelta(minutes=1)),
        made(5, ticket=timedelta(hours=1)),
        made(6, left=timedelta(seconds=30)),
    ]
    assert [int(each.header.plan_id[:8]) for each in by_urgency(plans)] == [5, 4, 3, 2, 6, 1]
    resolved = made(7, ticket=timedelta(hours=9))
    resolved.escalations[0].resolve_time.CopyFrom(at(NOW))
    assert [int(each.header.plan_id[:8]) for each in by_urgency([*plans, resolved])][:2] == [5, 4]


def test_who_is_awaited() -> None:
    """Each person is counted once a plan, the most awaited first; participants are no people."""
    twice = made(1, who="anna")
    twice.waiting.add(kind=settlement.WAITING_KIND_OPERATORS, who=["anna", "bert"])
    serving = made(3)
    serving.waiting.add(kind=settlement.WAITING_KIND_PARTICIPANT, leg_id="cash", who=["bank-gateway"])
    assert awaited_people([twice, made(2, who="bert"), made(4, who="bert"), serving]) == [("bert", 3), ("anna", 1)]


@pytest.mark.parametrize("width", WIDTHS)
def test_all_plans_fit(width: int) -> None:
    """Whatever the width, no line is longer, ids are whole, and the sums are there."""
    shown = overview_renderable(
        overview(*(made(number, who=WIDE) for number in range(12)), made(99, ticket=timedelta(hours=2)), more=True)
    )
    found = lines(shown, width)
    assert max(cell_len(line) for line in found) <= width
    assert all(any(f"{number:08d}-0000-4000-8000-000000000000" in line for line in found) for number in (*range(12), 99))
    text = words(shown, width)
    for said in (
        "13ormoreopenplans",
        "PREPARED13",
        "2settled(0.2/min),1didnot",
        "98750.00EUR(for2m5s)",
        "1open",
        f"{WIDE}(12)",
        "LEG_UNKNOWNcash",
    ):
        assert said in text, said


def test_scrolling() -> None:
    """What does not fit is counted, above and below."""
    shown = overview(*(made(number) for number in range(10)))
    text = "\n".join(lines(overview_renderable(shown, skip=3, rows_max=4), 120))
    assert "3 above, 3 below" in text
    assert sum(f"{number:08d}-" in text for number in range(10)) == 4
    assert "above" not in "\n".join(lines(overview_renderable(shown), 120))
    assert "0 open plans" in "\n".join(lines(overview_renderable(overview()), 80))


def test_the_same_for_programs() -> None:
    """The document holds every plan in the same order, with what it waits for."""
    document: dict[str, Any] = overview_document(overview(made(1), made(2, who="anna"), made(3, ticket=timedelta(minutes=5))))
    assert [each["plan_id"][:8] for each in document["plans"]] == ["00000003", "00000002", "00000001"]
    assert [each.get("waits_for") for each in document["plans"]] == ["LEG_UNKNOWN cash", "release anna", None]
    assert (document["open"], document["states"], document["awaited"]) == (3, {"PREPARED": 3}, {"anna": 1})
    assert document["recent"] == {"minutes": 10, "made": 4, "settled": 2, "did_not_settle": 1}
