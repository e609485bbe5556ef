from __future__ import annotations

from pathlib import Path

import pytest

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.metrics.definitions import UNBOUNDED, Definition, Kind, check_all
from lockstep_kit.metrics.instruments import Instruments, exemplar
from lockstep_kit.metrics.server import MetricsServer
from lockstep_kit.metrics.settings import MetricsSettings

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    "definition",
    [
        Definition("plans_open", Kind.GAUGE, ""),
        Definition("lockstep_Plans", Kind.GAUGE, ""),
        Definition("lockstep_plans", Kind.COUNTER, ""),
        Definition("lockstep_plans_total", Kind.GAUGE, ""),
        Definition("lockstep_wait", Kind.HISTOGRAM, ""),
        Definition("lockstep_plans", Kind.GAUGE, "", ("State",)),
        *(Definition("lockstep_plans", Kind.GAUGE, "", (label,)) for label in sorted(UNBOUNDED)),
    ],
)
def test_a_name_without_its_form_or_a_label_without_bounds_is_refused(definition: Definition) -> None:
    """Prefix, `_total` behind counters and nothing else, the unit behind histograms; no plan, leg, person or account as a label."""
    with pytest.raises(FieldInvalid):
        definition.check()


def test_a_name_stands_once() -> None:
    """Two definitions of one name are refused, by name."""
    twice = Definition("lockstep_plans", Kind.GAUGE, "")
    with pytest.raises(FieldInvalid, match="lockstep_plans"):
        check_all([twice, twice])


def test_instruments_are_held_to_the_same_rules() -> None:
    """A group defines what it makes, and makes nothing that breaks a rule."""
    group = Instruments()
    group.counter("lockstep_things_total", "Things.", ("kind",), known=[("a",)])
    assert [each.family for each in group.definitions] == ["lockstep_things"]
    with pytest.raises(FieldInvalid):
        group.gauge("lockstep_things", "Things.", ("plan_id",))


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", {"trace_id": TRACE}),
        (f"00-{TRACE}-b7ad6b7169203331-03", {"trace_id": TRACE}),
        (f"00-{TRACE}-b7ad6b7169203331-00", None),
        (f"00-{TRACE}-b7ad6b7169203331-", None),
        (f"00-{TRACE[1:]}-b7ad6b7169203331-01", None),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_recorded_trace_is_an_exemplar(traceparent: str | None, found: dict[str, str] | None) -> None:
    """A trace that was not sampled cannot be looked up, and what is none is none."""
    assert exemplar(traceparent) == found


def test_metrics_are_off_and_on_loopback_unless_told_otherwise() -> None:
    """Nobody listens by default, and not for others where only a port was set."""
    settings = MetricsSettings()
    assert (settings.port, settings.host, settings.port_file) == (None, "127.0.0.1", None)
    assert MetricsSettings(port=0, port_file=Path("p")).host == "127.0.0.1"


def test_a_server_that_was_not_started_has_no_port() -> None:
    """It is drawn at the start."""
    with pytest.raises(AssertionError):
        _ = MetricsServer("127.0.0.1", 0, bytes).port
