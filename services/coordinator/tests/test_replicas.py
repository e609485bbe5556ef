"""Several replicas, one of them paused past its lease: it lives on, believes what it believed, and changes nothing any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest

from coordinator.convert.participant import CallName, Outgoing
from coordinator.model import Order, Tick
from coordinator.recovery import Recovery
from coordinator.store import outboxes
from coordinator.store.writing import Stepped, Writing
from lockstep_kit import leases
from lockstep_kit.fence import Epoch
from lockstep_kit.participant.records import Verdict
from lockstep_testkit.factories import delivery_versus_payment


async def taken_over(world: Any, plan: Any, counter: int) -> None:
    for _ in range(1200):
        found = await world.rows("select counter from lease where resource_id = $1", plan.plan_id)
        if found[0]["counter"] >= counter:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody takes the plan over")


async def test_a_paused_owner_is_refused_by_everybody(world: Any) -> None:
    """Commands that an owner sends after it was taken over are rejected by every participant, and change nothing of any leg."""
    plan = delivery_versus_payment()
    cash = world.parties["bank-gateway"]
    # What the old owner sends late is answered, however slow the machine is.
    async with world.coordinator(crash=True, call_seconds=60.0) as old:
        await world.started(plan)
        await world.reaches(plan, "PREPARED")
        cash.operations.at_once = False
        await world.release(plan)
        await world.reaches(plan, "EXECUTING")
        dossier = (await old.engine.read([plan.plan_id]))[plan.plan_id]
        (row,) = await world.rows("select generation, counter from lease where resource_id = $1", plan.plan_id)
        stale = Epoch(row["generation"], row["counter"])
    async with world.coordinator():
        await taken_over(world, plan, 2)
        await asyncio.gather(*(fenced(each, plan, stale) for each in world.parties.values()))
        for _ in range(1200):
            executed = (await world.parties["dlt-gateway"].phases(plan))["tokens"] == "COMMITTED"
            if executed and (await cash.phases(plan))["cash"] == "COMMITTING":
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the new owner does not get on")
        before = {name: await each.phases(plan) for name, each in world.parties.items()}
        assert list(before["dlt-gateway"].values()) == ["COMMITTED"]
        # What the old owner had on its way when it was paused: one command of each leg, under the epoch that it believes in.
        commands = await world.rows("select * from leg_command where plan_id = $1 and command = 'PREPARE'", plan.plan_id)
        assert len(commands) == 4
        for row in commands:
            peer = old.peers[row["participant"]]
            (command,) = [each for each in await prepared(world, plan, row["participant"]) if each.leg_id == row["leg_id"]]
            (answer,) = await peer.command(
                CallName.PREPARE, [Outgoing(command, dossier, stale, b"")], old.engine.limits.delivery_margin
            )
            if row["participant"] != "dlt-gateway":
                # That one is done, and a replay is answered from its row.
                assert (answer.verdict, answer.reason) == (Verdict.REJECTED, "EPOCH_STALE")
        assert {name: await each.phases(plan) for name, each in world.parties.items()} == before


async def fenced(party: Any, plan: Any, stale: Epoch) -> None:
    for _ in range(1200):
        async with party.database.as_owner() as owner:
            row = await owner.fetchrow(
                "select epoch_generation, epoch_counter, phase from participant_leg where plan_id = $1", plan.plan_id
            )
        if Epoch(row["epoch_generation"], row["epoch_counter"]) > stale or row["phase"] == "COMMITTED":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{party.name} was not told of the new owner")


async def prepared(world: Any, plan: Any, participant: str) -> list[Any]:
    """The plan's Prepare commands to a participant, as an owner holds them while it sends them."""
    # In one transaction: the new owner never sees them as due.
    async with world.database.as_owner() as owner, owner.transaction():
        await owner.execute(
            "update leg_command set answered = false, due_at = now() where plan_id = $1 and command = 'PREPARE'", plan.plan_id
        )
        held = await owner.fetchrow("select owner, generation from lease where resource_id = $1", plan.plan_id)
        assert held is not None
        name, generation = held["owner"], held["generation"]
        found = await outboxes.lock_due(owner, participant, name, generation, timedelta(0), [plan.plan_id], 10)
        await owner.execute("update leg_command set answered = true where plan_id = $1 and command = 'PREPARE'", plan.plan_id)
        # One to execute may be due again meanwhile.
        return [command for command, _ in found if command.order is Order.PREPARE]


