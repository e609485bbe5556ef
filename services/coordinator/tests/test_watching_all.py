"""WatchPlans: what is open, then every change of every plan that the caller may see, once and in order, across reconnections, replicas and slow readers."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import asyncpg
import grpc
import pytest
from access_model import PREFIX, TABLES, THIRD, plan_for
from restored import coordinator_snapshot

import coordinator.following
import coordinator.plan_log
from coordinator.calls import awaited_gate
from coordinator.dossier import new_plan
from coordinator.following import GATE_STATES
from coordinator.model import State
from coordinator.store import changes, reading
from coordinator.watch_tokens import WatchTokens
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.type.v1 import signature_pb2
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import BUYER, SELLER, delivery_versus_payment
from lockstep_testkit.serving import refusal
from lockstep_testkit.snapshots import Snapshots

SECONDS = 240.0
CLOSED = settlement.PLAN_STATE_CLOSED
VALIDATING = settlement.PLAN_STATE_VALIDATING


class Watch:
    """A watcher of all plans that keeps what it was told."""

    def __init__(self, api: Any, token: str = "", **asked: Any) -> None:
        self.call = api.WatchPlans(messages.WatchPlansRequest(resume_token=token, **asked), timeout=SECONDS)
        self.token = token
        #: Plans of the snapshot, with the numbers that they hold.
        self.snapshot: dict[str, int] = {}
        #: Numbers of events by plan, as they came.
        self.numbers: dict[str, list[int]] = defaultdict(list)
        #: Last that was told of each plan.
        self.last: dict[str, messages.PlanNews] = {}
        #: Those that left.
        self.left: list[str] = []
        self.beats = 0

    async def one(self) -> Any:
        """The next message."""
        message: Any = await self.call.read()
        assert message is not grpc.aio.EOF
        self.token = message.resume_token or self.token
        self.beats += message.HasField("heartbeat")
        for news in message.news:
            assert [each.plan_id for each in news.events] == [news.plan_id] * len(news.events)
            self.numbers[news.plan_id] += [each.sequence for each in news.events]
            self.last[news.plan_id] = news
            if not self.token:
                self.snapshot[news.plan_id] = news.sequence
            if news.left:
                self.left.append(news.plan_id)
        return message

    async def begun(self) -> Watch:
        """It has the snapshot."""
        while not (await self.one()).snapshot_complete:
            pass
        return self

    async def until(self, holds: Callable[[Watch], bool]) -> Watch:
        """It was told what is waited for."""
        async with asyncio.timeout(SECONDS / 2):
            while not holds(self):
                await self.one()
        return self

    def closed(self, plan: Any) -> bool:
        """Whether it was told that a plan is closed."""
        told = self.last.get(plan.plan_id)
        return told is not None and any(each.transition.to_state == CLOSED for each in told.events)


async def last_number(world: Any, plan: Any) -> int:
    (row,) = await world.rows("select count(*) as count from plan_event where plan_id = $1", plan.plan_id)
    return int(row["count"])


async def test_everything_of_every_plan(world: Any) -> None:
    """The snapshot holds what is open; then every change of it comes, and of plans that are created later from their first on, dense, each once."""
    async with world.coordinator():
        closed, open_plan, later = (delivery_versus_payment() for _ in range(3))
        await world.create(closed)
        await world.cancel(closed)
        await world.reaches(closed, "CLOSED")
        await world.create(open_plan)
        watch = await Watch(world.api).begun()
        assert watch.snapshot == {open_plan.plan_id: await last_number(world, open_plan)}
        assert watch.last[open_plan.plan_id].plan.header.plan_id == open_plan.plan_id
        await world.create(later)
        await asyncio.gather(world.cancel(open_plan), world.settled_from_draft(later))
        await watch.until(lambda each: each.closed(open_plan) and each.closed(later))
        begun = watch.snapshot[open_plan.plan_id]
        assert watch.numbers[open_plan.plan_id] == list(range(begun + 1, await last_number(world, open_plan) + 1))
        assert watch.numbers[later.plan_id] == list(range(1, await last_number(world, later) + 1))
        assert not any(each.HasField("plan") for plan_id, each in watch.last.items())
        watch.call.cancel()


async def test_resuming_over_replicas(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes back with a token, at another replica too and far behind what is kept there, misses nothing and is told nothing twice."""
    monkeypatch.setattr(coordinator.plan_log, "KEPT_MAX", 4)
    monkeypatch.setattr(coordinator.plan_log, "PAGE_MAX", 3)
    monkeypatch.setattr(coordinator.plan_log, "NUMBERS_MAX", 2)
    plans = [delivery_versus_payment() for _ in range(3)]
    async with world.coordinator():
        watch = await Watch(world.api).begun()
        settling = [asyncio.create_task(world.settled(each)) for each in plans]
        tokens = {watch.token}
        numbers: dict[str, list[int]] = defaultdict(list)
        while not all(each.done() for each in settling):
            await watch.until(lambda each: each.beats > 0 or len(each.last) > 0)
            watch.call.cancel()
            for plan_id, found in watch.numbers.items():
                numbers[plan_id] += found
            tokens.add(watch.token)
            watch = Watch(world.api, watch.token)
        await asyncio.gather(*settling)
        token = watch.token
        watch.call.cancel()
    assert len(tokens) > 2
    async with world.coordinator():
        ends = {plan.plan_id: await last_number(world, plan) for plan in plans}
        rest = await Watch(world.api, token).until(
            lambda each: all(len(numbers[plan_id] + each.numbers[plan_id]) >= end for plan_id, end in ends.items())
        )
        assert {plan_id: numbers[plan_id] + rest.numbers[plan_id] for plan_id in ends} == {
            plan_id: list(range(1, end + 1)) for plan_id, end in ends.items()
        }
        rest.call.cancel()


