"""The commands that participants are sent: when one is answered, and when it is repeated. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from coordinator import facts
from coordinator.model import Abort, Commit, Effect, LegState, Order, Prepare, Reverse
from lockstep_kit.certificate import AbortAuthority
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.ports import Closing
from lockstep_kit.reversals import ReverseAuthority
from lockstep_kit.values import dataclass

#: A command that is not answered is repeated, first after about this time, then ever more seldom.
REPEAT_FIRST: Final = timedelta(seconds=2)
REPEAT_MAX: Final = timedelta(seconds=30)
#: Never sooner than this: participants report on their own, and a repeat is only the net below that.
REPEAT_MIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is kept until it is answered."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: PREPARE, COMMIT, ABORT or REVERSE.
    order: Order
    #: COMMIT, delegated: never begun later.
    not_after: datetime | None = None
    #: COMMIT and ABORT of evidence legs.
    closing: Closing | None = None
    #: ABORT and REVERSE: why.
    authority: AbortAuthority | ReverseAuthority | None = None
    #: How often it was sent.
    attempts: int = 0
    #: W3C trace context of the work that ordered it.
    traceparent: str | None = None


def command_of(plan_id: PlanId, effect: Effect) -> Command | None:
    """The command that an effect of the protocol is."""
    match effect:
        case Prepare():
            return Command(plan_id, effect.leg_id, Order.PREPARE)
        case Commit():
            return Command(plan_id, effect.leg_id, Order.COMMIT, not_after=effect.not_after, closing=effect.closing)
        case Abort():
            return Command(plan_id, effect.leg_id, Order.ABORT, closing=effect.closing, authority=effect.authority)
        case Reverse():
            return Command(plan_id, effect.leg_id, Order.REVERSE, authority=effect.authority)
        case _:
            return None


#: (order) -> phases in which nothing more is expected of the participant.
_ANSWERS: Final = {
    Order.NONE: frozenset(Phase),
    Order.PREPARE: frozenset(Phase) - {Phase.PREPARING},
    Order.COMMIT: frozenset({Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED, Phase.REFUSED, Phase.RELEASED}),
    Order.ABORT: frozenset({Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED, Phase.RELEASED}),
}


def answered(leg: LegState) -> bool:
    """Whether the last command about the leg has its answer."""
    if leg.order is Order.REVERSE:
        return not facts.reversing(leg)
    if leg.order is Order.NONE or leg.operators_evidence is not None:
        return True
    return leg.phase is not None and leg.phase in _ANSWERS[leg.order]


def repeat_after(attempts: int, chance: float) -> timedelta:
    """Time until a command is sent again; `chance` in [0, 1) spreads the repeats (full jitter above the least)."""
    most = min(REPEAT_MAX, REPEAT_FIRST * (1 << min(attempts, 10)))
    return REPEAT_MIN + chance * (most - REPEAT_MIN)
