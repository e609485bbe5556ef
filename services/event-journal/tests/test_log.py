"""The log over real mutual TLS and a real database: what is appended comes into the tree, is signed, and is proved; any number of replicas make one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import grpc
import pytest
from journal_world import CALL_SECONDS, JournalWorld, event_of

from lockstep.journal.v1 import journal_reader_service_pb2 as reader_pb2
from lockstep.journal.v1 import journal_reader_service_pb2_grpc, log_pb2
from lockstep_kit import merkle, notes
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.ids import Digest
from lockstep_testkit.factories import PlanCase, delivery_versus_payment, key_of
from lockstep_testkit.participants import CLIENT, COORDINATOR, ParticipantProcess

NOTARY = "spiffe://lockstep.local/notary"
ORIGIN = "lockstep.local/journal"
KEY = key_of("event-journal").public
#: Longest until what was appended is in a published checkpoint, also on a busy machine.
PUBLISHED_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.05


async def chain(world: JournalWorld, count: int = 3) -> PlanCase:
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in range(1, count + 1)))
    return plan


async def refused(call: Any) -> LockstepError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


async def checkpoint(world: JournalWorld, tree_size_min: int = 0) -> log_pb2.Checkpoint:
    """A checkpoint, once there is one."""
    request = reader_pb2.GetCheckpointRequest(tree_size_min=tree_size_min)
    async with asyncio.timeout(PUBLISHED_SECONDS_MAX):
        while True:
            try:
                return (await world.reader.GetCheckpoint(request, timeout=CALL_SECONDS)).checkpoint
            except grpc.aio.AioRpcError as error:
                if from_rpc(error).reason != "CHECKPOINT_PENDING":
                    raise
            await asyncio.sleep(LOOK_SECONDS)


async def covering(world: JournalWorld, plan: PlanCase) -> log_pb2.Checkpoint:
    """The first checkpoint that covers a plan's chain."""
    (row,) = await world.rows("select max(position) as last from journal_entry where plan_id = $1", plan.plan_id)
    return await checkpoint(world, row["last"])


async def leaves(world: JournalWorld) -> list[Digest]:
    """Hashes of what the tree is to be over, from the entries themselves."""
    rows = await world.rows("select canonical_bytes from journal_entry order by position")
    return [merkle.leaf_hash(row["canonical_bytes"]) for row in rows]


def assert_signed(found: log_pb2.Checkpoint, of: Sequence[Digest]) -> None:
    """A checkpoint says what its note says, which the journal has signed, and both are true of the entries."""
    signed = notes.parse(found.signed_note)
    assert signed.checkpoint == notes.Checkpoint(ORIGIN, found.tree_size, Digest(found.root_hash))
    assert found.origin == ORIGIN
    assert signed.signed_by(ORIGIN, KEY)
    assert found.root_hash == merkle.root(of[: found.tree_size])


async def assert_one_tree(world: JournalWorld) -> None:
    """Tree, tiles and every checkpoint are those of the entries."""
    every = await leaves(world)
    (tree,) = await world.rows("select tree_size from journal_tree")
    stored = await world.rows("select hashes from journal_tile where level = 0 order by tile_index")
    assert b"".join(row["hashes"] for row in stored) == b"".join(every[: tree["tree_size"]])
    checkpoints = await world.rows("select tree_size, root_hash, signed_note from journal_checkpoint order by tree_size")
    assert checkpoints
    for row in checkpoints:
        signed = notes.parse(row["signed_note"])
        assert signed.signed_by(ORIGIN, KEY)
        assert signed.checkpoint == notes.Checkpoint(ORIGIN, row["tree_size"], merkle.root(every[: row["tree_size"]]))
        assert signed.checkpoint.root == row["root_hash"]


async def test_what_is_appended_is_published(world: JournalWorld) -> None:
    """Entries come into a signed checkpoint within a second or so, and the root is over all entries in their order."""
    found = await covering(world, await chain(world))
    assert_signed(found, await leaves(world))


async def test_nothing_new_nothing_published(world: JournalWorld) -> None:
    """A checkpoint is made when there is something new, and then alone."""
    await covering(world, await chain(world))
    (before,) = await world.rows("select count(*) as made, max(tree_size) as newest from journal_checkpoint")
    await asyncio.sleep(2.5)
    assert await world.rows("select count(*) as made, max(tree_size) as newest from journal_checkpoint") == [before]
    (counter,) = await world.rows("select next_position from journal_counter")
    assert before["newest"] == counter["next_position"] - 1


