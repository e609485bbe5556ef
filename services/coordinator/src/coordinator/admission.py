"""The caller of each request, and whether it may see or act on the plans that it names.

Asked before anything else about the plans, in one statement whether there are such plans or not, and refused with the same words: from outside nobody can
tell a plan that one may not see from one that is not there. What is remembered lets in and never keeps out: who is refused is refused by the database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import grpc

from coordinator.access import Belonging, Client, may_act, may_create, may_read
from coordinator.store import reading
from lockstep_kit.errors import not_found, permission_denied
from lockstep_kit.ids import PlanId
from lockstep_kit.plan import PlanHeader
from lockstep_kit.rpc.standings import Standings

if TYPE_CHECKING:
    from lockstep_kit.db import Database

#: Plans of which it is remembered whose they are; it never changes.
KNOWN_MAX: Final = 16_384

Context = grpc.aio.ServicerContext[Any, Any]


class Admission:
    """Lets callers to the plans that are theirs."""

    def __init__(self, db: Database, standings: Standings) -> None:
        self._db = db
        self._standings = standings
        #: Whose plans are, of those that were acted on last.
        self._known: OrderedDict[PlanId, Belonging] = OrderedDict()

    def client(self, context: Context) -> Client:
        """Who calls."""
        return Client(*self._standings.of(context))

    async def read(self, context: Context, plan_id: PlanId) -> Client:
        """The caller, who may see the plan.

        Raises:
            LockstepError: PLAN_NOT_FOUND; there is no such plan, or not for this caller.
        """
        client = self.client(context)
        if not await self._let(client, [plan_id], may_read):
            raise not_found("plan", plan_id)
        return client

    async def act(self, client: Client, ids: Collection[PlanId]) -> frozenset[PlanId]:
        """Those among plans on which a client may act; to it the others are not there."""
        known = frozenset(each for each in ids if may_act(client, self._known.get(each)))
        return known | await self._let(client, [each for each in ids if each not in known], may_act)

    def create(self, client: Client, header: PlanHeader) -> None:
        """A client may bring the plan. What it is told depends on its own request and row alone.

        Raises:
            LockstepError: CLIENT_NO_PARTY; it stands for none of the plan's parties.
        """
        if not may_create(client, (each.party_id for each in header.parties)):
            raise permission_denied("CLIENT_NO_PARTY", "this client stands for none of the plan's parties")

    async def _let(
        self, client: Client, ids: Collection[PlanId], may: Callable[[Client, Belonging | None], bool]
    ) -> frozenset[PlanId]:
        if not ids:
            return frozenset()
        async with self._db.connection() as connection:
            belongings = await reading.belongings(connection, ids)
        self._known.update(belongings)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return frozenset(each for each in ids if may(client, belongings.get(each)))
