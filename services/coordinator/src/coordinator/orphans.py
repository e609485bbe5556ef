"""What becomes of legs whose plan nobody knows: it was made after the moment to which the coordinator's database was put back. Pure.

Their plan's key is lost with the plan, so that nothing more of it can be executed. As long as nothing shows a decision to commit, and the deadline has
passed, every leg is released: its deadline is the authority that each participant checks by its own clock. Where something shows one, or a leg took
effect, nothing is released: what is held stays held, and a person is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from coordinator.convert.restores import Everything
from coordinator.model import Cause, EventType, State
from coordinator.payloads import COORDINATOR, JournalEvent
from coordinator.restoring import Written
from lockstep_kit.canonical import Document, canonical
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.journal_payloads import VERSION
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import evidence_digest
from lockstep_kit.values import dataclass

#: Phases that only a decision to commit leads to.
_DECIDED: Final = frozenset({Phase.COMMITTING, Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED})
#: Why a plan that was decided is called out.
DECIDED: Final = "ORPHAN_DECIDED"


@dataclass(frozen=True, slots=True)
class Called:
    """A person must look; nothing is released."""

    #: One sentence.
    finding: str


@dataclass(frozen=True, slots=True)
class Waits:
    """Nothing can be done before the deadline."""


@dataclass(frozen=True, slots=True)
class Released:
    """Legs that are to be released now, in this order; none: everything is settled."""

    #: The legs, each with what closes it where it is an evidence leg.
    legs: tuple[tuple[LegId, Closing | None], ...]
    #: Event that the plan's chain lacks before it can be closed; None: none.
    event: JournalEvent | None


def judge(legs: Mapping[LegId, Everything], chain: Sequence[Written], now: datetime) -> Called | Waits | Released:
    """What is to be done about the legs of one plan, all of which were asked about, given its chain in the journal."""
    decided = next((leg_id for leg_id, each in legs.items() if each.report.phase in _DECIDED or each.heard.certificate), None)
    if decided is not None:
        return Called(f"{DECIDED}: leg {decided} was told to execute, and the plan's key is lost; what is held stays held")
    if any(each.type is EventType.PLAN_RELEASED for each in chain) and _last(chain)[1] != State.ABORTED.value:
        return Called(f"{DECIDED}: the journal holds the decision to commit, and the plan's key is lost; what is held stays held")
    if any(now <= each.binding.header.deadline for each in legs.values()):
        return Waits()
    held = [each for each in legs.values() if each.report.phase not in (Phase.RELEASED, Phase.REFUSED)]
    first = [each for each in held if each.binding.leg.kind is not LegKind.JOURNAL]
    if not held:
        return Released((), None)
    transition_no, state = _last(chain)
    event = None
    if chain and state not in (State.ABORTED.value, State.CLOSED.value):
        event = _aborted(chain, transition_no + 1, state)
    closing = Closing(
        outcome=PlanOutcome.ABORTED,
        evidence_digest=evidence_digest([]),
        journal_sequence=len(chain) + (2 if event is not None else 1),
        transition_no=transition_no + (2 if event is not None else 1),
        from_state=State.ABORTED.value,
    )
    # The journal last: it seals.
    order = first or held
    return Released(tuple((each.report.leg_id, None if each.binding.leg.settling else closing) for each in order), event)


def _last(chain: Sequence[Written]) -> tuple[int, str]:
    """Number and state of the last transition in a chain."""
    for entry in reversed(chain):
        transition = entry.document.get("transition")
        if isinstance(transition, Mapping):
            return int(transition["transition_no"]), str(transition["to"])
    return 0, ""


def _aborted(chain: Sequence[Written], transition_no: int, state: str) -> JournalEvent:
    document: dict[str, Document] = {
        "version": VERSION,
        "plan_digest": str(chain[0].document.get("plan_digest", "")),
        "transition": {
            "transition_no": transition_no,
            "from": state,
            "to": State.ABORTED.value,
            "decision": "ABORT",
            "cause": Cause.RESTORED.value,
        },
        "reason": {"reason": "RESTORED_UNDECIDED", "detail": "the plan was lost with the coordinator's database, undecided"},
    }
    return JournalEvent(len(chain) + 1, EventType.PLAN_ABORTED, COORDINATOR, "coordinator", canonical(document))
