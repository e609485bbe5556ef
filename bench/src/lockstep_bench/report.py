"""A level, for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lockstep_bench.timelines import PERCENTS, PHASES

#: What is told in lines of its own, or is in the file alone.
_APART: Final = (
    "load",
    "rate",
    "concurrency",
    "warm_up_seconds",
    "measured_seconds",
    "overload",
    "over_time",
    "in_state",
    "rpcs_by_method_per_settlement",
)
_COLUMNS: Final = (*(f"p{percent}" for percent in PERCENTS), "max")


def lines(level: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a level."""
    yield f"\n== {level['load']}{', twice what is done' if level.get('overload') else ''} =="
    yield f"  {'milliseconds':36} " + "".join(f"{column:>8}" for column in _COLUMNS)
    for phase in ("driver_late", *PHASES):
        yield f"  {phase:36} " + _columns(level, phase)
    for state, stay in level["in_state"].items():
        yield f"  {f'in {state}':36} " + _columns(stay, "stay")
    timed = {f"{phase}_{column}_ms" for phase in ("driver_late", *PHASES) for column in _COLUMNS}
    for name, value in level.items():
        if name not in _APART and name not in timed:
            told = "  ".join(f"{key} {each:g}" for key, each in value.items()) if isinstance(value, dict) else value
            yield f"  {name:36} {told}"


def _columns(spread: Mapping[str, Any], name: str) -> str:
    return "".join(f"{spread.get(f'{name}_{column}_ms', '-'):>8}" for column in _COLUMNS)
