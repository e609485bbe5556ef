"""A participant's or the journal's database is put back: it learns again what it forgot, and no effect happens twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from restored import LOOKS_MAX, Stage, coordinator_snapshot, none, noticed, party_snapshot, some

from lockstep_kit.fence import Phase
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import delivery_versus_payment
from lockstep_testkit.snapshots import Snapshots


@pytest.mark.parametrize("leg_id", ["cash", "notarisation", "journal"])
@pytest.mark.parametrize("before", ["unknown", "prepared"])
async def test_a_participant_is_put_back_after_the_end(world: Any, snapshots: Snapshots, leg_id: str, before: str) -> None:
    """A participant that forgot a settled leg is told again, and knows it again; the plan's end stays what it was, and nobody is called."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    party = at.party(leg_id)
    async with world.coordinator():
        if before == "prepared":
            await at.to("PREPARED")
        snapshot = await party_snapshot(party, snapshots)
        if before == "prepared":
            await at.on("PREPARED")
        else:
            await world.settled(plan)
        told = (await world.get(plan)).legs
        await snapshots.put_back(snapshot)
        await at.phase(leg_id, "COMMITTED")
        await none(world, "select from leg_command where not answered")
        found = await world.get(plan)
        assert (found.outcome, list(found.escalations), len(found.legs)) == (1, [], len(told))
        assert [(leg.vote, leg.outcome) for leg in found.legs] == [(leg.vote, leg.outcome) for leg in told]


@pytest.mark.parametrize("leg_id", ["cash", "notarisation", "journal"])
async def test_a_participant_forgets_what_it_answered_and_its_stream_had_not_shown(
    world: Any, snapshots: Snapshots, leg_id: str
) -> None:
    """The stream was lost before it showed the end of a leg: the log is put back to the very place that it was read to, and is noticed all the same."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    party = at.party(leg_id)
    async with world.coordinator():
        await at.to("PREPARED")
        async with party.database.as_owner() as owner:
            last = await owner.fetchval("select next_sequence - 1 from participant_outcome_counter")
        await some(world, "select from participant_cursor where participant = $1 and sequence = $2", party.name, last)
        snapshot = await party_snapshot(party, snapshots)
        party.servicer.hoarse = True
        await at.on("PREPARED")
        await snapshots.put_back(snapshot)
        party.servicer.hoarse = False
        await at.phase(leg_id, "COMMITTED")
        await none(world, "select from leg_command where not answered")
        assert list((await world.get(plan)).escalations) == []


async def test_what_is_sent_again_about_a_closed_plan_has_a_sender(world: Any) -> None:
    """Where the replica that was to tell a participant of a closed plan again is gone before it did, another one does."""
    plan = delivery_versus_payment()
    async with world.coordinator():
        await world.settled(plan)
        # As a comparison leaves it, and a crash after that.
        await world.rows("update leg_command set answered = false, due_at = clock_timestamp() where command = 'COMMIT'")
        await world.rows("update lease set owner = 'gone', expires_at = '-infinity' where resource_id = $1", plan.plan_id)
        await none(world, "select from leg_command where not answered")
        # What was given up is no other replica's to tell either: operators are waited for.
        await world.rows("update leg_command set answered = false, due_at = 'infinity' where command = 'COMMIT'")
        await world.rows("update lease set owner = 'gone', expires_at = '-infinity' where resource_id = $1", plan.plan_id)
        await asyncio.sleep(1.0)
        assert await world.rows("select from lease where owner = 'gone'")


@pytest.mark.parametrize("leg_id", ["cash", "notarisation", "journal"])
@pytest.mark.parametrize("commit", [True, False])
async def test_a_participant_is_put_back_after_the_coordinator_was(
    world: Any, snapshots: Snapshots, leg_id: str, commit: bool
) -> None:
    """A settled plan that was found again can be told again: what a participant forgets after that, it is sent as it was before."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    party = at.party(leg_id)
    async with world.coordinator(crash=True):
        await at.to("PREPARED")
        before = await coordinator_snapshot(world, snapshots)
        forgets = await party_snapshot(party, snapshots)
        if commit:
            await at.on("PREPARED")
        else:
            await world.cancel(plan)
            await world.reaches(plan, "CLOSED")
    await snapshots.put_back(before)
    seal = world.journal.seals[plan.plan_id]
    async with world.coordinator(generation=2):
        await world.reaches(plan, "CLOSED")
        if leg_id == "journal":
            del world.journal.seals[plan.plan_id]
        await snapshots.put_back(forgets)
        await at.phase(leg_id, "COMMITTED" if commit else "RELEASED")
        assert world.journal.seals[plan.plan_id] == seal
        found = await world.get(plan)
        assert (found.outcome, list(found.escalations)) == (1 if commit else 2, [])


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("before", ["unknown", "prepared"])
async def test_a_participant_is_put_back_in_between(world: Any, snapshots: Snapshots, commit: bool, before: str) -> None:
    """A participant that forgot its promise keeps it: from its own YES when the plan is released, and it lets go when it is given up."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    party = at.party("cash")
    async with world.coordinator():
        if before == "unknown":
            snapshot = await party_snapshot(party, snapshots)
            await at.to("PREPARED")
        else:
            party.operations.at_once = False
            await world.create(plan)
            await world.execute(plan)
            await at.phase("cash", "PREPARING")
            snapshot = await party_snapshot(party, snapshots)
            await at.unblock()
            await world.sign(plan, plan.gate(Gate.APPROVE))
            await world.reaches(plan, "PREPARED")
        await some(world, "select from participant_cursor where participant = $1 and sequence > 0", party.name)
        (read,) = await world.rows("select xmin::text as version from participant_cursor where participant = $1", party.name)
        await snapshots.put_back(snapshot)
        if before == "prepared":
            # What its own loop finds outside, once more.
            await party.find(*[each for each in party.operations.begun if each.phase is Phase.PREPARING])
        else:
            await noticed(world, party, read["version"])
        if commit:
            await at.on("PREPARED")
        else:
            await world.cancel(plan)
            await at.phase("cash", "RELEASED")
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (1 if commit else 2, [])
    assert at.begun("cash", Phase.COMMITTING) == int(commit)


async def test_a_participant_is_put_back_and_comes_as_far_on_another_way(world: Any, snapshots: Snapshots) -> None:
    """A participant that forgot its YES and lets go has as many revisions as were seen of its YES: that it let go is heard all the same."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    party = at.party("cash")
    async with world.coordinator():
        snapshot = await party_snapshot(party, snapshots)
        await at.to("PREPARED")
        await snapshots.put_back(snapshot)
        await world.cancel(plan)
        await at.phase("cash", "RELEASED")
        # The coordinator notices late that the log is another one.
        async with party.database.as_owner() as owner:
            await owner.execute("update participant_outcome_counter set incarnation = gen_random_uuid()::text")
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (2, [])


