"""What the coordinator shows: settlements as they move, counted where they move; and what is open, read from rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from coordinator import exposure
from coordinator.dossier import Dossier
from coordinator.exposure import Doubt, Exposure
from coordinator.model import Effect, Escalate, Moved, State
from coordinator.store import plans, readings
from lockstep_kit.db import Connection
from lockstep_kit.metrics.definitions import Definition, Kind
from lockstep_kit.metrics.instruments import Instruments, exemplar
from lockstep_kit.metrics.readings import Connected, Sampled
from lockstep_kit.metrics.serving import Metrics
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.statements import Gate

INSTRUMENTS: Final = Instruments()
_TRANSITIONS: Final = INSTRUMENTS.counter(
    "lockstep_plan_transitions_total", "Transitions of plans, by the states left and entered.", ("left", "entered")
)
_CLOSED: Final = INSTRUMENTS.counter(
    "lockstep_settlements_total",
    "Plans that were closed, by outcome.",
    ("outcome",),
    known=[(outcome.value,) for outcome in PlanOutcome],
)
_PHASES: Final = INSTRUMENTS.histogram(
    "lockstep_plan_state_duration_seconds", "How long plans stayed in a state that they left, in seconds.", ("state",)
)
_SETTLEMENTS: Final = INSTRUMENTS.histogram(
    "lockstep_settlement_duration_seconds", "From a plan's creation to its closing, by outcome, in seconds.", ("outcome",)
)
_GATES: Final = INSTRUMENTS.histogram(
    "lockstep_gate_wait_seconds",
    "From a plan's entering the state in which a gate is signed to a signature, in seconds; an approval's includes the votes.",
    ("gate",),
)
_ESCALATIONS: Final = INSTRUMENTS.counter("lockstep_escalations_total", "Escalations that were raised, by reason.", ("reason",))
TAKEOVERS: Final = INSTRUMENTS.counter(
    "lockstep_lease_takeovers_total", "Plans that this replica took over from one that let its lease run out."
)

PLANS_AT_WORK: Final = INSTRUMENTS.gauge("lockstep_plans_at_work", "Plans to which something was done lately, at this replica.")
PLANS_AT_WORK_MAX: Final = INSTRUMENTS.gauge(
    "lockstep_plans_at_work_max", "Plans that this replica works on at a time at the most, as things are."
)
TURNED_AWAY: Final = INSTRUMENTS.counter(
    "lockstep_plans_turned_away_total",
    "Plans that clients were told to bring or to start later, since more was under way than goes through.",
)

HEARD: Final = INSTRUMENTS.gauge(
    "lockstep_participant_heard_timestamp_seconds",
    "When this replica last took what a participant shows of its outcome log, with or without news, Unix time in seconds; before the first, its start.",
    ("participant",),
)

_PEOPLES_GATES: Final = frozenset({Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE})

#: What is at risk for a shorter time is what plans do.
ORDINARY_SECONDS: Final = 10.0
#: So many plans at risk are read in one round, a few at a time.
PLANS_MAX: Final = 500
PLANS_AT_ONCE: Final = 25
#: Classes of age, by the seconds that each begins at.
AGES: Final = (("under_5m", 0), ("under_1h", 300), ("over_1h", 3_600))

AMOUNT: Final = Definition(
    "lockstep_in_doubt_amount",
    Kind.GAUGE,
    f"What is at risk for {ORDINARY_SECONDS:.0f} seconds or more, in units of the asset, by asset and age; `lockstep in-doubt` has the exact sums.",
    ("asset", "age"),
)
LEGS: Final = Definition("lockstep_in_doubt_legs", Kind.GAUGE, "Legs whose amounts are at risk, by why.", ("doubt",))
OLDEST: Final = Definition(
    "lockstep_in_doubt_oldest_age_seconds", Kind.GAUGE, "Since when the oldest of them is at risk, in seconds."
)
CUT: Final = Definition(
    "lockstep_in_doubt_cut", Kind.GAUGE, f"1 where more than {PLANS_MAX} plans are at risk, of which these numbers leave some out."
)


def moved(before: Dossier, after: Dossier, effects: Sequence[Effect], now: datetime) -> None:
    """Count what one committed transaction did to a plan; of several transitions in it, all but the first took no time."""
    seen, since = exemplar(after.traceparent), before.plan.since
    for each in effects:
        match each:
            case Moved(left=left, entered=entered):
                _TRANSITIONS.labels("" if left is None else left.value, entered.value).inc()
                if left is not None and left is not entered:
                    _PHASES.labels(left.value).observe(_seconds(since, now), seen)
                    since = now
                if entered is State.CLOSED and left is not State.CLOSED and after.plan.outcome is not None:
                    _CLOSED.labels(after.plan.outcome.value).inc()
                    _SETTLEMENTS.labels(after.plan.outcome.value).observe(_seconds(after.created_at, now), seen)
            case Escalate(ticket=ticket):
                _ESCALATIONS.labels(ticket.reason).inc()
            case _:
                pass
    for gate in after.plan.gates[len(before.plan.gates) :]:
        if gate.signed.statement.gate in _PEOPLES_GATES:
            _GATES.labels(gate.signed.statement.gate.value).observe(_seconds(before.plan.since, gate.at), seen)


def _seconds(since: datetime | None, until: datetime) -> float:
    return 0.0 if since is None else max((until - since).total_seconds(), 0.0)


def metrics(assets: Iterable[str]) -> Metrics:
    """Everything that a coordinator shows, of an installation with these assets."""
    known = tuple(sorted(assets))

    async def read(connection: Connection) -> Sequence[Sampled]:
        ids = await readings.at_risk(connection, ORDINARY_SECONDS, PLANS_MAX + 1)
        found: list[Exposure] = []
        now: datetime | None = None
        for start in range(0, min(len(ids), PLANS_MAX), PLANS_AT_ONCE):
            page = await plans.read(connection, ids[start : min(start + PLANS_AT_ONCE, PLANS_MAX)])
            now = page.now or now
            found.extend(each for dossier in page.dossiers.values() for each in exposure.exposures(dossier))
        return numbers(found, now, known, cut=len(ids) > PLANS_MAX)

    return Metrics((INSTRUMENTS,), (*readings.READINGS, Connected("in_doubt", (AMOUNT, LEGS, OLDEST, CUT), read)))


def numbers(found: Sequence[Exposure], now: datetime | None, assets: Sequence[str], *, cut: bool) -> list[Sampled]:
    """What is at risk, as numbers; sums are exact until they are shown."""
    sums = {(str(asset), age): Decimal(0) for asset in assets for age, _ in AGES}
    legs = dict.fromkeys(Doubt, 0)
    oldest = 0.0
    for each in found:
        seconds = 0.0 if now is None else _seconds(each.since, now)
        place = (str(each.amount.asset), next(age for age, begins in reversed(AGES) if seconds >= begins))
        sums[place] = sums.get(place, Decimal(0)) + Decimal(each.amount.minor_units).scaleb(-each.amount.scale)
        legs[each.doubt] += 1
        oldest = max(oldest, seconds)
    return [
        *(Sampled(AMOUNT.name, place, float(total)) for place, total in sums.items()),
        *(Sampled(LEGS.name, (doubt.value,), float(count)) for doubt, count in legs.items()),
        Sampled(OLDEST.name, (), oldest),
        Sampled(CUT.name, (), float(cut)),
    ]
