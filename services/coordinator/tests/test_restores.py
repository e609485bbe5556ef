"""Databases that are put back: the coordinator's, a participant's, the journal's. What was decided stays decided, and nothing happens twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from coordinator.store.restores import GenerationStale
from lockstep_kit.fence import Phase
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import delivery_versus_payment
from lockstep_testkit.snapshots import Snapshot, Snapshots

#: Where a plan stands when the snapshot is taken.
STAGES = ("DRAFT", "READY_FOR_PREPARE", "PREPARED", "EXECUTING", "VALIDATING", "COMMITTED")
SETTLING = ("tokens", "cash")


@pytest_asyncio.fixture(loop_scope="session")
async def snapshots(superuser_url: str) -> AsyncIterator[Snapshots]:
    yield Snapshots(superuser_url)


class Stage:
    """Brings a plan to where it is to stand, and from there on."""

    def __init__(self, world: Any, plan: Any) -> None:
        self.world = world
        self.plan = plan

    async def to(self, stage: str) -> None:
        """Bring a new plan to a stage; what would go on by itself is held up outside."""
        world, plan = self.world, self.plan
        await world.create(plan)
        if stage == "DRAFT":
            return
        await world.execute(plan)
        if stage == "READY_FOR_PREPARE":
            await world.until(plan, lambda found: all(leg.HasField("vote") for leg in found.legs))
            return
        await world.sign(plan, plan.gate(Gate.APPROVE))
        await world.reaches(plan, "PREPARED")
        if stage == "PREPARED":
            return
        if stage == "EXECUTING":
            self.party("cash").operations.at_once = False
        await world.release(plan)
        if stage == "EXECUTING":
            await self.phase("cash", "COMMITTING")
            return
        await world.reaches(plan, "VALIDATING")
        if stage == "VALIDATING":
            return
        self.party("notarisation").operations.at_once = False
        await world.validate(plan)
        await self.phase("notarisation", "COMMITTING")

    async def on(self, stage: str) -> None:
        """Bring it from a stage to its end."""
        world, plan = self.world, self.plan
        if stage == "DRAFT":
            await world.execute(plan)
        if stage in ("DRAFT", "READY_FOR_PREPARE"):
            await world.sign(plan, plan.gate(Gate.APPROVE))
            await world.reaches(plan, "PREPARED")
        if stage in ("DRAFT", "READY_FOR_PREPARE", "PREPARED"):
            await world.release(plan)
        await self.unblock()
        if stage != "COMMITTED":
            await world.reaches(plan, "VALIDATING")
            await world.validate(plan)
        await world.reaches(plan, "CLOSED")

    async def unblock(self) -> None:
        """The outside answers what it left open."""
        for party in self.world.parties.values():
            operations = party.operations
            if not operations.at_once:
                operations.at_once = True
                last = {(each.plan_id, each.leg_id): each for each in operations.begun}
                await party.find(*last.values())

    def party(self, leg_id: str) -> Any:
        kinds = {leg.leg_id: leg.kind for leg in self.plan.legs}
        return next(each for each in self.world.parties.values() if kinds[leg_id] in each.operations.kinds)

    async def phase(self, leg_id: str, *wanted: str) -> None:
        for _ in range(500):
            if (await self.party(leg_id).phases(self.plan)).get(leg_id) in wanted:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{leg_id} does not become {wanted}: {await self.party(leg_id).phases(self.plan)}")

    def begun(self, leg_id: str, phase: Phase) -> int:
        """How often work of a kind was begun for a leg."""
        return sum(
            (each.plan_id, each.leg_id, each.phase) == (self.plan.plan_id, leg_id, phase)
            for each in self.party(leg_id).operations.begun
        )


async def some(world: Any, query: str, *arguments: Any) -> None:
    """Wait until there are such rows."""
    for _ in range(200):
        if await world.rows(query, *arguments):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never: {query}")


async def none(world: Any, query: str, *arguments: Any) -> None:
    """Wait until there are no such rows."""
    for _ in range(200):
        if not await world.rows(query, *arguments):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"for ever: {query}")


async def coordinator_snapshot(world: Any, snapshots: Snapshots) -> Snapshot:
    return await snapshots.take(world.database.name, world.database.role)


async def assert_history(world: Any, plan: Any) -> None:
    """Transitions and events are dense, each transition has its one event, and the journal has exactly what the rows have."""
    moves = await world.rows("select * from plan_transition where plan_id = $1 order by transition_no", plan.plan_id)
    assert [each["transition_no"] for each in moves] == list(range(1, len(moves) + 1))
    events = await world.rows("select * from journal_event where plan_id = $1 order by sequence", plan.plan_id)
    chain = world.journal.chains[plan.plan_id]
    assert [(each.sequence, each.type, each.payload) for each in chain] == [
        (each["sequence"], each["type"], each["payload"]) for each in events
    ]
    told = [each["transition"]["transition_no"] for each in world.journal.payloads(plan) if "transition" in each]
    closing = [each["transition_no"] for each in moves if each["entered_state"] == "CLOSED"]
    assert told + closing == [each["transition_no"] for each in moves]


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
async def test_undecided_after_the_coordinator_was_put_back(world: Any, snapshots: Snapshots, stage: str) -> None:
    """Where nobody knows of a decision it is to give up, even if somebody was ready to release; every hold is released at the deadline."""
    plan = delivery_versus_payment(deadline=datetime.now(UTC) + timedelta(seconds=4))
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
    async with world.coordinator(generation=2, call_seconds=0.5):
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
            await asyncio.sleep(1.0)
            assert await old.engine.apply("tick", [plan.plan_id], lambda _, __: []) == {}
            lease = await world.rows("select generation from lease where resource_id = $1", plan.plan_id)
            assert lease[0]["generation"] == 2
    for leg_id in ("tokens", "cash", "notarisation", "journal"):
        async with at.party(leg_id).database.as_owner() as owner:
            found = await owner.fetchval("select epoch_generation from participant_leg where plan_id = $1", plan.plan_id)
        assert found == 2, leg_id


async def test_an_older_generation_does_not_start(world: Any) -> None:
    """A coordinator whose generation file is older than the database does not start."""
    async with world.coordinator(generation=2):
        pass
    with pytest.raises(GenerationStale):
        async with world.coordinator(generation=1):
            pass


async def test_a_lost_plan_is_released(world: Any, snapshots: Snapshots) -> None:
    """Legs of a plan that was made and prepared in the time that was lost are found, released at its deadline, and its id is not used again."""
    plan = delivery_versus_payment(deadline=datetime.now(UTC) + timedelta(seconds=4))
    at = Stage(world, plan)
    async with world.coordinator(crash=True):
        snapshot = await coordinator_snapshot(world, snapshots)
        await at.to("PREPARED")
    await snapshots.put_back(snapshot)
    async with world.coordinator(generation=2):
        for _ in range(100):
            if await world.rows("select from orphan_leg where plan_id = $1", plan.plan_id):
                break
            await asyncio.sleep(0.05)
        with pytest.raises(Exception, match="draw another id"):
            await world.create(plan)
        assert (await at.party("cash").phases(plan))["cash"] == "PREPARED"
        for leg_id in ("tokens", "cash", "notarisation", "journal"):
            await at.phase(leg_id, "RELEASED")
        for _ in range(100):
            if not await world.rows("select from orphan_leg where settled_at is null"):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("orphans stay open")
    assert world.journal.types(plan)[-1] == "plan.aborted"
    assert world.journal.seals[plan.plan_id].journal_sequence == len(world.journal.chains[plan.plan_id]) + 1


async def test_the_id_of_a_plan_that_only_the_journal_knows_is_not_used_again(world: Any, snapshots: Snapshots) -> None:
    """A plan that was made in the time that was lost, and of which nobody was asked, has a chain: another one would contradict it."""
    plan, other = delivery_versus_payment(), delivery_versus_payment()
    async with world.coordinator(crash=True):
        snapshot = await coordinator_snapshot(world, snapshots)
        await world.create(plan)
        for _ in range(100):
            if world.journal.chains.get(plan.plan_id):
                break
            await asyncio.sleep(0.05)
    await snapshots.put_back(snapshot)
    world.journal.chains.setdefault(other.plan_id, [])
    async with world.coordinator(generation=2):
        with pytest.raises(Exception, match="draw another id"):
            await world.create(plan)
        assert await world.rows("select from plan where plan_id = $1", plan.plan_id) == []
        await world.create(other)
        assert await world.rows("select from plan where plan_id = $1", other.plan_id) != []
    assert world.journal.types(plan) == ["plan.created"]


async def test_a_lost_plan_that_was_decided_is_called_out(world: Any, snapshots: Snapshots) -> None:
    """Where a leg of a lost plan was told to execute, no other leg of it is released, and what is at risk is kept for a person."""
    plan = delivery_versus_payment(deadline=datetime.now(UTC) + timedelta(seconds=4))
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
        await asyncio.sleep(5.0)
        rows = await world.rows("select * from orphan_leg where plan_id = $1", plan.plan_id)
        assert all(each["finding"].startswith("ORPHAN_DECIDED") and each["settled_at"] is None for each in rows)
        assert {each["leg_id"] for each in rows} == {"tokens", "cash", "notarisation", "journal"}
    assert (await at.party("cash").phases(plan))["cash"] == "PREPARED"


# -- participants ----------------------------------------------------------------------------------------------------


async def party_snapshot(party: Any, snapshots: Snapshots) -> Snapshot:
    return await snapshots.take(party.database.name, party.database.role)


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
        for _ in range(100):
            if not await world.rows("select from leg_command where not answered"):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("a command is repeated for ever")
        found = await world.get(plan)
        assert (found.outcome, list(found.escalations), len(found.legs)) == (1, [], len(told))
        assert [(leg.vote, leg.outcome) for leg in found.legs] == [(leg.vote, leg.outcome) for leg in told]


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
        await snapshots.put_back(snapshot)
        if before == "prepared":
            # What its own loop finds outside, once more.
            await party.find(*[each for each in party.operations.begun if each.phase is Phase.PREPARING])
        await asyncio.sleep(1.0)
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


async def test_a_participant_is_put_back_while_its_news_is_kept(world: Any, snapshots: Snapshots) -> None:
    """What was heard of a plan that is not found again yet counts as heard: what the participant does after it was put back is later than that."""
    plan = delivery_versus_payment(deadline=datetime.now(UTC) + timedelta(seconds=6))
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
    async with world.coordinator(generation=2, call_seconds=0.5):
        await some(world, "select from leg_news where leg_id = 'cash'")
        await snapshots.put_back(forgets)
        await some(world, "select from participant_cursor where participant = $1 and sequence = 0", cash.name)
        await none(world, "select from sweep where participant = $1", cash.name)
        await tokens.up()
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
        for _ in range(200):
            if not await world.rows("select from journal_progress where appended < recorded"):
                break
            await asyncio.sleep(0.05)
        whole = {plan_id: list(chain) for plan_id, chain in world.journal.chains.items()}
        world.journal.chains.clear()
        world.journal.chains.update(chains)
        world.journal.seals.clear()
        await snapshots.put_back(snapshot)
        for _ in range(200):
            if world.journal.chains == whole and closed.plan_id in world.journal.seals:
                break
            await asyncio.sleep(0.05)
        with contextlib.suppress(AssertionError):
            await at.phase("journal", "COMMITTED")
        assert world.journal.chains == whole
        assert closed.plan_id in world.journal.seals
        await Stage(world, resting).on("PREPARED")
