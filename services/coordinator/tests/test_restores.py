"""The coordinator's database is put back: what was decided stays decided, nothing happens twice, and nothing of what was lost begins anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from restored import SETTLING, STAGES, Stage, assert_history, coordinator_snapshot, heard_of, none, raised, some

from coordinator.store.restores import GenerationStale
from lockstep_kit.fence import Phase
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import delivery_versus_payment
from lockstep_testkit.snapshots import Snapshots


@pytest.mark.parametrize("stage", STAGES)
async def test_settled_before_the_coordinator_was_put_back(world: Any, snapshots: Snapshots, stage: str) -> None:
    """A plan that was settled in the time that was lost is settled still: its end is found again, nothing is done twice, nobody is called."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        await at.to(stage)
        snapshot = await coordinator_snapshot(world, snapshots)
        await at.on(stage)
    await snapshots.put_back(snapshot)
    async with world.coordinator(generation=2):
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (1, [])
    for leg_id in (*SETTLING, "notarisation"):
        assert at.begun(leg_id, Phase.COMMITTING) == 1, leg_id
    assert world.journal.types(plan).count("plan.released") == 1
    await assert_history(world, plan)


@pytest.mark.parametrize("stage", STAGES[:3])
@pytest.mark.parametrize("told", [True, False])
async def test_decided_before_the_coordinator_was_put_back(world: Any, snapshots: Snapshots, stage: str, told: bool) -> None:
    """A decision of the time that was lost is found in the journal, or at a participant that obeys it, and is carried out to the end."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        await at.to(stage)
        snapshot = await coordinator_snapshot(world, snapshots)
        if stage == "DRAFT":
            await world.execute(plan)
        if stage != "PREPARED":
            await world.sign(plan, plan.gate(Gate.APPROVE))
            await world.reaches(plan, "PREPARED")
        at.party("cash").operations.at_once = False
        if not told:
            # The journal does not hear of it.
            world.journal.deaf = True
        await world.release(plan)
        await at.phase("cash", "COMMITTING")
        await at.phase("tokens", "COMMITTED")
    await snapshots.put_back(snapshot)
    world.journal.deaf = False
    async with world.coordinator(generation=2):
        await world.reaches(plan, "EXECUTING")
        await at.unblock()
        await world.reaches(plan, "VALIDATING")
        await world.validate(plan)
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (1, [])
    for leg_id in SETTLING:
        assert at.begun(leg_id, Phase.COMMITTING) == 1, leg_id
    assert world.journal.types(plan).count("plan.released") == 1
    await assert_history(world, plan)


@pytest.mark.parametrize("stage", ["DRAFT", "READY_FOR_PREPARE", "PREPARED"])
async def test_undecided_after_the_coordinator_was_put_back(world: Any, clocks: Any, snapshots: Snapshots, stage: str) -> None:
    """Where nobody knows of a decision it is to give up, even if somebody was ready to release; every hold is released at the deadline."""
    plan = delivery_versus_payment(deadline=clocks.soon())
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        await at.to(stage)
        snapshot = await coordinator_snapshot(world, snapshots)
        if stage == "DRAFT":
            await world.execute(plan)
            for leg_id in ("tokens", "cash", "notarisation", "journal"):
                await at.phase(leg_id, "PREPARED")
    await snapshots.put_back(snapshot)
    async with world.coordinator(generation=2):
        found = await world.reaches(plan, "ABORTED")
        assert found.reason == "RESTORED_UNDECIDED"
        await clocks.pass_deadline(plan)
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (2, [])
    for leg_id in SETTLING:
        await at.phase(leg_id, "RELEASED")
        assert at.begun(leg_id, Phase.COMMITTING) == 0
    await assert_history(world, plan)
    found = await world.rows("select from gate_signature where plan_id = $1 and gate = 'RELEASE'", plan.plan_id)
    assert found == []


async def test_nothing_is_decided_before_everybody_was_asked(world: Any, snapshots: Snapshots) -> None:
    """As long as one participant is silent, a plan of the time before is neither stepped, nor released, nor given up; then it goes on."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        await at.to("PREPARED")
        snapshot = await coordinator_snapshot(world, snapshots)
        at.party("cash").operations.at_once = False
        await world.release(plan)
        await at.phase("cash", "COMMITTING")
    await snapshots.put_back(snapshot)
    cash = at.party("cash")
    await cash.down()
    async with world.coordinator(generation=2):
        await asyncio.sleep(2.5)
        assert (await world.get(plan)).state == 5
        with pytest.raises(Exception, match="another replica is working on the plan"):
            await world.cancel(plan)
        await cash.up()
        await world.reaches(plan, "EXECUTING")
    assert (await cash.phases(plan))["cash"] == "COMMITTING"


