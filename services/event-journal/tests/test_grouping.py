"""Calls that come together are carried together: each is answered by itself, and none spoils another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import pytest

from event_journal.appending import Answer, Submission, Verdict
from event_journal.chain import Event
from event_journal.grouping import GROUP_EVENTS_MAX, LANE_EVENTS_MIN, LANES_MAX, WAITING_EVENTS_MAX, GroupWriter
from lockstep_kit.errors import LockstepError
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_testkit.journal_events import payload_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def sent(name: str, count: int = 1) -> list[Submission]:
    """Events whose ids say whose they are."""
    payload = payload_of("leg.prepared")
    events = [
        Event(PlanId(name), n, f"{name}/{n}", "leg.prepared", "bank", "participant", NOW, payload) for n in range(2, count + 2)
    ]
    return [Submission(each, Epoch(1, 1)) for each in events]


def hashed(each: Submission) -> Digest:
    return sha256(each.event.event_id.encode())


@dataclass
class Store:
    """What is written, a transaction at a time, when the test lets it."""

    #: Event ids of each transaction that was begun.
    begun: list[list[str]] = field(default_factory=list)
    #: What makes a transaction fail, given its event ids.
    trouble: Callable[[list[str]], Exception | None] = lambda _: None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    #: Plans of each transaction that is under way, and the most that ever were.
    under_way: list[set[str]] = field(default_factory=list)
    most_under_way: int = 0

    async def write(self, events: Sequence[Submission]) -> list[Answer]:
        ids = [each.event.event_id for each in events]
        self.begun.append(ids)
        plans: set[str] = {each.event.plan_id for each in events}
        assert all(plans.isdisjoint(each) for each in self.under_way), "two transactions of one plan"
        self.under_way.append(plans)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        try:
            await self.opened.wait()
            trouble = self.trouble(ids)
            if trouble is not None:
                raise trouble
            return [Answer(Verdict.APPENDED, hashed(each)) for each in events]
        finally:
            self.under_way.remove(plans)


async def asked(writer: GroupWriter, *calls: Sequence[Submission]) -> list[asyncio.Task[Sequence[Answer]]]:
    """Calls that came one after another, and wait."""
    tasks = []
    for each in calls:
        tasks.append(asyncio.create_task(writer.append(each)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks


async def test_who_comes_meanwhile_is_carried_together() -> None:
    """The first call is begun at once; those that come while it is under way are one transaction, and each gets its own answers."""
    store = Store()
    writer = GroupWriter(store.write)
    calls = [sent("a", 2), sent("b", 2), sent("c", 3)]
    tasks = await asked(writer, *calls)
    assert store.begun == [["a/2", "a/3"]]
    store.opened.set()
    for call, answers in zip(calls, await asyncio.gather(*tasks), strict=True):
        assert [answer.entry_hash for answer in answers] == [hashed(each) for each in call]
    assert store.begun[1:] == [["b/2", "b/3", "c/2", "c/3", "c/4"]]


async def test_a_group_has_a_limit() -> None:
    """No transaction carries more than its limit, and a call is never parted; beyond what may wait, calls are refused and nothing is done."""
    store = Store()
    writer = GroupWriter(store.write)
    size = GROUP_EVENTS_MAX // 2 - 1
    tasks = await asked(writer, sent("first"), *(sent(name, size) for name in "abcde"))
    store.opened.set()
    await asyncio.gather(*tasks)
    # The second lane takes the first two that find one under way; the rest follow as lanes become free.
    assert sorted(len(each) for each in store.begun) == [1, size, 2 * size, 2 * size]
    store.opened.clear()
    event = sent("x")[0]
    tasks = await asked(writer, [event], [event] * WAITING_EVENTS_MAX)
    with pytest.raises(LockstepError, match="JOURNAL_BUSY"):
        await writer.append([event])
    store.opened.set()
    await asyncio.gather(*tasks)
    assert (await writer.append([event]))[0].verdict is Verdict.APPENDED


async def test_a_caller_that_gives_up_takes_nobody_with_it() -> None:
    """What was begun goes on without its caller; what was not begun is left out; the others are answered."""
    store = Store()
    writer = GroupWriter(store.write)
    first, second, third, fourth = await asked(writer, sent("a"), sent("b"), sent("c"), sent("d"))
    first.cancel()
    third.cancel()
    await asyncio.gather(first, third, return_exceptions=True)
    store.opened.set()
    assert [(await each)[0].verdict for each in (second, fourth)] == [Verdict.APPENDED] * 2
    assert store.begun == [["a/2"], ["b/2", "d/2"]]


async def test_without_a_database_every_caller_is_told() -> None:
    """A transaction that the database could not do now fails for all of its callers, once, and the next one begins anew."""
    store = Store(trouble=lambda ids: asyncpg.PostgresConnectionError() if "b/2" in ids else None)
    writer = GroupWriter(store.write)
    tasks = await asked(writer, sent("a"), sent("b"), sent("c"))
    store.opened.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], list)
    assert [type(each) for each in found[1:]] == [asyncpg.PostgresConnectionError] * 2
    assert store.begun == [["a/2"], ["b/2", "c/2"]]
    assert (await writer.append(sent("c")))[0].verdict is Verdict.APPENDED


async def test_one_that_is_at_fault_spoils_no_other() -> None:
    """Where a transaction fails by what it carries, each call is carried alone: the one at fault is told so, the others are appended."""
    store = Store(trouble=lambda ids: asyncpg.DataError("what no database takes") if "b/2" in ids else None)
    writer = GroupWriter(store.write)
    tasks = await asked(writer, sent("a"), sent("b"), sent("c"))
    store.opened.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncpg.DataError)
    assert not any(isinstance(each, Exception) for each in (found[0], found[2]))
    assert store.begun == [["a/2"], ["b/2", "c/2"], ["b/2"], ["c/2"]]


async def test_a_second_batch_is_begun_beside_the_first() -> None:
    """Where enough waits, a second transaction is begun while the first is under way, and never a third; few calls wait for company instead."""
    store = Store()
    writer = GroupWriter(store.write)
    few = await asked(writer, sent("a"), sent("b", LANE_EVENTS_MIN - 1))
    assert [len(each) for each in store.begun] == [1]
    many = await asked(writer, sent("c", 2), sent("d", LANE_EVENTS_MIN))
    assert [len(each) for each in store.begun] == [1, LANE_EVENTS_MIN + 1]
    assert len(store.under_way) == LANES_MAX
    store.opened.set()
    await asyncio.gather(*few, *many)
    assert store.most_under_way == LANES_MAX
    assert store.begun[2:] == [[f"d/{n}" for n in range(2, LANE_EVENTS_MIN + 2)]]


async def test_the_events_of_a_plan_are_never_in_two_batches_at_once() -> None:
    """A call of a plan that is under way waits for its end, and so does whatever came after it of the same plans; others pass it by."""
    store = Store()
    writer = GroupWriter(store.write)
    blocked = [*sent("a", LANE_EVENTS_MIN), *sent("b")]
    tasks = await asked(writer, sent("a"), blocked, sent("b", 3), sent("c"))
    assert store.begun == [["a/2"], ["c/2"]]
    store.opened.set()
    await asyncio.gather(*tasks)
    ids = [each for begun in store.begun for each in begun]
    of_b = [place for place, each in enumerate(ids) if each.startswith("b/")]
    assert [ids[place] for place in of_b] == ["b/2", "b/2", "b/3", "b/4"]


async def test_a_process_that_ends_leaves_nobody_waiting() -> None:
    """When a writer's own task is ended, whoever waits is ended with it, and does not wait for ever; what another has under way goes on."""
    store = Store()
    writer = GroupWriter(store.write)
    tasks = await asked(writer, sent("a"), sent("b", LANE_EVENTS_MIN), sent("c"))
    first, second = writer._group._lanes
    first.cancel()
    found = await asyncio.gather(tasks[0], tasks[2], return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in found)
    store.opened.set()
    assert len(await tasks[1]) == LANE_EVENTS_MIN
    await second
    assert (await writer.append(sent("c")))[0].verdict is Verdict.APPENDED


async def test_a_writer_that_is_ended_before_it_begins_hinders_nobody() -> None:
    """A lane whose task is ended before its first step does not stand in the way of the next one."""
    store = Store()
    store.opened.set()
    writer = GroupWriter(store.write)
    call = asyncio.create_task(writer.append(sent("a")))
    await asyncio.sleep(0)
    next(iter(writer._group._lanes)).cancel()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (await writer.append(sent("b")))[0].verdict is Verdict.APPENDED