async def test_inclusion(world: JournalWorld) -> None:
    """Each entry of a chain is shown to be in a checkpoint's tree, and in every larger one."""
    plan = await chain(world, 5)
    first = await covering(world, plan)
    second = await covering(world, await chain(world, 2))
    for at in (first, second):
        for entry in await world.entries(plan.plan_id):
            request = reader_pb2.GetInclusionProofRequest(plan_id=plan.plan_id, sequence=entry.sequence, tree_size=at.tree_size)
            proof = (await world.reader.GetInclusionProof(request, timeout=CALL_SECONDS)).proof
            assert (proof.plan_id, proof.sequence, proof.leaf_index) == (plan.plan_id, entry.sequence, entry.position - 1)
            leaf = merkle.leaf_hash(entry.canonical_bytes)
            assert merkle.root_from_path(leaf, proof.leaf_index, proof.tree_size, proof.path) == at.root_hash


async def test_consistency(world: JournalWorld) -> None:
    """Every checkpoint is shown to begin with every earlier one."""
    found = [await covering(world, await chain(world, count)) for count in (3, 1, 7)]
    for index, before in enumerate(found):
        for after in found[index:]:
            request = reader_pb2.GetConsistencyProofRequest(from_size=before.tree_size, to_size=after.tree_size)
            path = (await world.reader.GetConsistencyProof(request, timeout=CALL_SECONDS)).path
            assert merkle.consistent(before.tree_size, before.root_hash, after.tree_size, after.root_hash, path)
    empty = reader_pb2.GetConsistencyProofRequest(from_size=0, to_size=found[0].tree_size)
    assert not (await world.reader.GetConsistencyProof(empty, timeout=CALL_SECONDS)).path


async def test_a_bundle(world: JournalWorld) -> None:
    """A plan's evidence is its whole chain with proofs for one checkpoint that covers it: the newest, or the smallest that was asked for."""
    plan = await chain(world, 4)
    first = await covering(world, plan)
    newest = await covering(world, await chain(world, 2))
    for asked, at in ((0, newest), (1, first), (newest.tree_size, newest)):
        request = reader_pb2.ExportBundleRequest(plan_id=plan.plan_id, tree_size_min=asked)
        bundle = await world.reader.ExportBundle(request, timeout=CALL_SECONDS)
        assert bundle.checkpoint == at
        assert [entry.sequence for entry in bundle.entries] == [proof.sequence for proof in bundle.proofs] == [1, 2, 3, 4]
        for entry, proof in zip(bundle.entries, bundle.proofs, strict=True):
            leaf = merkle.leaf_hash(entry.canonical_bytes)
            assert merkle.root_from_path(leaf, proof.leaf_index, proof.tree_size, proof.path) == at.root_hash