async def test_commands_from_before_are_refused(world: Any, snapshots: Snapshots) -> None:
    """Once the fences are raised, no participant obeys a command of an older generation, and the database gives such a replica no lease."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    async with world.coordinator() as old:
        await at.to("PREPARED")
        async with world.coordinator(generation=2, serve=False):
            taken = "select from lease where resource_id = $1 and generation = 2"
            await some(world, taken, plan.plan_id)
            for leg_id in ("tokens", "cash", "notarisation", "journal"):
                await raised(at.party(leg_id), plan)
            assert await old.engine.apply("tick", [plan.plan_id], lambda _, __: []) == {}
            assert await world.rows(taken, plan.plan_id)


async def test_an_older_generation_does_not_start(world: Any) -> None:
    """A coordinator whose generation file is older than the database does not start."""
    async with world.coordinator(generation=2):
        pass
    with pytest.raises(GenerationStale):
        async with world.coordinator(generation=1):
            pass


async def test_a_lost_plan_is_released(world: Any, clocks: Any, snapshots: Snapshots) -> None:
    """Legs of a plan that was made and prepared in the time that was lost are found, released at its deadline, and its id is not used again."""
    plan = delivery_versus_payment(deadline=clocks.soon())
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        snapshot = await coordinator_snapshot(world, snapshots)
        await at.to("PREPARED")
        await world.journalled(plan)
    await snapshots.put_back(snapshot)
    async with world.coordinator(generation=2):
        await some(world, "select from orphan_leg where plan_id = $1", plan.plan_id)
        with pytest.raises(Exception, match="draw another id"):
            await world.create(plan)
        assert (await at.party("cash").phases(plan))["cash"] == "PREPARED"
        await clocks.pass_deadline(plan)
        for leg_id in ("tokens", "cash", "notarisation", "journal"):
            await at.phase(leg_id, "RELEASED")
        await none(world, "select from orphan_leg where settled_at is null")
    assert world.journal.types(plan)[-1] == "plan.aborted"
    assert world.journal.seals[plan.plan_id].journal_sequence == len(world.journal.chains[plan.plan_id]) + 1


async def test_the_id_of_a_plan_that_only_the_journal_knows_is_not_used_again(world: Any, snapshots: Snapshots) -> None:
    """A plan that was made in the time that was lost, and of which nobody was asked, has a chain: another one would contradict it."""
    plan, other = delivery_versus_payment(), delivery_versus_payment()
    async with world.coordinator(crash=True):
        snapshot = await coordinator_snapshot(world, snapshots)
        await world.create(plan)
        await heard_of(world, plan)
    await snapshots.put_back(snapshot)
    world.journal.chains.setdefault(other.plan_id, [])
    async with world.coordinator(generation=2):
        with pytest.raises(Exception, match="draw another id"):
            await world.create(plan)
        assert await world.rows("select from plan where plan_id = $1", plan.plan_id) == []
        await world.create(other)
        assert await world.rows("select from plan where plan_id = $1", other.plan_id) != []
    assert world.journal.types(plan) == ["plan.created"]


@pytest.mark.parametrize("stage", ["PREPARED", "COMMITTED"])
async def test_a_plan_whose_payloads_were_erased(world: Any, snapshots: Snapshots, stage: str) -> None:
    """A plan of the time before, whose end the journal cannot tell any more since its payloads were erased, is a person's: nothing of it is decided."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        await at.to(stage)
        snapshot = await coordinator_snapshot(world, snapshots)
        await at.on(stage)
    await snapshots.put_back(snapshot)
    world.journal.erased.add(plan.plan_id)
    async with world.coordinator(generation=2):
        found = await world.until(plan, lambda found: len(found.escalations) > 0)
        assert [each.reason for each in found.escalations] == ["RESTORE_CONTRADICTED"]
        (ticket,) = await world.rows("select * from escalation where plan_id = $1", plan.plan_id)
        assert "erased" in ticket["detail"]
        assert await world.rows("select from plan where plan_id = $1 and state = $2", plan.plan_id, stage) != []


async def test_the_id_of_a_plan_whose_payloads_were_erased_is_not_used_again(world: Any, snapshots: Snapshots) -> None:
    """A plan of the time that was lost has a chain, even if nobody can read what it says."""
    plan = delivery_versus_payment()
    async with world.coordinator(crash=True):
        snapshot = await coordinator_snapshot(world, snapshots)
        await world.create(plan)
        await heard_of(world, plan)
    await snapshots.put_back(snapshot)
    world.journal.erased.add(plan.plan_id)
    async with world.coordinator(generation=2):
        with pytest.raises(Exception, match="draw another id"):
            await world.create(plan)


async def test_a_lost_plan_that_was_decided_is_called_out(world: Any, clocks: Any, snapshots: Snapshots) -> None:
    """Where a leg of a lost plan was told to execute, no other leg of it is released, and what is at risk is kept for a person."""
    plan = delivery_versus_payment(deadline=clocks.soon())
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        snapshot = await coordinator_snapshot(world, snapshots)
        await at.to("PREPARED")
        await at.party("cash").down()
        await world.release(plan)
        await at.phase("tokens", "COMMITTED")
    await snapshots.put_back(snapshot)
    await at.party("cash").up()
    async with world.coordinator(generation=2):
        await some(world, "select from orphan_leg where plan_id = $1 having count(*) = 4", plan.plan_id)
        await clocks.pass_deadline(plan)
        called = "select from orphan_leg where plan_id = $1 and finding like 'ORPHAN_DECIDED:%' and settled_at is null having count(*) = 4"
        await some(world, called, plan.plan_id)
        # Several looks more, which the deadline must not make release anything.
        await asyncio.sleep(3.0)
        await some(world, called, plan.plan_id)
        rows = await world.rows("select * from orphan_leg where plan_id = $1", plan.plan_id)
        assert {each["leg_id"] for each in rows} == {"tokens", "cash", "notarisation", "journal"}
    assert (await at.party("cash").phases(plan))["cash"] == "PREPARED"
