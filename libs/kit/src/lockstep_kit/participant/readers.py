"""Who may read what a participant has of a plan: who stands for one of its parties, operators and auditors.

A participant knows a plan's parties from the plan's head, which came with the first command about its leg and which the maker signed. Until then only who
sees every plan is let in. What a caller may not see is refused with the same words, after the same one statement, as what is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from lockstep.participant.v1 import leg_pb2
from lockstep_kit.errors import not_found
from lockstep_kit.ids import PartyId, PlanId
from lockstep_kit.rpc.standings import Standings

if TYPE_CHECKING:
    from lockstep_kit.db import Connection, Database

#: The heads of a plan that came with its legs.
READ_BINDINGS: Final = "select plan_digest, binding from participant_leg where plan_id = $1 and binding is not null"


async def parties_of(connection: Connection, plan_id: PlanId) -> frozenset[PartyId]:
    """A plan's parties; none where the plan is not known here, or where two plans came under one id."""
    rows = await connection.fetch(READ_BINDINGS, plan_id)
    if len({row["plan_digest"] for row in rows}) != 1:
        return frozenset()
    head = leg_pb2.LegBinding.FromString(rows[0]["binding"]).plan
    return frozenset(PartyId(each.party_id) for each in head.parties)


class PlanReaders:
    """Lets callers to what is of the plans that are theirs."""

    def __init__(self, db: Database, standings: Standings) -> None:
        self._db = db
        self._standings = standings

    def sees_all(self, context: grpc.aio.ServicerContext[Any, Any]) -> bool:
        """Whether the caller sees every plan."""
        _, standing = self._standings.of(context)
        return standing.sees_all

    async def admit(self, context: grpc.aio.ServicerContext[Any, Any], plan_id: PlanId) -> None:
        """Nothing, if the caller may read what there is of the plan.

        Raises:
            LockstepError: PLAN_NOT_FOUND; it may not, or there is no such plan.
        """
        _, standing = self._standings.of(context)
        if standing.sees_all:
            return
        async with self._db.connection() as connection:
            parties = await parties_of(connection, plan_id)
        if not standing.sees(parties):
            raise not_found("plan", plan_id)
