"""The caller of each request, and whether it may see or act on the plan that it names.

Asked before anything else about the plan, in one statement whether there is such a plan or not, and refused with the same words: from outside nobody can
tell a plan that one may not see from one that is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from coordinator.access import Belonging, Client, may_act, may_create, may_read
from coordinator.store import reading
from lockstep_kit.errors import not_found, permission_denied
from lockstep_kit.ids import PlanId
from lockstep_kit.plan import PlanHeader
from lockstep_kit.rpc.standings import Standings

if TYPE_CHECKING:
    from lockstep_kit.db import Database

Context = grpc.aio.ServicerContext[Any, Any]


class Admission:
    """Lets callers to the plans that are theirs."""

    def __init__(self, db: Database, standings: Standings) -> None:
        self._db = db
        self._standings = standings

    def client(self, context: Context) -> Client:
        """Who calls."""
        return Client(*self._standings.of(context))

    async def read(self, context: Context, plan_id: PlanId) -> Client:
        """The caller, who may see the plan.

        Raises:
            LockstepError: PLAN_NOT_FOUND; there is no such plan, or not for this caller.
        """
        return await self._let(context, plan_id, may_read)

    async def act(self, context: Context, plan_id: PlanId) -> Client:
        """The caller, who may act on the plan.

        Raises:
            LockstepError: PLAN_NOT_FOUND; there is no such plan, or not for this caller.
        """
        return await self._let(context, plan_id, may_act)

    def create(self, context: Context, header: PlanHeader) -> Client:
        """The caller, who may bring the plan. What it is told depends on its own request and row alone.

        Raises:
            LockstepError: CLIENT_NO_PARTY; it stands for none of the plan's parties.
        """
        client = self.client(context)
        if not may_create(client, (each.party_id for each in header.parties)):
            raise permission_denied("CLIENT_NO_PARTY", "this client stands for none of the plan's parties")
        return client

    async def _let(self, context: Context, plan_id: PlanId, may: Callable[[Client, Belonging | None], bool]) -> Client:
        client = self.client(context)
        async with self._db.connection() as connection:
            belonging = await reading.belonging(connection, plan_id)
        if not may(client, belonging):
            raise not_found("plan", plan_id)
        return client
