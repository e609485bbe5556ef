"""When a plan came to what, and what many plans say together: percentiles of latency by phase, throughput, both over time. Pure.

Latency counts from the moment at which the plan was to begin by the schedule, never from the one at which the driver came to it: what a slow answer delays is
slow too (no coordinated omission). A plan that did not come to a phase has waited until the end of the level at least, and counts with that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: What is timed, in order.
PHASES: Final = ("created", "executed", "prepared", "committed", "closed")
PERCENTS: Final = (50, 95, 99)
#: States of which it is told how long plans stayed in them, in order.
STATES: Final = ("READY_FOR_PREPARE", "PREPARED", "EXECUTING", "VALIDATING", "COMMITTED")


@dataclass(slots=True)
class Timeline:
    """One plan. Moments are seconds since the level began."""

    #: Its place in the load.
    number: int
    #: When it was to begin.
    intended: float
    #: When the driver began it.
    begun: float | None = None
    #: Phase -> when whoever waits for it knew: by the answer, or from the watch.
    seen: dict[str, float] = field(default_factory=dict)
    #: State -> when the plan entered it last, by the coordinator's database.
    entered: dict[str, float] = field(default_factory=dict)
    #: Why it did not settle, if it ended otherwise.
    failure: str = ""
    #: Whether that is since it was not taken: more was under way than goes through.
    turned_away: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """What is measured, in seconds since the level began."""

    #: Where the warm-up ends.
    begins: float
    #: Where the load ends.
    ends: float
    #: Until when what was begun was waited for.
    waited_until: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.ends - self.begins

    def holds(self, moment: float) -> bool:
        """Whether a moment is measured."""
        return self.begins <= moment < self.ends


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile, interpolated between neighbours; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def latencies(timelines: Sequence[Timeline], phase: str, window: Window) -> list[float]:
    """Seconds from the intended beginning of each plan of the window to a phase; of those that never came to it, until the end."""
    return [
        each.seen.get(phase, window.waited_until) - each.intended
        for each in timelines
        if window.holds(each.intended) and not each.failure
    ]


def spread(name: str, values: Sequence[float]) -> dict[str, int]:
    """Percentiles and the greatest of seconds, in milliseconds; nothing of nothing."""
    if not values:
        return {}
    found = {f"{name}_p{percent}_ms": round(percentile(values, percent) * 1000) for percent in PERCENTS}
    return found | {f"{name}_max_ms": round(max(values) * 1000)}


def stays(timelines: Sequence[Timeline], window: Window) -> dict[str, list[float]]:
    """State -> how long plans of the window stayed in it, by the coordinator's database: until the next state that they entered."""
    found: dict[str, list[float]] = {}
    for each in timelines:
        if window.holds(each.intended):
            entered = sorted(each.entered.items(), key=lambda item: item[1])
            for (state, since), (_, until) in itertools.pairwise(entered):
                if state in STATES:
                    found.setdefault(state, []).append(until - since)
    return {state: found[state] for state in STATES if state in found}


def closings(timelines: Sequence[Timeline], begins: float, ends: float) -> int:
    """Plans that were seen closed from one moment to another."""
    return sum(begins <= each.seen["closed"] < ends for each in timelines if "closed" in each.seen)


def under_way(timelines: Sequence[Timeline], moment: float) -> int:
    """Plans that were to begin before a moment, and were neither closed nor refused by then."""
    return sum(each.intended < moment <= each.seen.get("closed", moment) for each in timelines if not each.failure)


def over_time(timelines: Sequence[Timeline], window: Window) -> list[dict[str, Any]]:
    """Second by second from the level's beginning: plans that were to begin, plans closed, and the latency of those that were to begin in it."""
    found = []
    for second in range(math.ceil(window.waited_until)):
        begun = [each for each in timelines if second <= each.intended < second + 1]
        closed = closings(timelines, second, second + 1)
        waited = [each.seen.get("closed", window.waited_until) - each.intended for each in begun if not each.failure]
        found.append({"second": second, "begun": len(begun), "closed": closed, **spread("closed", waited)})
    while found and not found[-1]["begun"] and not found[-1]["closed"]:
        found.pop()
    return found


def summary(timelines: Sequence[Timeline], window: Window) -> dict[str, Any]:
    """What the plans of a window say together."""
    measured = [each for each in timelines if window.holds(each.intended)]
    closed = closings(timelines, window.begins, window.ends)
    found: dict[str, Any] = {
        "settlements": closed,
        "settlements_per_second": round(closed / window.seconds, 3),
        "begun": len(measured),
        "unfinished": sum("closed" not in each.seen and not each.failure for each in measured),
        "failed": sum(bool(each.failure) and not each.turned_away for each in measured),
        "turned_away": sum(each.turned_away for each in measured),
        # Alike, the level was steady; where the second is much more, plans came faster than they were settled.
        "under_way_first": under_way(timelines, window.begins),
        "under_way_last": under_way(timelines, window.ends),
    }
    if failures := sorted({each.failure for each in measured if each.failure and not each.turned_away}):
        found["failures"] = failures[:5]
    # How late the driver itself came to what was to begin: where this is long, the driver is measured and not Lockstep.
    found |= spread("driver_late", [each.begun - each.intended for each in measured if each.begun is not None])
    for phase in PHASES:
        found |= spread(phase, latencies(timelines, phase, window))
    found["in_state"] = {state: spread("stay", values) for state, values in stays(timelines, window).items()}
    return found


def told(timelines: Sequence[Timeline], window: Window) -> dict[str, Any]:
    """Everything that the plans of a level say: of its window, and second by second."""
    return {**summary(timelines, window), "over_time": over_time(timelines, window)}