async def test_a_bundle_that_is_not_covered_yet(world: JournalWorld) -> None:
    """A plan whose last entry is in no checkpoint has no evidence yet: asked too early it is CHECKPOINT_PENDING, asked again it is there."""
    async with world.as_owner() as connection, connection.transaction():
        # Whoever makes the log grow waits for this.
        await connection.execute("select from journal_tree for update")
        plan = await chain(world)
        request = reader_pb2.ExportBundleRequest(plan_id=plan.plan_id)
        early = await refused(world.reader.ExportBundle(request, timeout=CALL_SECONDS))
        assert (early.code, early.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_PENDING")
        assert early.retry_after is not None
        beyond = reader_pb2.GetInclusionProofRequest(plan_id=plan.plan_id, sequence=1, tree_size=10**12)
        assert (await refused(world.reader.GetInclusionProof(beyond, timeout=CALL_SECONDS))).reason == "CHECKPOINT_PENDING"
    await covering(world, plan)
    assert len((await world.reader.ExportBundle(request, timeout=CALL_SECONDS)).entries) == 3


async def test_what_cannot_be_asked(world: JournalWorld) -> None:
    """What is not there, or not yet, is refused by name and field."""
    plan = await chain(world)
    at = await covering(world, plan)
    reader, unknown = world.reader, delivery_versus_payment().plan_id

    async def reason(call: Any) -> tuple[str, str]:
        error = await refused(call)
        return error.reason, error.metadata.get("field", "")

    def inclusion(plan_id: str, sequence: int, size: int) -> Any:
        request = reader_pb2.GetInclusionProofRequest(plan_id=plan_id, sequence=sequence, tree_size=size)
        return reader.GetInclusionProof(request, timeout=CALL_SECONDS)

    def consistency(before: int, after: int) -> Any:
        request = reader_pb2.GetConsistencyProofRequest(from_size=before, to_size=after)
        return reader.GetConsistencyProof(request, timeout=CALL_SECONDS)

    def newest(size: int) -> Any:
        return reader.GetCheckpoint(reader_pb2.GetCheckpointRequest(tree_size_min=size), timeout=CALL_SECONDS)

    def bundle(plan_id: str, size: int) -> Any:
        return reader.ExportBundle(reader_pb2.ExportBundleRequest(plan_id=plan_id, tree_size_min=size), timeout=CALL_SECONDS)

    (row,) = await world.rows("select min(position) as first from journal_entry where plan_id = $1", plan.plan_id)
    assert await reason(inclusion(unknown, 1, at.tree_size)) == ("ENTRY_NOT_FOUND", "")
    assert await reason(inclusion(plan.plan_id, 4, at.tree_size)) == ("ENTRY_NOT_FOUND", "")
    assert await reason(inclusion(plan.plan_id, 0, at.tree_size)) == ("FIELD_INVALID", "sequence")
    assert await reason(inclusion(plan.plan_id, 1, 0)) == ("FIELD_INVALID", "tree_size")
    assert await reason(inclusion(plan.plan_id, 2, row["first"])) == ("FIELD_INVALID", "tree_size")
    assert await reason(inclusion("x", 1, 1)) == ("FIELD_INVALID", "plan_id")
    assert await reason(consistency(-1, 1)) == ("FIELD_INVALID", "from_size")
    assert await reason(consistency(2, 1)) == ("FIELD_INVALID", "to_size")
    assert await reason(consistency(1, 10**12)) == ("CHECKPOINT_PENDING", "")
    assert await reason(newest(-1)) == ("FIELD_INVALID", "tree_size_min")
    assert await reason(newest(10**12)) == ("CHECKPOINT_PENDING", "")
    assert await reason(bundle(unknown, 0)) == ("PLAN_NOT_FOUND", "")
    assert await reason(bundle(plan.plan_id, -1)) == ("FIELD_INVALID", "tree_size_min")
    assert await reason(bundle(plan.plan_id, 10**12)) == ("CHECKPOINT_PENDING", "")


@pytest.mark.parametrize(("caller", "allowed"), [(CLIENT, 4), (NOTARY, 2), (COORDINATOR, 0)])
async def test_who_reads_the_log(service: ParticipantProcess, world: JournalWorld, caller: str, *, allowed: int) -> None:
    """Auditors read the log; the notary reads of it what is of no plan; the coordinator nothing."""
    plan = await chain(world)
    at = await covering(world, plan)
    reader = journal_reader_service_pb2_grpc.JournalReaderServiceStub(await service.channel(caller))
    calls: Sequence[tuple[Any, Any]] = (
        (reader.GetCheckpoint, reader_pb2.GetCheckpointRequest()),
        (reader.GetConsistencyProof, reader_pb2.GetConsistencyProofRequest(from_size=1, to_size=at.tree_size)),
        (
            reader.GetInclusionProof,
            reader_pb2.GetInclusionProofRequest(plan_id=plan.plan_id, sequence=1, tree_size=at.tree_size),
        ),
        (reader.ExportBundle, reader_pb2.ExportBundleRequest(plan_id=plan.plan_id)),
    )
    for number, (method, request) in enumerate(calls):
        if number < allowed:
            await method(request, timeout=CALL_SECONDS)
        else:
            assert (await refused(method(request, timeout=CALL_SECONDS))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_no_entry_is_passed_over(world: JournalWorld) -> None:
    """While one transaction holds a place that it has taken and not committed, no entry with a later place is there to be taken up."""
    plan = await chain(world, 1)
    at = await covering(world, plan)
    held = await asyncpg.connect(world.service.database.role_url)
    try:
        transaction = held.transaction()
        await transaction.start()
        await held.execute("update journal_counter set next_position = next_position + 1")
        other = asyncio.create_task(world.append(event_of(plan, 2)))
        await asyncio.sleep(1.5)
        assert not other.done()
        assert (await checkpoint(world)).tree_size == at.tree_size
        await transaction.rollback()
        await other
    finally:
        await held.close()
    assert (await covering(world, plan)).tree_size == at.tree_size + 1
    assert_signed(await checkpoint(world), await leaves(world))


async def test_replicas_make_one_tree(world: JournalWorld, service: ParticipantProcess) -> None:
    """Three replicas, one killed again and again while entries are appended, make one tree with one row of checkpoints."""
    replicas = [await service.replica(number) for number in (1, 2)]
    try:
        for _ in range(3):
            plans = [delivery_versus_payment() for _ in range(8)]
            appending = asyncio.gather(*(world.append(*(event_of(plan, n) for n in range(1, 41))) for plan in plans))
            await asyncio.sleep(0.2)
            await replicas[0].kill()
            await appending
            await replicas[0].restart()
        await covering(world, plans[-1])
        for plan in plans:
            await covering(world, plan)
    finally:
        for each in replicas:
            await service.supervisor.stop(each.name)
    await assert_one_tree(world)


@pytest.mark.parametrize("point", ["before_tx", "in_tx", "after_commit"])
async def test_killed_while_the_log_grows(world: JournalWorld, service: ParticipantProcess, point: str) -> None:
    """Killed anywhere while the log grows, it goes on where it was, and nothing that was shown is taken back."""
    before = await covering(world, await chain(world))
    plan = delivery_versus_payment()
    await service.dies_at(f"event-journal.log.{point}", lambda: world.append(*(event_of(plan, n) for n in range(1, 4))))
    await world.append(*(event_of(plan, n) for n in range(1, 4)))
    after = await covering(world, plan)
    request = reader_pb2.GetConsistencyProofRequest(from_size=before.tree_size, to_size=after.tree_size)
    path = (await world.reader.GetConsistencyProof(request, timeout=CALL_SECONDS)).path
    assert merkle.consistent(before.tree_size, before.root_hash, after.tree_size, after.root_hash, path)
    await assert_one_tree(world)


async def test_it_takes_up_what_was_there_before(world: JournalWorld, service: ParticipantProcess) -> None:
    """A log that begins over entries that were there already takes all of them up, a batch at a time."""
    await service.supervisor.stop(service.name)
    async with world.as_owner() as connection, connection.transaction():
        for table in ("journal_tile", "journal_checkpoint", "journal_tree"):
            await connection.execute(f"alter table {table} disable trigger all")
        await connection.execute("delete from journal_tile")
        await connection.execute("delete from journal_checkpoint")
        await connection.execute("update journal_tree set tree_size = 0")
        for table in ("journal_tile", "journal_checkpoint", "journal_tree"):
            await connection.execute(f"alter table {table} enable always trigger {table}_never_truncated")
            await connection.execute(f"alter table {table} enable always trigger {table}_stays")
        await connection.execute("alter table journal_tile enable always trigger journal_tile_grows")
        await connection.execute("alter table journal_tree enable always trigger journal_tree_grows")
        await connection.execute("alter table journal_checkpoint enable always trigger journal_checkpoint_follows")
    await service.restart()
    (counter,) = await world.rows("select next_position - 1 as last from journal_counter")
    await checkpoint(world, counter["last"])
    await assert_one_tree(world)


async def test_a_hole_is_not_grown_over(world: JournalWorld) -> None:
    """An entry that somebody removed before it was taken up stops the log: it never grows over a hole."""
    at = await covering(world, await chain(world))
    async with world.as_owner() as connection, connection.transaction():
        await connection.execute("select from journal_tree for update")
        plan = await chain(world, 3)
        await connection.execute("alter table journal_entry disable trigger all")
        (lost,) = await connection.fetch("delete from journal_entry where plan_id = $1 and sequence = 2 returning *", plan.plan_id)
        await connection.execute("alter table journal_entry enable trigger all")
    await asyncio.sleep(2.5)
    assert (await checkpoint(world)).tree_size == at.tree_size
    columns = ", ".join(lost.keys())
    places = ", ".join(f"${number}" for number in range(1, len(lost) + 1))
    async with world.as_owner() as connection, connection.transaction():
        await connection.execute(f"insert into journal_entry ({columns}) values ({places})", *lost.values())
    await covering(world, plan)
    await assert_one_tree(world)


async def test_verification_looks_into_the_log(world: JournalWorld) -> None:
    """Entries that changed places in the journal's order keep their chain whole; a plan's verification finds that the log has others there."""
    plan = await chain(world, 3)
    await covering(world, plan)
    assert (await world.verify(plan.plan_id)).valid
    (row,) = await world.rows("select position from journal_entry where plan_id = $1 and sequence = 2", plan.plan_id)
    swap = (
        "update journal_entry set position = 1000000 where plan_id = $1 and sequence = 2",
        f"update journal_entry set position = {row['position']} where plan_id = $1 and sequence = 3",
        f"update journal_entry set position = {row['position'] + 1} where plan_id = $1 and sequence = 2",
    )
    await world.tamper(*swap, plan_id=plan.plan_id)
    found = await world.verify(plan.plan_id)
    assert not found.valid
    assert [(each.sequence, each.rule) for each in found.findings] == [(2, "LEAF_DIFFERS"), (3, "LEAF_DIFFERS")]
