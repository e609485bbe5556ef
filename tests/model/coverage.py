"""Which rows of production's tables no configuration uses. Each that cannot be used is named here with its reason; there are no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from coordinator.model import Cause, State
from coordinator.protocol import TABLE
from lockstep_kit import fence
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Command, Phase
from model.search import Found

Arc = tuple[State, Decision | None, Cause]

_UNASKED: Final = "nobody was asked for anything yet"
_UNCHECKED: Final = "checks are made between PRECONDITIONS_PENDING and READY_FOR_PREPARE, promises looked at when the last is given"
_UNRESTORED: Final = "restores are searched from PREPARED on"

#: Rows that only make the table total.
UNUSED_ARCS: Final[dict[Arc, str]] = {
    **{(state, None, cause): _UNASKED
       for state in (State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING)
       for cause in (Cause.VOTED_NO, Cause.PROMISE_WITHDRAWN)},
    **{(state, None, Cause.CHECK_FAILED): _UNCHECKED for state in (State.DRAFT, State.INITIATED, State.PREPARED)},
    **{(state, None, Cause.RESTORED): _UNRESTORED
       for state in (State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING, State.READY_FOR_PREPARE)},
    (State.PREPARED, None, Cause.VOTED_NO): "every vote is given in PREPARED",
    (State.ABORTED, Decision.COMMIT, Cause.SETTLED_OUTSIDE): "an unwind ends only when nothing is Unknown",
}  # fmt: skip
UNUSED_COMMANDS: Final[dict[tuple[Phase | None, Command], str]] = {}


def unused(found: Iterable[Found]) -> Iterator[str]:
    """One line for every row that no search used, and for every one that was used though it is named above."""
    searches = list(found)
    arcs = {each for search in searches for each in search.arcs}
    commands = {each for search in searches for each in search.commands}
    findings = {each for search in searches for each in search.findings}
    yield from (f"never used: {_words(arc)}" for arc in TABLE if arc not in arcs and arc not in UNUSED_ARCS)
    yield from (f"used after all: {_words(arc)}" for arc in UNUSED_ARCS if arc in arcs)
    yield from (f"never used: {_words(row)}" for row in fence.TABLE if row not in commands and row not in UNUSED_COMMANDS)
    yield from (f"used after all: {_words(row)}" for row in UNUSED_COMMANDS if row in commands)
    yield from (
        f"never used: finding {finding} in {phase}"
        for (phase, finding), entered in fence.FINDINGS.items()
        if (phase, entered) not in findings
    )


def _words(row: tuple[object, ...]) -> str:
    return " ".join(str(each) for each in row)
