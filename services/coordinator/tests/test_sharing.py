"""Transactions that callers share: one for whatever waits, each caller answered by itself, and nothing lost with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from coordinator.dossier import Dossier
from coordinator.dossiers import Dossiers
from coordinator.engine import Work
from coordinator.model import Event, PersonNeeded
from coordinator.sharing import Share
from coordinator.store import plans
from lockstep_kit import failpoints
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import delivery_versus_payment


@asynccontextmanager
async def held_up(made: Any) -> Any:
    """What is asked inside waits behind a transaction, and goes together when the block ends."""
    let, begun = asyncio.Event(), asyncio.Event()

    async def wait(_: Work) -> None:
        begun.set()
        await let.wait()

    first = asyncio.create_task(made.engine.share(Share("tick", frozenset(), lambda _: None, wait)))
    await begun.wait()
    yield
    await asyncio.sleep(0.05)
    let.set()
    await first


def calls(detail: str) -> Any:
    return lambda _, __: [PersonNeeded("LEG_TROUBLE", "cash", detail)]


def impossible(_: Dossier, __: datetime) -> Sequence[Event]:
    raise AssertionError("this cannot be")


async def tickets(world: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in await world.rows("select plan_id, detail from escalation order by plan_id, ordinal"):
        found.setdefault(row["plan_id"], []).append(row["detail"])
    return found


async def test_what_waits_goes_together(world: Any) -> None:
    """Callers that wait share one transaction; a plan's events come in the order in which they were given; what cannot be is its caller's alone."""
    cases = [delivery_versus_payment() for _ in range(4)]
    seen: list[int] = []

    def second(dossier: Dossier, _: datetime) -> Sequence[Event]:
        seen.append(len(dossier.plan.tickets))
        return [PersonNeeded("EVIDENCE_REJECTED", "", "second")]

    async with world.coordinator() as made:
        for each in cases:
            await world.create(each)
        apply, (a, b, c, bad) = made.engine.apply, [each.plan_id for each in cases]
        async with held_up(made):
            asked = [
                asyncio.create_task(work)
                for work in (
                    apply("tick", [a], calls("first")),
                    apply("vote", [b, c], calls("both")),
                    apply("outcome", [bad], impossible),
                    apply("outcome", [a], second),
                )
            ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [set(each) if isinstance(each, dict) else type(each) for each in found] == [{a}, {b, c}, AssertionError, {a}]
        assert seen == [1]
        assert await tickets(world) == {a: ["first", "second"], b: ["both"], c: ["both"]}
        assert len(await world.rows("select distinct xmin::text from escalation")) == 1
        assert {row["version"] for row in await world.rows("select version from plan where plan_id <> $1", bad)} == {2}


async def test_what_belongs_together_stays_together(world: Any) -> None:
    """What a caller writes beside its steps is in the same transaction: where that fails, neither stays, and the others have theirs all the same."""
    cases = [delivery_versus_payment() for _ in range(3)]
    async with world.coordinator() as made:
        for each in cases:
            await world.create(each)
        a, b, c = (each.plan_id for each in cases)

        def share(plan_id: Any, participant: str, *, fails: bool) -> Share[None]:
            def step(work: Work) -> None:
                work.step(plan_id, PersonNeeded("LEG_TROUBLE", "cash", participant))

            async def write(work: Work) -> None:
                work.heard(participant, "log", 7)
                if fails:
                    raise RuntimeError("it fails")

            return Share("outcome", frozenset({plan_id}), step, write, participant)

        async with held_up(made):
            asked = [
                asyncio.create_task(made.engine.share(each))
                for each in (share(a, "one", fails=False), share(b, "two", fails=True), share(c, "three", fails=False))
            ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in found] == [type(None), RuntimeError, type(None)]
        assert await tickets(world) == {a: ["one"], c: ["three"]}
        cursors = await world.rows("select participant from participant_cursor where incarnation = 'log' order by participant")
        assert [row["participant"] for row in cursors] == ["one", "three"]


async def test_a_plan_that_another_has_locked_holds_nobody_up(world: Any) -> None:
    """While somebody's transaction holds one plan, others that were asked for later go on; the one goes on when that ends."""
    stuck, other = delivery_versus_payment(), delivery_versus_payment()
    async with world.coordinator() as made:
        await world.create(stuck)
        await world.create(other)
        async with world.database.as_owner() as owner:
            async with owner.transaction():
                await owner.execute("select from lease where resource_id = $1 for update", stuck.plan_id)
                waits = asyncio.create_task(made.engine.apply("tick", [stuck.plan_id], calls("stuck")))
                await asyncio.sleep(0.1)
                assert set(await made.engine.apply("tick", [other.plan_id], calls("other"))) == {other.plan_id}
                assert not waits.done()
            assert set(await waits) == {stuck.plan_id}
        assert await tickets(world) == {stuck.plan_id: ["stuck"], other.plan_id: ["other"]}


