"""Takes up legs that no transaction carries since they began (`legs`), as many together as there are, and has them carried. Holds no rules.

A leg whose preconditions can be asked about is inspected first (`inspecting`); the others go at once. Which transaction carries which legs is stored in the
database transaction that queues it. A leg that went on meanwhile, or that another replica took up, is left alone. What is here after a crash is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep_chain import leg_store
from lockstep_chain.book import ContractBook
from lockstep_chain.inspecting import LegInspector
from lockstep_chain.legs import WORKING, ContractOperations
from lockstep_kit.db import Database
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.loops import Soon
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.participant.records import LegKey
from lockstep_kit.statements import Refusal

CARRIED_MAX: Final = 512


class LegCarrier:
    """Has legs carried that have begun a phase."""

    def __init__(
        self,
        db: Database,
        engine: ParticipantEngine,
        book: ContractBook,
        inspector: LegInspector | None,
        operations: ContractOperations,
    ) -> None:
        self._db = db
        self._engine = engine
        self._book = book
        self._inspector = inspector
        self._operations = operations

    async def round(self) -> Soon | None:
        """Have everything carried that waits; where more is worth waiting for, in how long."""
        seconds = self._operations.pause()
        if seconds > 0:
            return Soon(seconds)
        after: LegKey | None = None
        while True:
            async with self._db.connection() as connection:
                keys = await leg_store.uncarried(connection, after, CARRIED_MAX)
                work = await self._engine.load(connection, keys, phases=WORKING)
            if not keys:
                return None
            own = [each for each in work if self._book.has_entry(each)]
            if own:
                self._operations.sent()
                await self._take_up(own)
            if len(keys) < CARRIED_MAX:
                return None
            after = keys[-1]

    async def _take_up(self, work: Sequence[LegWork]) -> None:
        if self._inspector is None:
            await self._carry(work, {})
            return
        # What is committed does not wait for what is asked about.
        await self._carry([each for each in work if each.phase is not Phase.PREPARING], {})
        begun = [each for each in work if each.phase is Phase.PREPARING]
        await self._carry(begun, await self._inspector.objections(begun))

    async def _carry(self, work: Sequence[LegWork], objections: dict[LegKey, Refusal]) -> None:
        if not work:
            return
        async with self._db.transaction() as tx:
            same = await self._engine.hold(tx, work)
            known = await leg_store.last_orders(tx, same)
            waiting = [each for each in same if (each.plan_id, each.leg_id) not in known]
            names = {(each.plan_id, each.leg_id) for each in waiting}
            refused = [Completion(*key, Finding.VOTED_NO, refusal=why) for key, why in objections.items() if key in names]
            accepted = [(each, 1) for each in waiting if (each.plan_id, each.leg_id) not in objections]
            await self._operations.carry(tx, accepted)
            await self._engine.complete(tx, refused)
