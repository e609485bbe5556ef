"""Clocks that are off, and clocks that jump."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator.clocks import Skew, measure
from lockstep_kit.db import is_transient
from lockstep_kit.fence import Phase
from lockstep_kit.participant.watching import Cursor
from lockstep_testkit.clocks import JumpingClock
from lockstep_testkit.factories import delivery_versus_payment

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMIT = timedelta(seconds=30)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("told", "beyond"),
    [
        (0.0, False),
        (1.0, False),
        (29.9, False),
        (31.0, False),
        (31.1, True),
        (3_600.0, True),
        (-29.9, False),
        (-31.0, True),
        (-3_600.0, True),
    ],
)
def test_only_what_is_certainly_off_is_refused(told: float, beyond: bool) -> None:
    """With a round trip of one second, a clock counts as off when no moment of that second makes it right within the limit."""
    found = measure(NOON, at(told), at(1.0), LIMIT)
    assert found is not None
    assert found.beyond(LIMIT) is beyond


@pytest.mark.parametrize("after", [-0.001, 30.001, 3_600.0])
def test_what_measures_nothing_is_no_measurement(after: float) -> None:
    """A round trip longer than the limit, or a clock of our own that went back in between, says nothing of the other clock."""
    assert measure(NOON, NOON, at(after), LIMIT) is None


def test_an_offset_is_known_to_the_round_trip() -> None:
    """The interval is as wide as the round trip."""
    assert measure(NOON, at(5.0), at(2.0), LIMIT) == Skew(timedelta(seconds=3), timedelta(seconds=5))


async def test_nothing_is_prepared_with_a_clock_that_is_off(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan waits, unprepared, for a participant whose clock is an hour off; once it is right the plan goes on."""
    party = world.parties["bank-gateway"]
    head = party.engine.log_head

    async def ahead() -> tuple[Cursor, datetime]:
        cursor, now = await head()
        return cursor, now + timedelta(hours=1)

    monkeypatch.setattr(party.engine, "log_head", ahead)
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)
        await world.execute(plan)
        # Its checks have begun once everybody was asked; then they are made again and again.
        await world.reaches(plan, "PRECONDITIONS_PENDING")
        await asyncio.sleep(2.0)
        assert (await world.get(plan)).state == 3
        for each in world.parties.values():
            assert await each.phases(plan) == {}
        monkeypatch.undo()
        await world.reaches(plan, "READY_FOR_PREPARE")


async def test_leases_and_repeats_survive_a_clock_that_was_put_back(world: Any) -> None:
    """What a replica that is gone holds until an hour from now, because the clock was an hour ahead when it took it, is taken over at once."""
    plan = delivery_versus_payment()
    cash = world.parties["bank-gateway"]
    async with world.coordinator(crash=True):
        await world.started(plan)
        await world.reaches(plan, "PREPARED")
        await cash.down()
        await world.release(plan)
        await world.reaches(plan, "EXECUTING")
        await asyncio.sleep(0.5)
    async with world.database.as_owner() as owner:
        await owner.execute("update lease set expires_at = now() + interval '1 hour'")
        await owner.execute("update leg_command set due_at = now() + interval '1 hour' where not answered")
    await cash.up()
    async with world.coordinator():
        await world.reaches(plan, "VALIDATING")


HOUR = timedelta(hours=1)


@pytest.mark.parametrize("jump", [2 * HOUR, -2 * HOUR])
async def test_a_jump_gives_up_only_what_was_not_released(world: Any, jump: timedelta) -> None:
    """However the coordinator's clock jumps, and back again: what was not released is given up whole or not at all, what was goes forward whole."""
    waiting, released = delivery_versus_payment(), delivery_versus_payment()
    cash, tokens = world.parties["bank-gateway"], world.parties["dlt-gateway"]
    clock = JumpingClock(world.database.owner_url)
    await clock.prepare()
    async with world.coordinator():
        await world.started(waiting)
        await world.started(released)
        await world.reaches(waiting, "PREPARED")
        await world.reaches(released, "PREPARED")
        cash.operations.at_once = False
        await world.release(released)
        await world.reaches(released, "EXECUTING")
        await clock.set(jump)
        if jump > timedelta():
            await world.reaches(waiting, "ABORTED", "CLOSED")
        else:
            await asyncio.sleep(2.0)
            assert (await world.get(waiting)).state == 5
        assert (await world.get(released)).state == 6
        await clock.set(timedelta())
        cash.operations.at_once = True
        await cash.find(*[each for each in cash.operations.begun if each.phase is Phase.COMMITTING])
        await world.reaches(released, "VALIDATING")
        await world.validate(released)
        await world.reaches(released, "CLOSED")
        if jump < timedelta():
            await world.settled_from_prepared(waiting)
        else:
            # The participants' clocks are right: they hold on until the deadline has passed by them.
            assert (await cash.phases(waiting))["cash"] == (await tokens.phases(waiting))["tokens"] == "PREPARED"


async def test_a_participant_that_jumps_ahead_lets_nothing_go(world: Any) -> None:
    """A participant whose clock is two hours ahead has promised and keeps its promise: nobody tells it to let go, and the plan is settled."""
    plan = delivery_versus_payment()
    cash = world.parties["bank-gateway"]
    clock = JumpingClock(cash.database.owner_url)
    await clock.prepare()
    await reconnected(cash)
    async with world.coordinator():
        await world.started(plan)
        await world.reaches(plan, "PREPARED")
        await clock.set(2 * HOUR)
        assert await cash.db.now() - datetime.now(UTC) > HOUR
        await asyncio.sleep(1.0)
        assert (await cash.phases(plan))["cash"] == "PREPARED"
        await world.settled_from_prepared(plan)


async def reconnected(party: Any) -> None:
    """End the sessions of a participant's pool: what it opens from now on sees the prepared clock."""
    async with party.database.as_role() as role:
        await role.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
    for _ in range(1200):
        try:
            await party.db.now()
        except Exception as error:
            if not is_transient(error):
                raise
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the pool does not come back")