@pytest.mark.parametrize("where", ["before_tx", "in_tx", "after_commit"])
async def test_a_crash_within_a_group_loses_nothing(world: Any, where: str) -> None:
    """A replica that dies while several callers share a transaction leaves all of it or nothing, and its plans are settled by the next one."""
    cases = [delivery_versus_payment() for _ in range(3)]
    async with world.coordinator(crash=True) as made:
        for each in cases:
            await world.started(each)
            await world.reaches(each, "PREPARED")
        ids = [each.plan_id for each in cases]
        async with held_up(made):
            failpoints.arm(f"coordinator.vote.{where}=raise")
            kinds = ("outcome", "vote", "tick")
            asked = [
                asyncio.create_task(made.engine.apply(kind, [plan_id], calls("told")))
                for kind, plan_id in zip(kinds, ids, strict=True)
            ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in found} == {failpoints.FailpointRaised}
    failpoints.arm("")
    assert await tickets(world) == ({each: ["told"] for each in ids} if where == "after_commit" else {})
    async with world.coordinator():
        for each in cases:
            await world.settled_from_prepared(each)


async def test_what_is_known_of_a_plan_is_what_is_stored(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not read again is as it would be read; what somebody else changed is read again."""
    async with world.coordinator() as made:
        known, plan = made.engine.dossiers, delivery_versus_payment()

        async def same() -> Dossier:
            async with made.engine.db.transaction() as tx:
                found: Dossier = (await known.read(tx, [plan.plan_id], lock=True)).dossiers[plan.plan_id]
                stored = (await plans.read(tx, [plan.plan_id])).dossiers[plan.plan_id]
            assert replace(found, read_at=None) == replace(stored, read_at=None)
            return found

        await world.create(plan)
        await same()
        await world.execute(plan)
        await world.sign(plan, plan.gate(Gate.APPROVE))
        await world.reaches(plan, "PREPARED")
        await same()
        await made.engine.apply("tick", [plan.plan_id], calls("told"))
        before = await same()

        async def never(*_: Any, **__: Any) -> None:
            raise AssertionError("it was read again")

        with monkeypatch.context() as patched:
            patched.setattr(plans, "read", never)
            async with made.engine.db.connection() as connection:
                again = (await known.read(connection, [plan.plan_id])).dossiers[plan.plan_id]
        assert again.plan is before.plan
        async with world.database.as_owner() as owner:
            await owner.execute("update journal_progress set frozen = 'another chain' where plan_id = $1", plan.plan_id)
        assert (await same()).frozen == "another chain"
        async with world.database.as_owner() as owner:
            await owner.execute(
                "update plan set reason_detail = 'by another', version = version + 1 where plan_id = $1", plan.plan_id
            )
        assert (await same()).plan.reason_detail == "by another"


async def test_what_is_forgotten_while_others_are_read_is_told(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is closed by another transaction, while a listing reads the plans beside it, is listed as it was seen."""
    async with world.coordinator() as made:
        first, second = delivery_versus_payment(), delivery_versus_payment()
        await world.create(first)
        await world.create(second)
        known, read = Dossiers(), plans.read
        async with made.engine.db.connection() as connection:
            await known.read(connection, [first.plan_id])

            async def meanwhile(*arguments: Any) -> plans.Read:
                known._known.clear()
                return await read(*arguments)

            monkeypatch.setattr(plans, "read", meanwhile)
            found = (await known.read(connection, [first.plan_id, second.plan_id])).dossiers
        assert found.keys() == {first.plan_id, second.plan_id}