async def test_what_happens_while_nobody_watches_is_counted(world: Any) -> None:
    """A plan that was watched before has its right numbers for who watches again, however much happened to it meanwhile."""
    async with world.coordinator() as made:
        plan = delivery_versus_payment()
        before = await Watch(world.api).begun()
        await world.create(plan)
        await before.until(lambda each: plan.plan_id in each.last)
        before.call.cancel()
        await world.execute(plan)
        async with asyncio.timeout(SECONDS):
            # What is kept is let go of when the log is looked at for nobody.
            while made.watchers.count or made.watchers._log._entries:  # noqa: ASYNC110 - nobody would set an event
                await asyncio.sleep(0.01)
        watch = await Watch(world.api).begun()
        await world.cancel(plan)
        await watch.until(lambda each: each.closed(plan))
        begun, end = watch.snapshot[plan.plan_id], await last_number(world, plan)
        assert before.numbers[plan.plan_id][-1] < begun < end
        assert watch.numbers[plan.plan_id] == list(range(begun + 1, end + 1))
        watch.call.cancel()


async def test_a_reader_that_falls_behind_reads_the_database(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes his time for more changes than are kept is told all of them, in order."""
    monkeypatch.setattr(coordinator.plan_log, "KEPT_MAX", 2)
    async with world.coordinator() as made:
        plan = delivery_versus_payment()
        told = made.servicer.WatchPlans(messages.WatchPlansRequest(), Caller("test"))
        async for message in told:
            if message.snapshot_complete:
                break
        await world.settled(plan)
        numbers: list[int] = []
        while len(numbers) < await last_number(world, plan):
            numbers += [each.sequence for news in (await anext(told)).news for each in news.events]
        assert numbers == list(range(1, len(numbers) + 1))
        await told.aclose()


class Caller:
    """A call's context that says who calls."""

    def __init__(self, name: str) -> None:
        self._name = name

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        return {"peer_spiffe_id": (f"{PREFIX}{self._name}".encode(),)}


async def test_everybody_is_told_of_his_own(world: Any) -> None:
    """In the snapshot and after it each client is told of the plans that it may see and of no other; nothing that it is given counts the others."""
    async with world.coordinator(**TABLES):
        stubs = {name: world.stub(world.port, PREFIX + name) for name in ("buyer", "third", "nobody", "auditor")}
        before, others = plan_for(BUYER, SELLER), plan_for(BUYER, THIRD)
        await world.create(before)
        watches = {name: await Watch(stub).begun() for name, stub in stubs.items()}
        await world.create(others)
        for plan in (before, others):
            await world.cancel(plan)
        both = {before.plan_id, others.plan_id}
        for name, seen in {"buyer": both, "auditor": both, "third": {others.plan_id}, "nobody": set()}.items():
            watch = watches[name]
            mine = [plan for plan in (before, others) if plan.plan_id in seen]
            await watch.until(lambda each, mine=mine: all(map(each.closed, mine)))  # type: ignore[misc]
            beats = watch.beats
            await watch.until(lambda each, beats=beats: each.beats > beats + 1)  # type: ignore[misc]
            assert set(watch.last) == seen, name
            assert set(watch.snapshot) == seen & {before.plan_id}, name
        lengths = {len(watch.token) for watch in watches.values()}
        assert len(lengths) == 1
        found = await refusal(Watch(stubs["third"], watches["buyer"].token).call)
        assert (found.code, found.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
        for watch in watches.values():
            watch.call.cancel()


async def test_filters(world: Any) -> None:
    """A plan that comes to fit is told whole, one that fits no more as one that left; a party's plans are told as they are."""
    async with world.coordinator(**TABLES):
        plan, other = plan_for(BUYER, SELLER), plan_for(BUYER, THIRD)
        by_state = await Watch(world.api, filter=messages.PlanFilter(states=[VALIDATING])).begun()
        by_gate = await Watch(world.api, filter=messages.PlanFilter(waiting_for=signature_pb2.GATE_APPROVE)).begun()
        by_party = await Watch(world.api, filter=messages.PlanFilter(party_id=THIRD.party_id)).begun()
        await world.create(other)
        await world.create(plan)
        await world.execute(plan)
        await by_gate.until(lambda each: plan.plan_id in each.last)
        assert by_gate.last[plan.plan_id].plan.state == settlement.PLAN_STATE_READY_FOR_PREPARE
        again = await Watch(world.api, filter=messages.PlanFilter(waiting_for=signature_pb2.GATE_APPROVE)).begun()
        assert set(again.snapshot) == {plan.plan_id}
        again.call.cancel()
        await world.sign(plan, plan.gate(Gate.APPROVE))
        await by_gate.until(lambda each: plan.plan_id in each.left)
        await world.reaches(plan, "PREPARED")
        await world.release(plan)
        await by_state.until(lambda each: plan.plan_id in each.last)
        assert by_state.last[plan.plan_id].plan.state == VALIDATING
        assert not by_state.left
        assert set((await Watch(world.api, filter=messages.PlanFilter(states=[VALIDATING])).begun()).snapshot) == {plan.plan_id}
        await world.validate(plan)
        await by_state.until(lambda each: plan.plan_id in each.left)
        await world.cancel(other)
        await by_party.until(lambda each: each.closed(other))
        assert set(by_party.last) == {other.plan_id}
        assert by_party.numbers[other.plan_id][0] == 1
        for bad in (
            {"filter": messages.PlanFilter(waiting_for=signature_pb2.GATE_MAKE)},
            {"filter": messages.PlanFilter(states=[cast("Any", 77)])},
            {"filter": messages.PlanFilter(party_id="No Party")},
            {"gather_time": timedelta(seconds=11)},
            {"token": "garbage"},
        ):
            assert (await refusal(Watch(world.api, **bad).call)).reason == "FIELD_INVALID", bad


async def test_whole_plans_gathered(world: Any) -> None:
    """Changes that are gathered are told together, each plan once and as it stands; the last word is where it stands at the end."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        watch = await Watch(world.api, whole_plans=True, gather_time=timedelta(seconds=1)).begun()
        settling = asyncio.create_task(world.settled(plan))
        told: list[messages.PlanNews] = []
        while not (told and told[-1].plan.state == CLOSED):
            news = (await watch.one()).news
            assert len(news) <= 1
            told += news
        await settling
        assert [each.sequence for each in told] == sorted({each.sequence for each in told})
        assert all(each.HasField("plan") and each.sequence >= each.events[-1].sequence for each in told)
        watch.call.cancel()


async def test_one_reader_for_all(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many watch a plan, or all of them, the log is read once: for a watch of one plan the database is asked at its begin and at its end."""
    asked: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def counted(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
        asked.append(query)
        return await fetch(self, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetch", counted)
    async with world.coordinator(heartbeat_seconds=60.0):
        plan = delivery_versus_payment()
        await world.create(plan)
        of_all = [await Watch(world.api).begun() for _ in range(4)]
        of_one = [world.api.WatchPlan(messages.WatchPlanRequest(plan_id=plan.plan_id), timeout=SECONDS) for _ in range(4)]
        for each in of_one:
            await each.read()
        ends = [asyncio.ensure_future(_all(each)) for each in of_one]
        asked.clear()
        await world.settled_from_draft(plan)
        seen = await asyncio.gather(*ends)
        for watch in of_all:
            await watch.until(lambda each: each.closed(plan))
            watch.call.cancel()
        last = await last_number(world, plan)
        assert [each[-1] for each in seen] == [last] * 4
        assert all(each == list(range(each[0], last + 1)) for each in seen)
        assert asked.count(changes.LOG) <= 2 * last
        assert asked.count(changes.BEFORE) <= 2
        assert asked.count(reading.EVENTS) <= 2 * len(of_one)


async def _all(call: Any) -> list[int]:
    """Numbers of what a watch of one plan brings until it ends."""
    return [each.event.sequence async for each in call if each.HasField("event")]


async def test_a_restore_makes_tokens_void(world: Any, snapshots: Snapshots) -> None:
    """A token of before the database was put back is refused by its reason, and a watch without it begins anew."""
    async with world.coordinator(crash=True):
        plan = delivery_versus_payment()
        await world.create(plan)
        watch = await Watch(world.api).begun()
        snapshot = await coordinator_snapshot(world, snapshots)
        await world.execute(plan)
        await watch.until(lambda each: plan.plan_id in each.numbers and bool(each.numbers[plan.plan_id]))
        watch.call.cancel()
    await snapshots.put_back(snapshot)
    async with world.coordinator(generation=2):
        found = await refusal(Watch(world.api, watch.token).call)
        assert (found.code, found.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
        again = await Watch(world.api).begun()
        assert set(again.snapshot) == {plan.plan_id}
        again.call.cancel()


async def test_tokens_grow_too_old(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token from which reading on would cost more than a snapshot is refused; with another filter than its own too."""
    async with world.coordinator():
        token = (await Watch(world.api).begun()).token
        await world.create(delivery_versus_payment())
        assert (await Watch(world.api, token).until(lambda each: bool(each.numbers))).numbers
        other = Watch(world.api, token, filter=messages.PlanFilter(states=[VALIDATING]))
        assert (await refusal(other.call)).reason == "RESUME_TOKEN_EXPIRED"
        monkeypatch.setattr(coordinator.following, "BEHIND_MAX", 1)
        assert (await refusal(Watch(world.api, token).call)).reason == "RESUME_TOKEN_EXPIRED"


async def test_a_slow_watcher_is_cut(world: Any) -> None:
    """Who takes too long for one message is cut, and says nothing against the others."""
    async with world.coordinator(slow_client_seconds=0.05) as made:
        await world.create(delivery_versus_payment())
        told = made.servicer.WatchPlans(messages.WatchPlansRequest(), Caller("test"))
        await anext(told)
        await asyncio.sleep(0.1)
        with pytest.raises(LockstepError) as caught:
            await anext(told)
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCHER_SLOW")
        (await Watch(world.api).begun()).call.cancel()


async def test_drain_and_limits(world: Any) -> None:
    """Watches of all plans count among the replica's, and end with UNAVAILABLE when it stops."""
    async with world.coordinator(watchers_max=1) as made:
        watch = await Watch(world.api).begun()
        assert (await refusal(Watch(world.api).call)).reason == "WATCHERS_TOO_MANY"
        await made.watchers.drain()
        found = await refusal(watch.call)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert (await refusal(Watch(world.api).call)).reason == "DRAINING"


async def test_who_brought_a_plan_is_told_of_it(world: Any) -> None:
    """A client that stands for a party when it brings a plan follows it for having brought it, whomever it stands for later."""
    plan = plan_for(BUYER, SELLER)
    rows = {
        "test": CallerSettings(methods=("*",), parties=(BUYER.party_id,)),
        "desk": CallerSettings(methods=("*",), desk=Desk.OPERATOR),
    }
    async with world.coordinator(clients=rows, operators={}):
        await world.create(plan)
    rows["test"] = CallerSettings(methods=("*",), parties=(THIRD.party_id,))
    async with world.coordinator(clients=rows, operators={}):
        watch = await Watch(world.api).begun()
        assert set(watch.snapshot) == {plan.plan_id}
        await world.cancel(plan)
        await watch.until(lambda each: each.closed(plan))
        watch.call.cancel()


@pytest.mark.parametrize("gate", GATE_STATES)
def test_where_gates_are_waited_for(gate: Gate) -> None:
    """The states in which a plan may wait for a gate are those in which the protocol has it wait for it."""
    case = delivery_versus_payment()
    plan = new_plan(case.header, case.legs)
    now = case.header.deadline
    found = {state for state in State if awaited_gate(replace(plan, state=state), now) is gate}
    # A plan without its approval waits for that first.
    assert found <= GATE_STATES[gate]
    assert gate is Gate.RELEASE or found == GATE_STATES[gate]


def test_tokens_are_sealed() -> None:
    """A token opens with any of the keys and for what it was sealed for alone, says nothing of its place, and a changed one is void."""
    old, new = bytes(32), bytes(range(32))
    token = WatchTokens([old]).seal(77, "log", "client")
    assert WatchTokens([new, old]).open(token, "log", "client") == 77
    assert token != WatchTokens([old]).seal(77, "log", "client")
    octets = bytearray(base64.urlsafe_b64decode(token))
    octets[30] ^= 1
    changed = base64.urlsafe_b64encode(octets).decode()
    for box, each, bound in (
        (WatchTokens([new]), token, ("log", "client")),
        (WatchTokens([old]), token, ("log", "another")),
        (WatchTokens([old]), changed, ("log", "client")),
    ):
        with pytest.raises(LockstepError) as caught:
            box.open(each, *bound)
        assert caught.value.reason == "RESUME_TOKEN_EXPIRED"
    for each in ("", "x", token[:-4], token + "AAAA"):
        with pytest.raises(FieldInvalid):
            WatchTokens([old]).open(each, "log", "client")
