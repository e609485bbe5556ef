"""Roots on their way to the chain: deaths, restores, a chain that is away, a registry that refuses, replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from notary_world import LEG, NotaryWorld

from lockstep_contracts import notary as calls
from lockstep_contracts.escrow import OPERATOR_ROLE, REVOKE_ROLE
from lockstep_contracts.notary import AnchorKind
from lockstep_contracts.roles import encode_grant_operator
from lockstep_kit.db import Database
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import sha256
from lockstep_kit.migrate import renew_logs
from lockstep_kit.plan import Anchoring
from lockstep_sandbox.deployment import NOTARY_SIGNER, SIGNERS
from lockstep_testkit import commands
from lockstep_testkit.databases import Databases
from lockstep_testkit.participant_conformance import DONE, PENDING
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.snapshots import Snapshot, Snapshots
from lockstep_testkit.strict_node import StrictNode
from notary.anchors import queue
from notary.anchors.queue import Anchored, AnchorRequest

#: After a restore the coordinator's generation is a higher one.
RAISED = Epoch(2, 1)


@pytest_asyncio.fixture(loop_scope="session")
async def db(service: ParticipantProcess) -> AsyncIterator[Database]:
    """The notary's database, as its witness uses it."""
    database = await Database.connect(service.database.settings, application_name="tests")
    yield database
    await database.close()


async def anchored(db: Database, requests: list[AnchorRequest]) -> dict[bytes, Anchored]:
    """What shows the roots, once all of them are anchored."""
    for _ in range(2400):
        async with db.connection() as connection:
            found = await queue.anchored(connection, [each.root for each in requests])
        if len(found) == len(requests):
            return dict(found)
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(found)} of {len(requests)} roots are anchored")


def checkpoints(name: str, count: int) -> list[AnchorRequest]:
    return [AnchorRequest(AnchorKind.CHECKPOINT, sha256(f"{name} {number}".encode()), number + 1) for number in range(count)]


async def request(db: Database, requests: list[AnchorRequest]) -> None:
    async with db.transaction() as tx:
        await queue.request(tx, requests)


async def test_roots_that_come_together_are_one_transaction(world: NotaryWorld, db: Database) -> None:
    """Many roots are anchored by one transaction, whose bytes and block are kept; asking again changes nothing."""
    asked = checkpoints("together", 30)
    await request(db, asked)
    found = await anchored(db, asked)
    assert len({each.raw_transaction for each in found.values()}) == 1
    for each in asked:
        assert [(event.kind, event.size) for event in await world.anchors(each.root)] == [(each.kind, each.size)]  # type: ignore[union-attr]
    await request(db, asked)
    assert await anchored(db, asked) == found


async def test_a_root_that_stands_already(world: NotaryWorld, db: Database) -> None:
    """A root that the registry holds already needs no transaction of ours; one that it holds as something else is never said to be anchored."""
    known, other = checkpoints("known", 2)
    theirs = [calls.Root(known.kind, known.root, known.size), calls.Root(other.kind, other.root, other.size + 1)]
    await world.chain.chain.transact(world.chain.registry, calls.encode_anchor_many(theirs), by=NOTARY_SIGNER)
    await request(db, [known, other])
    assert (await anchored(db, [known]))[known.root].raw_transaction == b""
    async with world.service.database.as_owner() as connection:
        for _ in range(2400):
            if trouble := await connection.fetchval("select trouble from anchor where root = $1", other.root):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("nothing is said of the other root")
    assert "not as CHECKPOINT over 2" in trouble
    async with db.connection() as connection:
        assert await queue.anchored(connection, [other.root]) == {}


async def test_a_registry_that_refuses_for_a_while(world: NotaryWorld, db: Database) -> None:
    """Roots whose transactions revert are sent again until they stand there: nothing that was asked for is given up."""
    chain = world.chain.chain
    operators = [chain.address(name) for name in SIGNERS[NOTARY_SIGNER]]
    for each in operators:
        await chain.transact(world.chain.registry, REVOKE_ROLE.encode(OPERATOR_ROLE, each))
    asked = checkpoints("refused", 2)
    try:
        await request(db, asked)
        async with world.service.database.as_owner() as connection:
            for _ in range(2400):
                if await connection.fetchval(
                    "select bool_and(skip_code <> '') from anchor where root = any($1)", [each.root for each in asked]
                ):
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("no transaction reverted")
    finally:
        for each in operators:
            await chain.transact(world.chain.registry, encode_grant_operator(each))
    await anchored(db, asked)


async def test_batched_waits_for_the_chain(world: NotaryWorld, endpoint: StrictNode) -> None:
    """A batched plan is not answered while the chain is away, and is once it is back."""
    harness = world.harness_of(Anchoring.BATCHED)
    plan = await harness.plan()
    command = commands.prepare(plan, LEG)
    endpoint.faults.down = True
    try:
        for _ in range(3):
            assert (await harness.send_prepare(command)).verdict == PENDING
    finally:
        endpoint.faults.down = False
    assert (await harness.settled(lambda: harness.send_prepare(command))).verdict == DONE


