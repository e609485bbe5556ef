"""The journal's writer: appends batches of events, and closes or votes on the legs whose entries have arrived. Holds no rules.

Locks are taken in one order by everybody: journal legs, chains, the journal's counter, the outcome log's counter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final, Protocol

from event_journal import store
from event_journal.appending import Answer, Submission, append, fenced
from event_journal.grouping import GroupWriter
from event_journal.operations import CAPABILITIES, Sealed, Stuck, Waits, judge_closing, judge_prepare
from event_journal.payload_keys import PayloadVault
from event_journal.signing_keys import SigningKeys
from event_journal.store import Placed
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.registry import Registry

declare("event-journal.append.before_tx")
declare("event-journal.append.in_tx")
declare("event-journal.append.after_commit")

WORKING: Final = (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING)
ADVANCED_MAX: Final = 256


class News(Protocol):
    """Whoever hands on what was appended."""

    def coming(self, placed: Placed) -> AbstractContextManager[None]:
        """These entries are appended if the block ends without an error; else it is not known whether they are."""


class JournalOperations:
    """What the journal does when its leg of a plan enters a working phase."""

    def __init__(self, keys: SigningKeys, registry: Registry, vault: PayloadVault) -> None:
        self._keys = keys
        self._registry = registry
        self._vault = vault
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
        """What is found of the legs now, and of which of them a person must look.

        Raises:
            LockstepError: SIGNING_KEY_REFUSED; a vote, an outcome or a seal would be signed by a key that does not count.
        """
        if not work:
            return [], []
        preparing = {each.plan_id for each in work if each.phase is Phase.PREPARING}
        locked = await store.lock_chains(tx, [each.plan_id for each in work])
        history, heads = await self._keys.require(tx, locked.standing), locked.heads
        chains = await store.whole_chains(tx, sorted(each for each in preparing if heads[each].entry_count), self._vault)
        completions: list[Completion] = []
        troubles: list[tuple[LegWork, str]] = []
        seals: list[Sealed] = []
        for each in work:
            head = heads[each.plan_id]
            if each.phase is Phase.PREPARING:
                _, chain = chains.get(each.plan_id, (head, []))
                found: Completion | Sealed | Waits | Stuck = judge_prepare(each, chain, head, self._registry, history)
            else:
                found = judge_closing(each, head, self._keys.key, now)
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
        await store.save(tx, [seal.entry for seal in seals], [seal.head for seal in seals], self._vault, locked.keys)
        return completions, troubles


class Appender:
    """Appends events: the calls of one process in groups, by one transaction at a time."""

    def __init__(
        self,
        db: Database,
        engine: ParticipantEngine,
        operations: JournalOperations,
        keys: SigningKeys,
        vault: PayloadVault,
        news: News | None = None,
    ) -> None:
        """`news` is told of what was appended."""
        self._db = db
        self._engine = engine
        self._operations = operations
        self._keys = keys
        self._group = GroupWriter(self._write)
        self._vault = vault
        self._news = news

    async def append(self, events: Sequence[Submission]) -> Sequence[Answer]:
        """Append a batch; each event is answered by itself.

        Raises:
            LockstepError: JOURNAL_BUSY; too much waits already. SIGNING_KEY_REFUSED; no key counts by which entries could be signed.
        """
        return await self._group.append(events)

    async def _write(self, events: Sequence[Submission]) -> Sequence[Answer]:
        plans = [each.event.plan_id for each in events]
        await failpoint("event-journal.append.before_tx")
        with contextlib.ExitStack() as told:
            async with self._db.transaction() as tx:
                begun = {each.event.plan_id for each in events if each.event.sequence == 1}
                locked = await store.lock_chains(tx, plans, begun=begun, legs=True)
                await self._keys.require(tx, locked.standing)
                known = await store.known_entries(tx, events, locked.heads)
                appended = append(events, locked.heads, known, self._keys.key)
                placed = await store.save(tx, appended.entries, appended.heads, self._vault, locked.keys)
                if placed is not None and self._news is not None:
                    told.enter_context(self._news.coming(placed))
                if locked.legs:
                    await self._advance(tx, await self._engine.load(tx, locked.legs))
                await failpoint("event-journal.append.in_tx")
        await failpoint("event-journal.append.after_commit")
        return appended.answers

    async def raise_fence(self, plan_id: PlanId, epoch: Epoch) -> None:
        """Raise a chain's fence. Whoever appends to it holds its lock, so that this waits for what is under way."""
        async with self._db.transaction() as tx:
            head = (await store.lock_chains(tx, [plan_id])).heads[plan_id]
            after = fenced(head, epoch)
            await store.save(tx, [], [after] if after != head else [], self._vault, {})

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
