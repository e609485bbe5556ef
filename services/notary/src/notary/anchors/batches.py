"""Plans in batches: records what is said of them, closes batches, and answers their legs. Holds no rules.

What is said of a plan is stored in the transaction of the command that asks for it. A batch's leaves, their order and its root are stored before anything of
it is sent; then the root is anchored like any other (`carrier`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from lockstep_chain import leg_store
from lockstep_chain.judging import Stuck
from lockstep_chain.legs import WORKING, ContractOperations
from lockstep_contracts.notary import AnchorKind
from lockstep_kit import merkle
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.loops import Soon
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.participant.records import LegKey
from notary.anchors import plan_store, queue
from notary.anchors.queue import AnchorRequest
from notary.anchors.rules import UNKNOWN, Standing, judge, missing, recorded
from notary.operations import RegistryBook

_log = structlog.get_logger()

JUDGED_MAX: Final = 256


class BatchCloser:
    """Closes batches: at so many leaves, or when the first of them has waited so long."""

    def __init__(self, db: Database, leaves_max: int, seconds: float) -> None:
        self._db = db
        self._leaves_max = leaves_max
        self._seconds = seconds

    async def round(self) -> Soon | None:
        """Close every batch that is due; when the next one is."""
        while True:
            async with self._db.connection() as connection:
                waiting = await plan_store.waiting(connection, self._leaves_max, self._seconds)
            due = [kind for kind, seconds in waiting.items() if seconds <= 0]
            if not due:
                return Soon(min(waiting.values())) if waiting else None
            full = [await self._close(kind) for kind in due]
            if not any(full):
                # What another replica is closing meanwhile is looked for again in a moment.
                return Soon(self._seconds / 2)

    async def _close(self, kind: AnchorKind) -> bool:
        """Close one batch of a kind; whether it was full, so that there may be another."""
        async with self._db.transaction() as tx:
            leaves = await plan_store.take_open(tx, kind, self._leaves_max)
            if not leaves:
                return False
            root = merkle.root([merkle.leaf_hash(data) for _, data in leaves])
            await queue.request(tx, [AnchorRequest(kind, root, len(leaves))])
            await plan_store.store_batch(tx, kind, root, [seq for seq, _ in leaves])
            await failpoint("notary.batch.close.in_tx")
        await failpoint("notary.batch.close.after_commit")
        return len(leaves) == self._leaves_max


class NotaryOperations:
    """`Operations` of the notary: legs with entries of their own are the contract's, the others are recorded here."""

    def __init__(self, book: RegistryBook, entries: ContractOperations) -> None:
        self._book = book
        self._entries = entries

    def capabilities(self) -> Capabilities:
        """What the registry allows, and how plans can be anchored."""
        return self._book.capabilities()

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Record what is said of batched plans, and answer those that wait for no block; queue transactions for the others."""
        own = [each for each in work if self._book.has_entry(each)]
        completions = list(await self._entries.begin(tx, own, now)) if own else []
        batched: list[LegWork] = []
        for each in (each for each in work if not self._book.has_entry(each)):
            refusal = self._book.refuses(each) if each.phase is Phase.PREPARING else None
            if refusal is not None:
                completions.append(Completion(each.plan_id, each.leg_id, Finding.VOTED_NO, refusal=refusal))
            else:
                batched.append(each)
        found, _ = await advance(tx, self._book, batched)
        return [*completions, *found]

    def wake(self) -> None:
        """Have what was left taken up. Batches are woken by the database."""
        self._entries.wake()


class BatchJudge:
    """Answers legs of batched plans once what is said of them is anchored; the safety net for all that was lost on the way."""

    def __init__(self, db: Database, engine: ParticipantEngine, book: RegistryBook) -> None:
        self._db = db
        self._engine = engine
        self._book = book

    async def round(self) -> None:
        """Judge every leg of a batched plan that owes an answer."""
        after: LegKey | None = None
        while True:
            async with self._db.connection() as connection:
                # What a transaction carries is none of a batch.
                keys = await leg_store.uncarried(connection, after, JUDGED_MAX)
                work = await self._engine.load(connection, keys, phases=WORKING)
                batched = [each for each in work if not self._book.has_entry(each)]
                known = await _standings(connection, self._book, batched)
            if not keys:
                return
            due = [each for each in batched if _is_due(each, known)]
            if due:
                await self._store(due)
            if len(keys) < JUDGED_MAX:
                return
            after = keys[-1]

    async def _store(self, due: Sequence[LegWork]) -> None:
        async with self._db.transaction() as tx:
            same = await self._engine.hold(tx, due)
            completions, stuck = await advance(tx, self._book, same)
            for each, why in stuck:
                _log.error("leg_stuck", plan_id=each.plan_id, leg_id=each.leg_id, why=why)
                await self._engine.trouble(tx, each.plan_id, each.leg_id, why)
            await self._engine.complete(tx, completions)


async def advance(
    tx: Connection, book: RegistryBook, work: Sequence[LegWork]
) -> tuple[list[Completion], list[tuple[LegWork, str]]]:
    """Record what is missing of the legs' plans; what can be answered now, and what a person must look at."""
    if not work:
        return [], []
    await plan_store.lock_plans(tx, [each.binding.header.digest for each in work])
    known = await _standings(tx, book, work)
    sayings = []
    completions: list[Completion] = []
    stuck: list[tuple[LegWork, str]] = []
    for each in work:
        digest = each.binding.header.digest
        new = missing(each, known.get(digest, UNKNOWN))
        sayings += [(each.plan_id, saying) for saying in new]
        known[digest] = recorded(known.get(digest, UNKNOWN), new)
        match judge(each, known[digest]):
            case Completion() as completion:
                completions.append(completion)
            case Stuck(why):
                stuck.append((each, why))
            case None:
                pass
    if sayings:
        await plan_store.insert_leaves(tx, sayings)
    return completions, stuck


async def _standings(connection: Connection, book: RegistryBook, work: Sequence[LegWork]) -> dict[bytes, Standing]:
    if not work:
        return {}
    digests = [each.binding.header.digest for each in work]
    return await plan_store.standings(connection, digests, book.chain, book.contract)


def _is_due(work: LegWork, known: dict[bytes, Standing]) -> bool:
    standing = known.get(work.binding.header.digest, UNKNOWN)
    return bool(missing(work, standing)) or judge(work, standing) is not None