@pytest.mark.parametrize(
    ("anchoring", "place"),
    [
        (Anchoring.BATCHED, "prepare.in_tx"),
        (Anchoring.BATCHED, "prepare.after_commit"),
        (Anchoring.BATCHED, "batch.close.in_tx"),
        (Anchoring.BATCHED, "batch.close.after_commit"),
        (Anchoring.BATCHED, "anchor.judge.in_tx"),
        (Anchoring.BATCHED, "anchor.judge.after_commit"),
        (Anchoring.BATCHED, "chain.assign.after_commit"),
        (Anchoring.BATCHED, "chain.broadcast.after_send"),
        (Anchoring.BATCHED, "chain.confirm.in_tx"),
        (Anchoring.BATCHED, "complete.in_tx"),
        (Anchoring.DEFERRED, "prepare.in_tx"),
        (Anchoring.DEFERRED, "prepare.after_commit"),
        (Anchoring.DEFERRED, "batch.close.in_tx"),
        (Anchoring.DEFERRED, "chain.broadcast.after_send"),
    ],
)
async def test_killed_on_the_way(world: NotaryWorld, service: ParticipantProcess, anchoring: Anchoring, place: str) -> None:
    """Killed anywhere between the order and its anchor: one leaf of each kind, each root on the chain once, and the plan can be proven."""
    harness = world.harness_of(anchoring)
    plan = await harness.plan()
    command = commands.prepare(plan, LEG)
    await service.dies_at(f"notary.{place}", lambda: harness.send_prepare(command))
    vote = await harness.settled(lambda: harness.send_prepare(command))
    assert (await harness.commit(plan, vote.report)).verdict == DONE
    read = await world.anchored(plan)
    for proof in (read.registration_proof, read.outcome_proof):
        assert len(await world.anchors(proof.root_hash)) == 1
        assert await world.shows(proof.anchor)
    async with service.database.as_owner() as connection:
        rows = await connection.fetch("select kind from plan_leaf where plan_id = $1 order by seq", plan.plan_id)
    assert [row["kind"] for row in rows] == [2, 3]


@pytest.fixture(scope="module")
def snapshots(databases: Databases) -> Snapshots:
    return Snapshots(databases.superuser_url)


async def put_back(service: ParticipantProcess, snapshots: Snapshots, snapshot: Snapshot) -> None:
    """Set the notary's database back, as an operator would."""
    await service.kill()
    await service.supervisor.stop(service.name)
    await snapshots.put_back(snapshot)
    await asyncio.to_thread(renew_logs, service.database.owner_url)
    await service.restart()


async def test_restored_to_before_the_plan(world: NotaryWorld, service: ParticipantProcess, snapshots: Snapshots) -> None:
    """A database that forgot a plan it had voted for learns of it by its own vote, and the plan's end is anchored and proven."""
    harness = world.harness_of(Anchoring.BATCHED)
    snapshot = await snapshots.take(service.database.name, service.database.role)
    plan = await harness.plan()
    vote = await harness.prepare(plan)
    before = (await world.read(plan)).registration_proof
    await put_back(service, snapshots, snapshot)
    assert (await harness.commit(plan, vote.report, RAISED)).verdict == DONE
    read = await world.anchored(plan)
    assert read.outcome == "Committed"
    for proof in (before, read.registration_proof, read.outcome_proof):
        assert await world.shows(proof.anchor)
    assert read.registration_proof.leaf_data == before.leaf_data
    await snapshots.drop(snapshot)


async def test_restored_in_mid_batch(
    world: NotaryWorld, service: ParticipantProcess, snapshots: Snapshots, endpoint: StrictNode
) -> None:
    """A database that forgot how its batch was sent finds the root on the registry, and sends nothing again."""
    harness = world.harness_of(Anchoring.BATCHED)
    plan = await harness.plan()
    command = commands.prepare(plan, LEG)
    endpoint.faults.down = True
    try:
        await harness.send_prepare(command)
        async with service.database.as_owner() as connection:
            for _ in range(2400):
                if await connection.fetchval("select batch_id from plan_leaf where plan_id = $1", plan.plan_id):
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("no batch was closed")
        snapshot = await snapshots.take(service.database.name, service.database.role)
    finally:
        endpoint.faults.down = False
    await harness.settled(lambda: harness.send_prepare(command))
    first = (await world.read(plan)).registration_proof
    await put_back(service, snapshots, snapshot)
    assert (await harness.settled(lambda: harness.send_prepare(command))).verdict == DONE
    second = (await world.read(plan)).registration_proof
    assert second.root_hash == first.root_hash
    assert second.anchor.raw_transaction == b""
    assert second.anchor.block_number >= first.anchor.block_number
    assert len(await world.anchors(second.root_hash)) == 1
    await snapshots.drop(snapshot)


async def test_replicas_anchor_each_root_once(world: NotaryWorld, service: ParticipantProcess) -> None:
    """Two processes over one database: every plan is answered, and every root is on the chain once."""
    other = await service.replica(2)
    try:
        harness = world.harness_of(Anchoring.BATCHED)
        plans = [await harness.plan() for _ in range(12)]
        answers = await asyncio.gather(*(harness.prepare(plan) for plan in plans))
        assert {answer.verdict for answer in answers} == {DONE}
        proofs = [(await world.read(plan)).registration_proof for plan in plans]
        for root in {proof.root_hash for proof in proofs}:
            assert len(await world.anchors(root)) == 1
    finally:
        await other.supervisor.stop(other.name)
