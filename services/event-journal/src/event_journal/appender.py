"""The journal's writer: appends batches of events, and closes or votes on the legs whose entries have arrived. Holds no rules.

Locks are taken in one order by everybody: journal legs, chains, the journal's counter, the outcome log's counter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from event_journal import store
from event_journal.appending import Answer, Submission, append, fenced
from event_journal.operations import CAPABILITIES, Sealed, Stuck, Waits, judge_closing, judge_prepare
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.registry import Registry
from lockstep_kit.signing import SigningKey

declare("event-journal.append.before_tx")
declare("event-journal.append.in_tx")
declare("event-journal.append.after_commit")

WORKING: Final = (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING)
ADVANCED_MAX: Final = 256


class JournalOperations:
    """What the journal does when its leg of a plan enters a working phase."""

    def __init__(self, key: SigningKey, registry: Registry) -> None:
        self._key = key
        self._registry = registry
        self._waits = False
        #: Set when legs were begun whose entries are not there yet.
        self.waiting = asyncio.Event()

    def capabilities(self) -> Capabilities:
        """What the journal can do."""
        return CAPABILITIES

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Do at once what can be done; the rest is done when its entries arrive."""
        completions, _ = await self.judge(tx, work, now)
        self._waits = self._waits or len(completions) < len(work)
        return completions

    def wake(self) -> None:
        """Look again at legs that wait: an append that began before theirs did not see them."""
        if self._waits:
            self._waits = False
            self.waiting.set()

    async def judge(
        self, tx: Connection, work: Sequence[LegWork], now: datetime
    ) -> tuple[list[Completion], list[tuple[LegWork, str]]]:
        """What is found of the legs now, and of which of them a person must look."""
        if not work:
            return [], []
        heads = await store.lock_heads(tx, [each.plan_id for each in work])
        completions: list[Completion] = []
        troubles: list[tuple[LegWork, str]] = []
        seals: list[Sealed] = []
        for each in work:
            head = heads[each.plan_id]
            if each.phase is Phase.PREPARING:
                _, chain = await store.whole_chain(tx, each.plan_id) if head.entry_count else (head, [])
                found: Completion | Sealed | Waits | Stuck = judge_prepare(each, chain, head, self._registry)
            else:
                found = judge_closing(each, head, self._key, now)
            match found:
                case Completion():
                    completions.append(found)
                case Sealed():
                    seals.append(found)
                    completions.append(found.completion)
                case Stuck():
                    troubles.append((each, found.why))
                case Waits():
                    pass
        await store.save(tx, [seal.entry for seal in seals], [seal.head for seal in seals])
        return completions, troubles


class Appender:
    """Appends events."""

    def __init__(self, db: Database, engine: ParticipantEngine, operations: JournalOperations, key: SigningKey) -> None:
        self._db = db
        self._engine = engine
        self._operations = operations
        self._key = key

    async def append(self, events: Sequence[Submission]) -> tuple[Answer, ...]:
        """Append a batch in one transaction; each event is answered by itself."""
        plans = [each.event.plan_id for each in events]
        await failpoint("event-journal.append.before_tx")
        async with self._db.transaction() as tx:
            waiting = await store.lock_waiting_legs(tx, plans)
            heads = await store.lock_heads(tx, plans)
            known = await store.known_entries(tx, [each.event for each in events])
            appended = append(events, heads, known, self._key)
            await store.save(tx, appended.entries, appended.heads)
            if waiting:
                await self._advance(tx, await self._engine.load(tx, waiting))
            await failpoint("event-journal.append.in_tx")
        await failpoint("event-journal.append.after_commit")
        return appended.answers

    async def raise_fence(self, plan_id: PlanId, epoch: Epoch) -> None:
        """Raise a chain's fence. Whoever appends to it holds its lock, so that this waits for what is under way."""
        async with self._db.transaction() as tx:
            head = (await store.lock_heads(tx, [plan_id]))[plan_id]
            after = fenced(head, epoch)
            await store.save(tx, [], [after] if after != head else [])

    async def advance(self) -> None:
        """Go on with every leg that owes an answer, as at a restart, a batch at a time."""
        after: tuple[PlanId, LegId] | None = None
        while True:
            async with self._db.transaction() as tx:
                page = await self._engine.working(tx, WORKING, after=after, limit=ADVANCED_MAX)
                if not page:
                    return
                names = [(each.plan_id, each.leg_id) for each in page]
                # Between the reading and the lock a leg may have been answered.
                work = [each for each in await self._engine.load(tx, names, lock=True) if each.phase in WORKING]
                await self._advance(tx, work)
            after = names[-1]

    async def _advance(self, tx: Connection, work: Sequence[LegWork]) -> None:
        now = await store.now(tx)
        completions, troubles = await self._operations.judge(tx, work, now)
        for each, why in troubles:
            await self._engine.trouble(tx, each.plan_id, each.leg_id, why)
        await self._engine.complete(tx, completions)
