"""What is counted of a plan's way, and what is summed of money at risk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from coordinator import metrics
from coordinator.exposure import Doubt, Exposure
from coordinator.model import Cause, Escalate, Moved, State, Ticket
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.ids import LegId
from lockstep_kit.participant.ports import PlanOutcome

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
EUR = AssetId("EUR")
BOND = AssetId("eip155:138/erc20:0x0000000000000000000000000000000000000001")


class Papers:
    """As much of a dossier as is counted."""

    def __init__(self, since: datetime | None, *, outcome: PlanOutcome | None = None, gates: tuple[Any, ...] = ()) -> None:
        self.plan = type("Plan", (), {"since": since, "outcome": outcome, "gates": gates})()
        self.created_at = NOW - timedelta(seconds=100)
        self.traceparent = f"00-{TRACE}-b7ad6b7169203331-01"


def moved(number: int, left: State | None, entered: State) -> Moved:
    return Moved(number, left, entered, None, Cause.EXECUTE_ASKED, number)


def test_states_that_were_left_are_timed_once(shown: CollectorRegistry) -> None:
    """The state that a transaction found took its time, those it passed through took none, and a change of the decision alone leaves none."""

    def read(name: str, **labels: str) -> float:
        return shown.get_sample_value(name, labels) or 0.0

    names = ("lockstep_plan_state_duration_seconds_sum", "lockstep_plan_state_duration_seconds_count")
    states = ("EXECUTING", "VALIDATING")
    before = {(name, state): read(name, state=state) for name in names for state in states}
    effects = [
        moved(6, State.EXECUTING, State.EXECUTING),
        moved(7, State.EXECUTING, State.VALIDATING),
        moved(8, State.VALIDATING, State.COMMITTED),
    ]
    metrics.moved(Papers(NOW - timedelta(seconds=8)), Papers(NOW), effects, NOW)  # type: ignore[arg-type]
    grown = {key: read(key[0], state=key[1]) - value for key, value in before.items()}
    # What other tests have counted is taken off a sum of floats.
    assert grown == pytest.approx(
        {
            (names[0], "EXECUTING"): 8.0,
            (names[0], "VALIDATING"): 0.0,
            (names[1], "EXECUTING"): 1.0,
            (names[1], "VALIDATING"): 1.0,
        }
    )


@pytest.mark.parametrize("outcome", list(PlanOutcome))
def test_a_closing_counts_once_by_its_outcome(shown: CollectorRegistry, outcome: PlanOutcome) -> None:
    """The settlement is counted and timed from its creation, with the trace of it."""
    before = {each: shown.get_sample_value("lockstep_settlements_total", {"outcome": each.value}) or 0.0 for each in PlanOutcome}
    effects = [moved(9, State.COMMITTED, State.CLOSED)]
    metrics.moved(Papers(NOW), Papers(NOW, outcome=outcome), effects, NOW)  # type: ignore[arg-type]
    after = {each: shown.get_sample_value("lockstep_settlements_total", {"outcome": each.value}) or 0.0 for each in PlanOutcome}
    assert {each: after[each] - before[each] for each in PlanOutcome} == {each: float(each is outcome) for each in PlanOutcome}
    families = {family.name: family for family in shown.collect()}
    exemplars = [
        sample.exemplar.labels
        for sample in families["lockstep_settlement_duration_seconds"].samples
        if sample.exemplar is not None and sample.labels["outcome"] == outcome.value
    ]
    assert {"trace_id": TRACE} in exemplars


def test_an_escalation_counts_by_its_reason(shown: CollectorRegistry) -> None:
    """And by nothing that grows with plans."""
    labels = {"reason": "UNKNOWN_TOO_OLD"}
    before = shown.get_sample_value("lockstep_escalations_total", labels) or 0.0
    metrics.moved(Papers(NOW), Papers(NOW), [Escalate(Ticket("UNKNOWN_TOO_OLD", "cash", "detail", NOW))], NOW)  # type: ignore[arg-type]
    assert shown.get_sample_value("lockstep_escalations_total", labels) == before + 1


def exposure(units: int, scale: int, asset: AssetId, seconds: float, doubt: Doubt = Doubt.EXECUTION_UNKNOWN) -> Exposure:
    return Exposure(LegId("leg"), "bank-gateway", Amount(asset, units, scale), doubt, NOW - timedelta(seconds=seconds))


def test_sums_are_exact_by_asset_and_age() -> None:
    """No cent is lost below 2**53, ages fall into their classes at the very second, and what is not there is zero."""
    found = [
        exposure(1, 2, EUR, 299.9),
        *(exposure(10, 2, EUR, 300) for _ in range(3)),
        exposure(98_750_00, 2, EUR, 3_600, Doubt.HELD),
        exposure(10**18 + 1, 18, BOND, 4_000),
    ]
    told = {(each.name, *each.labels): each.value for each in metrics.numbers(found, NOW, (EUR, BOND), cut=False)}
    amounts = {key[1:]: value for key, value in told.items() if key[0] == "lockstep_in_doubt_amount"}
    assert amounts == {
        (EUR, "under_5m"): 0.01,
        (EUR, "under_1h"): 0.30,
        (EUR, "over_1h"): 98_750.0,
        (BOND, "under_5m"): 0.0,
        (BOND, "under_1h"): 0.0,
        (BOND, "over_1h"): 1.0,
    }
    assert told["lockstep_in_doubt_legs", "EXECUTION_UNKNOWN"] == 5
    assert told["lockstep_in_doubt_legs", "HELD"] == 1
    assert told["lockstep_in_doubt_legs", "CONTRADICTED"] == 0
    assert told["lockstep_in_doubt_oldest_age_seconds",] == 4_000
    assert told["lockstep_in_doubt_cut",] == 0


def test_nothing_at_risk_is_zero_and_not_missing() -> None:
    """Every known asset and age, so that an alert sees a change and not an absence."""
    told = metrics.numbers([], None, (EUR,), cut=True)
    assert [each.value for each in told if each.name != "lockstep_in_doubt_cut"] == [0.0] * (3 + len(Doubt) + 1)
    assert told[-1].value == 1.0
