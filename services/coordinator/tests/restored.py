"""Plans on their way while a database is put back, and what is waited for then."""

from __future__ import annotations

import asyncio
from typing import Any

from lockstep_kit.fence import Phase
from lockstep_kit.statements import Gate
from lockstep_testkit.snapshots import Snapshot, Snapshots

#: Where a plan stands when the snapshot is taken.
STAGES = ("DRAFT", "READY_FOR_PREPARE", "PREPARED", "EXECUTING", "VALIDATING", "COMMITTED")
SETTLING = ("tokens", "cash")
#: How often it is seen whether something came about, twenty times a second.
LOOKS_MAX = 1200


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
        for _ in range(LOOKS_MAX):
            if (await self.party(leg_id).phases(self.plan)).get(leg_id) in wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{leg_id} does not become {wanted}: {await self.party(leg_id).phases(self.plan)}")

    def begun(self, leg_id: str, phase: Phase) -> int:
        """How often work of a kind was begun for a leg."""
        return sum(
            (each.plan_id, each.leg_id, each.phase) == (self.plan.plan_id, leg_id, phase)
            for each in self.party(leg_id).operations.begun
        )


async def some(world: Any, query: str, *arguments: Any) -> None:
    """Wait until there are such rows."""
    for _ in range(LOOKS_MAX):
        if await world.rows(query, *arguments):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never: {query}")


async def none(world: Any, query: str, *arguments: Any) -> None:
    """Wait until there are no such rows."""
    for _ in range(LOOKS_MAX):
        if not await world.rows(query, *arguments):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"for ever: {query}")


async def heard_of(world: Any, plan: Any) -> None:
    """Wait until the journal has a chain of a plan."""
    for _ in range(LOOKS_MAX):
        if world.journal.chains.get(plan.plan_id):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the journal never heard of it")


async def raised(party: Any, plan: Any) -> None:
    """Wait until a participant's fence of a plan's leg is of the second generation."""
    async with party.database.as_owner() as owner:
        for _ in range(LOOKS_MAX):
            if await owner.fetchval("select epoch_generation from participant_leg where plan_id = $1", plan.plan_id) == 2:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("never raised")


async def noticed(world: Any, party: Any, version: str) -> None:
    """Wait until it was noticed that a participant was put back, and everything was compared: its place was written anew since this version of it."""
    await some(world, "select from participant_cursor where participant = $1 and xmin::text <> $2", party.name, version)
    await none(world, "select from sweep where participant = $1", party.name)


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


async def party_snapshot(party: Any, snapshots: Snapshots) -> Snapshot:
    return await snapshots.take(party.database.name, party.database.role)
