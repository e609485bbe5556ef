"""What happened in a simulation, in its order: virtual time, who, what. Kept as facts, and put into words only when somebody reads it."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog

from lockstep_testkit.simulation.loop import START_SECONDS, VirtualLoop, current_process
from lockstep_testkit.simulation.memory import Key, Row

#: Log lines that no run may have: something that cannot be was seen.
IMPOSSIBLE: Final = frozenset(
    {
        "plan_impossible",
        "report_impossible",
        "batch_taken_apart",
        "reports_taken_apart",
        "group_taken_apart",
        "loop_failed",
        "call_failed",
    }
)
#: Of which table's rows the timeline tells, and what of them.
_TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "plan_transition": ("left_state", "entered_state", "decision", "cause"),
    "gate_signature": ("gate", "verdict", "actor_id"),
    "escalation": ("reason", "leg_id", "detail", "resolved_at"),
    "participant_leg": ("leg_id", "phase", "left_phase", "epoch_counter", "trouble"),
    "lease": ("owner", "generation", "counter"),
    "journal_chain": ("entry_count", "sealed", "frozen"),
}


class Timeline:
    """Facts in their order."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._facts: list[tuple[float, str, str, Mapping[str, Any]]] = []
        #: What the log said that must never be said.
        self.impossible: list[str] = []
        #: Nothing is told any more.
        self.closed = False

    def tell(self, who: str, what: str, /, **about: Any) -> None:
        """Note a fact."""
        self._facts.append((self._loop.time() - START_SECONDS, who, what, about))

    def committed(
        self, database: str, writes: Mapping[str, Mapping[Key, Row | None]], before: Mapping[str, Mapping[Key, Row]]
    ) -> None:
        """Note what a transaction changed that a reader wants to know."""
        for table, names in _TOLD.items():
            for key, row in writes.get(table, {}).items():
                old = before[table].get(key)
                if row is not None and (old is None or any(row[name] != old[name] for name in names)):
                    about = {name: row[name] for name in names if row[name] not in (None, "")}
                    self.tell(database, table, plan=row.get("plan_id", key[0]), **about)

    def log(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        """A processor of structlog: keeps what the code under test says, and prints nothing."""
        if self.closed:
            raise structlog.DropEvent
        process = current_process()
        who = process.name if process is not None else "?"
        what = str(event.pop("event"))
        if what in IMPOSSIBLE and not isinstance(sys.exc_info()[1], OSError):
            error = event.get("exc_info")
            told = repr(error) if isinstance(error, BaseException) else _current_error() if error else event.get("error", "")
            event["error"] = told
            self._note(f"{who}: {what} {event.get('loop', event.get('method', ''))}: {str(told).strip().splitlines()[-1][:300]}")
        self.tell(who, f"{method}: {what}", **event)
        raise structlog.DropEvent

    def _note(self, finding: str) -> None:
        if finding not in self.impossible:
            self.impossible.append(finding)

    def lines(self, plan: str = "") -> list[str]:
        """The facts as text; those of one plan, and of no plan, where one is named."""
        return [
            f"{at:9.3f}  {who:<16} {what} {_text(about)}"
            for at, who, what, about in self._facts
            if not plan or plan in str(about) or not ("plan" in about or "plan_id" in about)
        ]

    def __len__(self) -> int:
        return len(self._facts)


def _current_error() -> str:
    return traceback.format_exc(limit=-4)


def _text(about: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in about.items())


def listen(timeline: Timeline) -> None:
    """Have structlog tell the timeline instead of printing."""
    structlog.configure(
        processors=[timeline.log],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
