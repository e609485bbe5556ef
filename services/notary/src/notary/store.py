"""What the notary reads of its own rows for whoever asks."""

from __future__ import annotations

from typing import Final

from lockstep.type.v1 import outcome_pb2
from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId

#: Digest, vote and outcome of a plan's notarisation; the first leg of the plan that this notary knows.
NOTARISATION: Final = (
    "select plan_digest, vote, outcome from participant_leg where plan_id = $1 and phase is not null order by seq limit 1"
)


async def notarisation(
    connection: Connection, plan_id: PlanId
) -> tuple[bytes, outcome_pb2.SignedVote | None, outcome_pb2.SignedOutcome | None] | None:
    """Plan digest, signed vote and signed outcome of a plan, as far as there are any; None for a plan that is not known."""
    row = await connection.fetchrow(NOTARISATION, plan_id)
    if row is None:
        return None
    vote = outcome_pb2.SignedVote.FromString(row["vote"]) if row["vote"] is not None else None
    outcome = outcome_pb2.SignedOutcome.FromString(row["outcome"]) if row["outcome"] is not None else None
    return row["plan_digest"], vote, outcome
