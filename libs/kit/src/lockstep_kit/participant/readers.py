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
    from collections.abc import Sequence

    import asyncpg

    from lockstep_kit.db import Connection, Database

#: The heads of plans that came with their legs.
READ_BINDINGS: Final = "select plan_id, plan_digest, binding from participant_leg where plan_id = any($1) and binding is not null"


async def parties_of(connection: Connection, plans: Sequence[PlanId]) -> dict[PlanId, frozenset[PartyId]]:
    """The parties of plans; none of a plan that is not known here, or where two plans came under one id."""
    rows: dict[str, list[asyncpg.Record]] = {}
    for row in await connection.fetch(READ_BINDINGS, plans):
        rows.setdefault(row["plan_id"], []).append(row)
    return {plan_id: _parties(rows.get(plan_id, [])) for plan_id in plans}


def _parties(rows: Sequence[asyncpg.Record]) -> frozenset[PartyId]:
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
        if not await self.seen(context, [plan_id]):
            raise not_found("plan", plan_id)

    async def seen(self, context: grpc.aio.ServicerContext[Any, Any], plans: Sequence[PlanId]) -> list[PlanId]:
        """Those of the plans that the caller may read, in their order."""
        _, standing = self._standings.of(context)
        if standing.sees_all:
            return list(plans)
        async with self._db.connection() as connection:
            parties = await parties_of(connection, plans)
        return [plan_id for plan_id in plans if standing.sees(parties[plan_id])]