async def test_a_paused_transaction_is_refused_by_the_database(world: Any) -> None:
    """An owner that was paused within a transaction writes nothing of the plan, whatever it had read before: not past the lease, not past the row."""
    plan = delivery_versus_payment()
    async with world.coordinator(crash=True, lease_seconds=120.0) as old, world.coordinator(serve=False, lease_seconds=120.0):
        await world.started(plan)
        await world.reaches(plan, "PREPARED")
        before = (await old.engine.read([plan.plan_id]))[plan.plan_id]
        (row,) = await world.rows("select * from lease where resource_id = $1", plan.plan_id)
        async with world.database.as_owner() as owner:
            await owner.execute(
                "update lease set owner = 'another', counter = counter + 1, expires_at = now() + interval '2 minutes' where resource_id = $1",
                plan.plan_id,
            )
            await owner.execute(
                "update plan set epoch_counter = $2, version = version + 1 where plan_id = $1", plan.plan_id, row["counter"] + 1
            )
        # By its lease.
        assert await old.engine.apply("tick", [plan.plan_id], lambda _, __: [Tick()]) == {}
        # By the version, and, were that the same again, by the epoch in the row.
        writing = Writing()
        writing.stepped(Stepped(before, before.plan, Epoch(row["generation"], row["counter"]), None))
        async with old.engine.db.transaction() as tx:
            with pytest.raises(Exception, match="changed since it was read"):
                await writing.write(tx, before.updated_at)
        async with world.database.as_owner() as owner:
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="lost its lease"):
                await owner.execute(
                    "update plan set epoch_counter = $2, version = version + 1 where plan_id = $1", plan.plan_id, row["counter"]
                )


async def test_a_lease_cannot_be_taken_between_its_check_and_the_commit(world: Any) -> None:
    """While an owner's transaction is open, however long, nobody takes its plan over; whoever tries waits for its commit."""
    plan = delivery_versus_payment()
    async with world.coordinator(crash=True, lease_seconds=0.3) as owner:
        await world.create(plan)
        async with owner.engine.work("tick") as work:
            await work.load([plan.plan_id])
            await asyncio.sleep(0.6)
            async with world.database.as_role() as other:
                await other.execute("set lock_timeout = '300ms'")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    async with other.transaction():
                        await leases.acquire(other, [plan.plan_id], "other", 1, owner.engine.owner.lease)
        async with world.database.as_role() as other:
            await asyncio.sleep(0.4)
            assert (await leases.acquire(other, [plan.plan_id], "other", 1, owner.engine.owner.lease))[plan.plan_id] == Epoch(1, 2)


async def test_who_works_for_one_owner_shares_its_leases(world: Any) -> None:
    """While a transaction of the owner has a plan, its commands are claimed beside it; nobody else takes the lease meanwhile, and it is not written anew."""
    plan = delivery_versus_payment()
    async with world.coordinator(crash=True, lease_seconds=120.0) as owner:
        await world.started(plan)
        await world.reaches(plan, "PREPARED")
        own = owner.engine.owner
        before = await world.rows("select xmin::text, * from lease where resource_id = $1", plan.plan_id)
        async with owner.engine.work("tick") as work:
            assert set(await work.load([plan.plan_id])) == {plan.plan_id}
            async with world.database.as_owner() as another, another.transaction():
                await another.execute("set local lock_timeout = '300ms'")
                await another.execute("update leg_command set answered = false, due_at = now() where plan_id = $1", plan.plan_id)
                claimed = await outboxes.lock_due(
                    another, "bank-gateway", own.name, own.generation, timedelta(0), [plan.plan_id], 10
                )
                assert [(command.leg_id, epoch) for command, epoch in claimed] == [("cash", Epoch(1, 1))]
                with pytest.raises(asyncpg.LockNotAvailableError):
                    async with another.transaction():
                        await leases.acquire(another, [plan.plan_id], "other", 1, own.lease)
        assert await world.rows("select xmin::text, * from lease where resource_id = $1", plan.plan_id) == before