async def test_a_participant_is_put_back_unnoticed(world: Any, snapshots: Snapshots) -> None:
    """A participant that comes as far as was seen on another way, and whose log had not been read that far, is noticed by what it answers."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    cash = at.party("cash")
    async with world.coordinator():
        snapshot = await party_snapshot(cash, snapshots)
        await at.to("PREPARED")
    await snapshots.put_back(snapshot)
    # What was heard, was heard as answers: the place in the log is that of the log as it is now.
    await world.rows("update participant_cursor set sequence = 0 where participant = $1", cash.name)
    async with world.coordinator():
        await world.cancel(plan)
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (2, [])


async def test_a_participant_is_put_back_while_its_news_is_kept(world: Any, clocks: Any, snapshots: Snapshots) -> None:
    """What was heard of a plan that is not found again yet counts as heard: what the participant does after it was put back is later than that."""
    plan = delivery_versus_payment(deadline=clocks.soon())
    at = Stage(world, plan)
    cash, tokens = at.party("cash"), at.party("tokens")
    async with world.coordinator(crash=True):
        await at.to("DRAFT")
        before, forgets = await coordinator_snapshot(world, snapshots), await party_snapshot(cash, snapshots)
        await world.execute(plan)
        for leg_id in ("tokens", "cash", "notarisation", "journal"):
            await at.phase(leg_id, "PREPARED")
    await snapshots.put_back(before)
    await tokens.down()
    async with world.coordinator(generation=2):
        await some(world, "select from leg_news where leg_id = 'cash'")
        (read,) = await world.rows("select xmin::text as version from participant_cursor where participant = $1", cash.name)
        await snapshots.put_back(forgets)
        # The place itself may be ahead again before anyone looks: that it was written anew is what stays to be seen.
        await noticed(world, cash, read["version"])
        await tokens.up()
        await clocks.pass_deadline(plan)
        found = await world.reaches(plan, "CLOSED")
        assert (found.outcome, list(found.escalations)) == (2, [])


async def test_a_participant_forgets_that_it_refused(world: Any, snapshots: Snapshots) -> None:
    """A participant that refused a leg, and is put back to before, lets go of it again: its own signed NO tells it to."""
    plan = delivery_versus_payment()
    at = Stage(world, plan)
    operations = at.party("cash").operations
    operations.at_once = False
    operations.refused.add("cash")
    async with world.coordinator():
        await world.create(plan)
        await world.execute(plan)
        await at.phase("cash", "PREPARING")
        snapshot = await party_snapshot(at.party("cash"), snapshots)
        await at.unblock()
        assert (await world.reaches(plan, "CLOSED")).outcome == 2
        operations.refused.clear()
        await snapshots.put_back(snapshot)
        await at.phase("cash", "RELEASED")


async def test_the_journal_is_put_back(world: Any, snapshots: Snapshots) -> None:
    """Chains that lost entries are filled again from the first gap on, those of closed plans too, and the seals are ordered again."""
    closed, resting = delivery_versus_payment(), delivery_versus_payment()
    at = Stage(world, closed)
    party = at.party("journal")
    async with world.coordinator():
        await at.to("READY_FOR_PREPARE")
        snapshot = await party_snapshot(party, snapshots)
        chains = {plan_id: list(chain) for plan_id, chain in world.journal.chains.items()}
        await at.on("READY_FOR_PREPARE")
        await Stage(world, resting).to("PREPARED")
        await none(world, "select from journal_progress where appended < recorded")
        whole = {plan_id: list(chain) for plan_id, chain in world.journal.chains.items()}
        world.journal.chains.clear()
        world.journal.chains.update(chains)
        world.journal.seals.clear()
        await snapshots.put_back(snapshot)
        for _ in range(LOOKS_MAX):
            if world.journal.chains == whole and closed.plan_id in world.journal.seals:
                break
            await asyncio.sleep(0.05)
        await at.phase("journal", "COMMITTED")
        assert world.journal.chains == whole
        assert closed.plan_id in world.journal.seals
        await Stage(world, resting).on("PREPARED")
