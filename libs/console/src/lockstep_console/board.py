"""The board: one line for each plan, and the changes from one look to the next, numbered so that a browser that was away is told the rest. Pure.

A cursor is `<epoch>-<number>`. The epoch is drawn when the process starts: what another process numbered means nothing here, and gets the whole board.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.convert import state_name
from lockstep_client.documents import decision_name, outcome_name, phase_name, present, time_text, waiting_document
from lockstep_client.rendering import terms_text

Document = dict[str, Any]
#: The twelve, in the order of docs/protocol.md.
STATES: Final = tuple(state_name(each) for each in settlement.PlanState.values() if each)
#: Changes that are kept for browsers that come back.
CHANGES_MAX: Final = 2_000


def line(plan: settlement.Plan) -> Document:
    """A plan as the board shows it."""
    return present(
        {
            "plan_id": plan.header.plan_id,
            "reference": plan.header.reference,
            "parties": [{"id": each.party_id, "name": each.name} for each in plan.header.parties],
            "state": state_name(plan.state),
            "decision": decision_name(plan),
            "outcome": outcome_name(plan),
            "reason": plan.reason,
            "deadline": time_text(plan.header.deadline),
            "create_time": time_text(plan.create_time) if plan.HasField("create_time") else "",
            "update_time": time_text(plan.update_time) if plan.HasField("update_time") else "",
            "waiting": [waiting_document(each) for each in plan.waiting],
        }
    ) | {
        "legs": [
            present({"leg_id": each.leg.leg_id, "what": terms_text(each), "phase": phase_name(each), "trouble": each.trouble})
            for each in plan.legs
        ],
        "escalations_open": sum(not each.HasField("resolve_time") for each in plan.escalations),
    }


@dataclass(frozen=True, slots=True)
class Change:
    """What is new on the board."""

    #: From 1 on, dense.
    number: int
    #: `plan` or `gone`.
    event: str
    #: The plan's line; of one that is gone its id alone.
    document: Document


class Board:
    """The plans as they were last seen, newest first, and the last changes."""

    def __init__(self, epoch: str, *, changes_max: int = CHANGES_MAX) -> None:
        self._epoch = epoch
        self._etags: dict[str, str] = {}
        self._lines: dict[str, Document] = {}
        self._changes: deque[Change] = deque(maxlen=changes_max)
        self._number = 0
        #: When the plans were looked at last, RFC 3339; "" before the first time.
        self.as_of = ""
        #: Whether older plans are left out.
        self.truncated = False

    def take(self, plans: Iterable[settlement.Plan], *, as_of: str, truncated: bool) -> int:
        """Have seen these plans, newest first; how many changes that made. Of a plan that was delivered twice the first counts."""
        before = self._number
        seen: dict[str, settlement.Plan] = {}
        for plan in plans:
            seen.setdefault(plan.header.plan_id, plan)
        for plan_id in [each for each in self._etags if each not in seen]:
            del self._etags[plan_id], self._lines[plan_id]
            self._change("gone", {"plan_id": plan_id})
        for plan_id, plan in seen.items():
            if self._etags.get(plan_id) != plan.etag:
                self._etags[plan_id], self._lines[plan_id] = plan.etag, line(plan)
                self._change("plan", self._lines[plan_id])
        self._lines = {plan_id: self._lines[plan_id] for plan_id in seen}
        self.as_of, self.truncated = as_of, truncated
        return self._number - before

    def _change(self, event: str, document: Document) -> None:
        self._number += 1
        self._changes.append(Change(self._number, event, document))

    @property
    def number(self) -> int:
        """Of the last change."""
        return self._number

    def cursor(self, number: int) -> str:
        """Where a browser stands that has seen the changes up to this one."""
        return f"{self._epoch}-{number}"

    def place(self, cursor: str) -> int | None:
        """The number of a cursor; None for another process's, and for one that was never given."""
        epoch, _, number = cursor.rpartition("-")
        if epoch != self._epoch or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number) if int(number) <= self._number else None

    def since(self, number: int) -> Sequence[Change] | None:
        """The changes after one; None where some of them are no longer kept, so that the whole board must be told."""
        first = self._changes[0].number if self._changes else self._number + 1
        return None if number + 1 < first else [each for each in self._changes if each.number > number]

    def document(self) -> Document:
        """The whole board."""
        plans = list(self._lines.values())
        return {"as_of": self.as_of, "truncated": self.truncated, "counts": counts(plans), "states": list(STATES), "plans": plans}


def counts(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many plans stand in each state, every state named."""
    found = dict.fromkeys(STATES, 0)
    for each in lines:
        found[each["state"]] = found.get(each["state"], 0) + 1
    return found
