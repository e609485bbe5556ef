"""Crashes, take-overs and stale replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from coordinator import protocol
from coordinator.model import Event, LegNews, Limits, Plan, Step, Tick
from lockstep_kit import failpoints
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import delivery_versus_payment

#: Every place at which one settlement passes; a raise there ends the replica as a crash would.
PLACES = [
    *(
        f"coordinator.{kind}.{where}"
        for kind in ("checks", "vote", "outcome", "close")
        for where in ("before_tx", "in_tx", "after_commit")
        if (kind, where) != ("close", "before_tx")
    ),
    *(f"coordinator.{call}.{where}" for call in ("prepare", "commit", "append") for where in ("before_send", "after_send")),
]


async def persists(world: Any, plan: Any) -> None:
    """What people and clients do when the service goes away: they ask again until it is done."""
    doing: tuple[tuple[int, Callable[[], Any]], ...] = (
        (1, lambda: world.execute(plan)),
        (4, lambda: world.sign(plan, plan.gate(Gate.APPROVE))),
        (5, lambda: world.release(plan)),
        (7, lambda: world.validate(plan)),
    )
    for _ in range(10_000):
        found = await world.get(plan)
        if found.state in (9, 10, 11):
            return
        for state, do in doing:
            approved = state == 4 and any(each.signature.gate == 2 for each in found.gates)
            if found.state == state and not approved:
                with contextlib.suppress(Exception):
                    await do()
        await asyncio.sleep(0.02)
    raise AssertionError("the plan does not get on")


async def test_crashes(world: Any) -> None:
    """A replica that dies anywhere loses nothing: another takes its plans over and settles them, each leg once."""
    for place in PLACES:
        async with asyncio.timeout(240):
            await crashes(world, place)


async def crashes(world: Any, place: str) -> None:
    """One plan, whose replica dies at a place."""
    plan = delivery_versus_payment()
    failpoints.arm(f"{place}=raise")
    async with world.coordinator(crash=True):
        await world.create(plan)
        doing = asyncio.create_task(persists(world, plan))
        await asyncio.wait([doing, world.ended], return_when=asyncio.FIRST_COMPLETED)
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        assert world.ended.done(), f"{place} was never passed"
    failpoints.arm("")
    async with world.coordinator():
        await persists(world, plan)
        found = await world.reaches(plan, "CLOSED")
    assert (found.decision, found.outcome) == (1, 1), place
    types = world.journal.types(plan)
    assert types.count("plan.released") == 1, place
    assert types.count("leg.executed") == 2, place
    epochs = await world.rows("select counter from lease where resource_id = $1", plan.plan_id)
    assert epochs[0]["counter"] == (1 if place == "coordinator.close.after_commit" else 2), place


async def test_requests_that_were_cut_off(world: Any) -> None:
    """A request whose answer was lost is done not at all or wholly; asked again with its id, it is answered as if nothing had happened."""
    for kind in ("create", "execute", "gate", "decision"):
        for where in ("before_tx", "in_tx", "after_commit"):
            # That a transaction decides is known in it alone.
            if (kind, where) != ("decision", "before_tx"):
                await cut_off(world, f"coordinator.{kind}.{where}")


async def cut_off(world: Any, place: str) -> None:
    """One plan, whose requests fail at a place the first time."""
    plan = delivery_versus_payment()
    decides = ".decision." in place
    async with world.coordinator():
        for send in (world.requests.create(plan), world.requests.execute(plan), world.requests.approve(plan)):
            failpoints.arm("" if decides else f"{place}=raise")
            with contextlib.suppress(Exception):
                await send()
            failpoints.arm("")
            first = await send()
            assert await send() == first, place
        await world.reaches(plan, "PREPARED")
        release = world.requests.release(plan, await world.get(plan))
        failpoints.arm(f"{place}=raise" if decides else "")
        with contextlib.suppress(Exception):
            await release()
        failpoints.arm("")
        assert await release() == await release(), place
        await world.reaches(plan, "VALIDATING")
        await world.journalled(plan)
    assert world.journal.types(plan).count("plan.released") == 1, place


async def test_a_stale_replica_changes_nothing(world: Any) -> None:
    """A replica whose lease was taken over can neither step the plan nor write past the database."""
    async with world.coordinator() as first:
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        async with world.database.as_owner() as owner:
            await owner.execute(
                "update lease set owner = 'other', counter = counter + 1, expires_at = now() + interval '4 minutes'"
            )
        assert await first.engine.apply("tick", [plan.plan_id], lambda _, __: [Tick()]) == {}
        with pytest.raises(Exception, match="another replica is working on the plan"):
            await world.release(plan)
        async with world.database.as_owner() as owner:
            await owner.execute("update plan set epoch_counter = 2, version = version + 1")
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="lost its lease"):
                await owner.execute("update plan set epoch_counter = 1, version = version + 1")
        async with world.database.as_owner() as owner:
            await owner.execute("alter table lease disable trigger lease_stays")
            await owner.execute("update lease set expires_at = now() - interval '1 second'")
        await world.release(plan)
        await world.reaches(plan, "VALIDATING")
    (lease,) = await world.rows("select counter from lease")
    assert lease["counter"] == 3


async def test_two_replicas(world: Any) -> None:
    """Two replicas at once settle every plan once; news that reaches the wrong one is kept for the right one, and no longer."""
    async with world.coordinator(), world.coordinator(serve=False):
        plans = await asyncio.gather(*(world.settled() for _ in range(4)))
        for plan in plans:
            assert world.journal.types(plan).count("plan.released") == 1
        for _ in range(1200):
            if not await world.rows("select from leg_news"):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("news is kept although it was taken")


async def test_a_lower_generation_takes_nothing(world: Any) -> None:
    """A replica of an older generation that still runs takes no plan, neither one of a newer one nor one of its own."""
    async with world.coordinator(generation=1) as old:
        mine, new = delivery_versus_payment(), delivery_versus_payment()
        await world.create(mine)
        async with world.coordinator(generation=2):
            await world.create(new)
        for plan in (mine, new):
            assert await old.engine.apply("tick", [plan.plan_id], lambda _, __: [Tick()]) == {}


async def test_one_impossible_plan_holds_up_no_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan whose step breaks a rule is left as it was; the plans that were heard of together with it go on."""
    broken, sound = delivery_versus_payment(), delivery_versus_payment()
    step = protocol.step

    def checked(plan: Plan, event: Event, now: datetime, limits: Limits) -> Step:
        if plan.plan_id == broken.plan_id and isinstance(event, LegNews | Tick):
            raise AssertionError("impossible")
        return step(plan, event, now, limits)

    monkeypatch.setattr(protocol, "step", checked)
    async with world.coordinator():
        await asyncio.gather(world.started(broken), world.started(sound))
        await world.reaches(broken, "READY_FOR_PREPARE")
        await world.settled_from_prepared(sound)
        assert (await world.get(broken)).state == 4
        monkeypatch.undo()
    async with world.coordinator():
        await world.settled_from_prepared(broken)
