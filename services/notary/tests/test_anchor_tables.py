"""The tables of anchors and leaves hold their rules by themselves, whoever writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
import pytest_asyncio

from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.db import Database, violated
from lockstep_kit.ids import PlanId, sha256
from lockstep_testkit.databases import TestDatabase
from notary.anchors import plan_store, queue
from notary.anchors.leaves import Ending, Registration, Saying
from notary.anchors.queue import AnchorConflict, AnchorRequest

PLAN = PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a11")
DIGEST = sha256(b"plan")
ROOT = AnchorRequest(AnchorKind.CHECKPOINT, sha256(b"root"), 7)


@pytest_asyncio.fixture(loop_scope="session")
async def db(database_for: Callable[[str], Awaitable[TestDatabase]]) -> AsyncIterator[Database]:
    database = await Database.connect((await database_for("notary")).settings, application_name="tests")
    yield database
    await database.close()


async def say(db: Database, *sayings: Saying) -> str | None:
    """Record; the name of the rule that is broken."""
    try:
        async with db.transaction() as tx:
            await plan_store.insert_leaves(tx, [(PLAN, each) for each in sayings])
    except asyncpg.IntegrityConstraintViolationError as error:
        return violated(error)
    return None


def ending(outcome: PlanStatus, digest: bytes = DIGEST) -> Ending:
    return Ending(digest, outcome, sha256(b"evidence"))


async def test_a_plan_is_registered_before_it_ends(db: Database) -> None:
    """Only an abort needs no registration, in one statement or in two."""
    for outcome in (PlanStatus.COMMITTED, PlanStatus.MIXED):
        assert await say(db, ending(outcome)) == "plan_leaf_kept"
        assert await say(db, ending(outcome), Registration(DIGEST)) == "plan_leaf_kept"
    assert await say(db, Registration(DIGEST), ending(PlanStatus.COMMITTED)) is None


async def test_an_aborted_plan_is_never_registered(db: Database) -> None:
    """What comes after the end is refused by the database."""
    assert await say(db, ending(PlanStatus.ABORTED)) is None
    assert await say(db, Registration(DIGEST)) == "plan_leaf_kept"


async def test_there_is_one_outcome(db: Database) -> None:
    """A second outcome, the same or another, is refused; so is a second registration."""
    assert await say(db, Registration(DIGEST), ending(PlanStatus.MIXED)) is None
    for outcome in (PlanStatus.MIXED, PlanStatus.ABORTED, PlanStatus.COMMITTED):
        assert await say(db, ending(outcome)) == "plan_leaf_once"
    assert await say(db, Registration(DIGEST)) in ("plan_leaf_once", "plan_leaf_kept")


async def test_of_two_that_contradict_one_another_one_holds(db: Database) -> None:
    """An abort and a registration that come at the same moment: one is recorded alone, or the registration came first."""
    for number in range(20):
        digest = sha256(str(number).encode())
        told = await asyncio.gather(say(db, Registration(digest)), say(db, ending(PlanStatus.ABORTED, digest)))
        async with db.connection() as connection:
            # Numbers are drawn before either waits for the other: they do not say which came first.
            rows = await connection.fetch("select kind from plan_leaf where plan_digest = $1 order by kind", digest)
        kinds = [row["kind"] for row in rows]
        assert list(told) == [None if kinds == [2, 3] else "plan_leaf_kept", None]
        assert kinds in ([2, 3], [3])


async def test_what_was_said_never_changes(db: Database) -> None:
    """Nothing is changed or deleted: the service's role may not, and triggers stop whoever may."""
    await say(db, Registration(DIGEST))
    async with db.transaction() as tx:
        await queue.request(tx, [ROOT])
    changes = [
        "update plan_leaf set leaf_data = ''",
        "delete from plan_leaf",
        "truncate plan_leaf",
        "update anchor set tree_size = 8",
        "delete from anchor",
        "truncate anchor cascade",
    ]
    for change in changes:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction() as tx:
                await tx.execute(change)


async def test_the_owner_cannot_change_it_either(database_for: Callable[[str], Awaitable[TestDatabase]]) -> None:
    """Triggers hold for the owner of the tables too; an anchor that is shown is never shown by something else."""
    database = await database_for("notary")
    db = await Database.connect(database.settings, application_name="tests")
    try:
        await say(db, Registration(DIGEST))
        async with db.transaction() as tx:
            await queue.request(tx, [ROOT])
            await queue.place(tx, [ROOT.root], 17, sha256(b"block"))
    finally:
        await db.close()
    changes = {
        "update plan_leaf set leaf_data = 'other'": "plan_leaf_kept",
        "delete from plan_leaf": "plan_leaf_kept",
        "truncate plan_leaf": "plan_leaf_kept",
        "update anchor set tree_size = 8": "anchor_kept",
        "update anchor set block_number = 18": "anchor_kept",
        "delete from anchor": "anchor_kept",
        "truncate anchor cascade": "anchor_kept",
    }
    async with database.as_owner() as connection:
        for change, rule in changes.items():
            with pytest.raises(asyncpg.IntegrityConstraintViolationError) as caught:
                await connection.execute(change)
            assert violated(caught.value) == rule


async def test_a_root_is_requested_once(db: Database) -> None:
    """The same request again changes nothing; another kind or size of a known root is refused, and queues nothing of its batch."""
    for _ in range(2):
        async with db.transaction() as tx:
            await queue.request(tx, [ROOT])
    other = AnchorRequest(AnchorKind.CHECKPOINT, sha256(b"other"), 7)
    for wrong in (AnchorRequest(AnchorKind.OUTCOMES, ROOT.root, 7), AnchorRequest(AnchorKind.CHECKPOINT, ROOT.root, 8)):
        with pytest.raises(AnchorConflict):
            async with db.transaction() as tx:
                await queue.request(tx, [other, wrong])
    async with db.connection() as connection:
        assert [(each.request, each.order) for each in await queue.due(connection, 10)] == [(ROOT, None)]
        assert await queue.anchored(connection, [ROOT.root]) == {}


async def test_a_request_that_is_rolled_back_is_none(db: Database) -> None:
    """A request belongs to the transaction of whoever makes it."""

    async def refusing() -> None:
        async with db.transaction() as tx:
            await queue.request(tx, [ROOT])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await refusing()
    async with db.connection() as connection:
        assert await queue.due(connection, 10) == []


async def test_a_batch_waits_for_leaves_or_time(db: Database) -> None:
    """Leaves are taken when a batch is full, or when the first has waited; the oldest first."""
    async with db.transaction() as tx:
        await plan_store.insert_leaves(tx, [(PLAN, Registration(sha256(bytes([number])))) for number in range(5)])
    kind = AnchorKind.REGISTRATIONS
    async with db.transaction() as tx:
        for leaves_max, seconds, due in ((6, 3600.0, False), (5, 3600.0, True), (3, 3600.0, True), (6, 0.0, True)):
            waiting = await plan_store.waiting(tx, leaves_max, seconds)
            assert list(waiting) == [kind]
            assert (waiting[kind] <= 0) is due
            assert waiting[kind] <= seconds
        full = await plan_store.take_open(tx, kind, 3)
        assert [data for _, data in full] == [Registration(sha256(bytes([number]))).leaf_data() for number in range(3)]
        async with db.transaction() as other:
            assert len(await plan_store.take_open(other, kind, 6)) == 2