async def test_who_was_started_before_a_restore_holds_nothing(world: Any) -> None:
    """Once a restore has raised the generation, a process of before has no plan any more, though its lease runs on."""
    plan = delivery_versus_payment()
    async with world.coordinator(crash=True, lease_seconds=120.0) as owner:
        await world.create(plan)
        assert set(await owner.engine.apply("tick", [plan.plan_id], lambda _, __: [Tick()])) == {plan.plan_id}
        async with world.database.as_owner() as database:
            await database.execute("update installation set generation = 2")
        assert await owner.engine.apply("tick", [plan.plan_id], lambda _, __: [Tick()]) == {}


async def test_recovery_takes_only_what_it_has_seen_twice(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan whose lease has just run out is left alone at the first look, and taken over at the second; one that its owner holds again is not."""
    plan = delivery_versus_payment()
    await world.parties["bank-gateway"].down()
    async with world.coordinator(crash=True):
        await world.started(plan)
        await world.reaches(plan, "READY_FOR_PREPARE", "PRECONDITIONS_PENDING")
    look = Recovery.run

    async def nothing(recovery: Recovery) -> None:
        """The looks of the loop, which come whenever the machine lets them: those of this test are all that there are."""

    monkeypatch.setattr(Recovery, "run", nothing)
    async with world.coordinator(serve=False) as second:
        async with world.database.as_owner() as database:
            await database.execute("update lease set expires_at = now() + interval '2 minutes'")
        # Nothing was left behind at this one.
        await look(second.recovery)
        async with world.database.as_owner() as database:
            await database.execute("update lease set expires_at = now() - interval '1 second'")
        owner = "select owner from lease where resource_id = $1"
        first = (await world.rows(owner, plan.plan_id))[0]["owner"]
        await look(second.recovery)
        assert (await world.rows(owner, plan.plan_id))[0]["owner"] == first
        async with world.database.as_owner() as database:
            await database.execute("update lease set expires_at = now() + interval '2 minutes'")
        await look(second.recovery)
        async with world.database.as_owner() as database:
            await database.execute("update lease set expires_at = now() - interval '1 second'")
        await look(second.recovery)
        assert (await world.rows(owner, plan.plan_id))[0]["owner"] == first
        await look(second.recovery)
        assert (await world.rows(owner, plan.plan_id))[0]["owner"] == second.engine.owner.name


async def test_a_plan_that_waits_stays_with_its_owner(world: Any) -> None:
    """As long as its owner lives, another replica leaves a plan alone whose participant does not answer, however long that takes."""
    plan = delivery_versus_payment()
    world.parties["bank-gateway"].operations.at_once = False
    async with world.coordinator(lease_seconds=8.0) as first, world.coordinator(serve=False, lease_seconds=8.0):
        await world.started(plan)
        await world.reaches(plan, "READY_FOR_PREPARE")
        held = "select owner, counter, expires_at - clock_timestamp() as left from lease where resource_id = $1"
        (before,) = await world.rows(held, plan.plan_id)
        assert before["owner"] == first.engine.owner.name
        # A lease that nobody renews is over then, and was seen to be more than twice.
        await asyncio.sleep(1.5 * first.engine.owner.lease.total_seconds())
        (after,) = await world.rows(held, plan.plan_id)
        assert (after["owner"], after["counter"]) == (before["owner"], before["counter"])
        assert after["left"].total_seconds() > 0


async def test_three_replicas_that_come_and_go(world: Any) -> None:
    """Plans that many replicas drive at once, each of which dies once, are settled once each."""
    cases = [delivery_versus_payment() for _ in range(6)]
    async with world.coordinator():
        settling = asyncio.gather(*(world.settled(plan) for plan in cases))
        for _ in range(3):
            async with world.coordinator(serve=False, crash=True):
                await asyncio.sleep(0.4)
        try:
            await asyncio.wait_for(settling, 240)
        except grpc.aio.AioRpcError as error:
            raise AssertionError(error.details()) from error
    for plan in cases:
        types = world.journal.types(plan)
        assert (types.count("plan.released"), types.count("leg.executed")) == (1, 2)
        (found,) = await world.rows("select state, outcome from plan where plan_id = $1", plan.plan_id)
        assert (found["state"], found["outcome"]) == ("CLOSED", "COMMITTED")
