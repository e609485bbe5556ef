"""What every participant shows of its legs, from its rows."""

from __future__ import annotations

from typing import Final

from lockstep_kit.fence import Phase
from lockstep_kit.metrics.readings import Measure, Query
from lockstep_kit.metrics.serving import Metrics

#: Phases in which something is still owed.
OPEN: Final = (Phase.PREPARING, Phase.PREPARED, Phase.COMMITTING, Phase.ABORTING, Phase.REVERSING)

#: Legs that something is still owed for; the index participant_leg_open holds these and no others.
LEGS: Final = Query(
    name="legs",
    statement="""
    select phase, count(*) as legs, extract(epoch from clock_timestamp() - min(phase_since)) as oldest,
        count(*) filter (where trouble <> '') as troubled
    from participant_leg where phase in ('PREPARING', 'PREPARED', 'COMMITTING', 'ABORTING', 'REVERSING') group by phase
    """,
    labels=("phase",),
    measures=(
        Measure("legs", "lockstep_participant_legs", "Legs that something is still owed for, by phase."),
        Measure("oldest", "lockstep_participant_leg_oldest_age_seconds", "Age of the oldest of them in its phase, in seconds."),
        Measure("troubled", "lockstep_participant_legs_troubled", "Those among them that tell of a trouble."),
    ),
    known=tuple((phase.value,) for phase in OPEN),
)


def with_legs(own: Metrics) -> Metrics:
    """A participant's own metrics, with those of its legs."""
    return Metrics(own.instruments, (LEGS, *own.readings))
