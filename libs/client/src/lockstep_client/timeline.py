"""When a plan entered its states, when its legs were voted on and ended, when its gates were signed. Pure but for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockstep_client.convert import state_name
from lockstep_client.documents import gate_document, leg_document, outcome_name
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep.coordinator.v1 import settlement_pb2 as settlement


@dataclass(frozen=True, slots=True)
class Stretch:
    """Something on a track."""

    #: What.
    label: str
    #: When it began, in nanoseconds since 1970.
    start_ns: int
    #: When it ended; the same for a moment.
    end_ns: int


@dataclass(frozen=True, slots=True)
class Track:
    """One line of a timeline."""

    #: What it is about.
    name: str
    #: In the order of their begins.
    stretches: tuple[Stretch, ...]


def timeline(plan: settlement.Plan, transitions: Sequence[settlement.Transition]) -> tuple[str, list[Track]]:
    """How a plan stands, in words, and its tracks: states, legs, gates, escalations."""
    moves = [(state_name(each.to_state), _nanoseconds(each.transition_time)) for each in transitions]
    ends = [*(at for _, at in moves[1:]), moves[-1][1] if moves else 0]
    states = tuple(Stretch(state, start, end) for (state, start), end in zip(moves, ends, strict=True))
    tracks = [Track("states", states)]
    for leg in plan.legs:
        told = leg_document(leg)
        stretches = []
        if leg.HasField("vote"):
            stretches.append(_moment(f"voted {told['vote']['answer']}", leg.vote.vote_time))
        if leg.HasField("outcome"):
            stretches.append(_moment(told["outcome"]["kind"], leg.outcome.outcome_time))
        if leg.HasField("reversal"):
            stretches.append(_moment(told["reversal"]["kind"], leg.reversal.outcome_time))
        tracks.append(Track(f"leg {leg.leg.leg_id} · {leg.participant}", tuple(stretches)))
    for gate in plan.gates:
        told = gate_document(gate)
        tracks.append(Track(f"gate {told['gate']}", (_moment(f"{told['verdict']} by {told['actor_id']}", gate.sign_time),)))
    end = f" / {outcome_name(plan)}" if outcome_name(plan) else ""
    return f"{state_name(plan.state)}{end}", tracks


def _moment(label: str, at: Any) -> Stretch:
    return Stretch(label, _nanoseconds(at), _nanoseconds(at))


def _nanoseconds(at: Any) -> int:
    return int(at.seconds) * 1_000_000_000 + int(at.nanos)
