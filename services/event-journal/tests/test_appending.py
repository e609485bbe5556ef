"""Appending over real gRPC to a real database: what stands afterwards, however often and by however many it was sent."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from journal_world import APPENDED, CALL_SECONDS, CONFLICT, GAP, INVALID, STALE, JournalWorld, event_of

from lockstep.journal.v1 import journal_service_pb2
from lockstep.type.v1.outcome_pb2 import Epoch
from lockstep_kit.errors import from_rpc
from lockstep_kit.ids import journal_event_id
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.journal_events import payload_of
from lockstep_testkit.participants import ParticipantProcess


async def test_a_repeat_is_answered_as_before(world: JournalWorld) -> None:
    """The same events again stand once, and are answered with the very same hashes."""
    plan = delivery_versus_payment()
    events = [event_of(plan, sequence) for sequence in (1, 2, 3)]
    first = await world.append(*events)
    assert [answer.verdict for answer in first] == [APPENDED] * 3
    assert await world.append(*events) == first
    entries = await world.entries(plan.plan_id)
    assert [entry.entry_hash for entry in entries] == [answer.entry_hash for answer in first]
    assert [entry.payload for entry in entries] == [event.payload for event in events]


async def test_a_gap_is_told_what_is_expected(world: JournalWorld) -> None:
    """An event that comes before its turn is not stored, and the answer says which is next."""
    plan = delivery_versus_payment()
    answers = await world.append(event_of(plan, 1), event_of(plan, 3))
    assert [(answer.verdict, answer.expected_sequence) for answer in answers] == [(APPENDED, 0), (GAP, 2)]
    assert (await world.head(plan.plan_id))["entry_count"] == 1


@pytest.mark.parametrize("change", [{"payload": payload_of("leg.prepared", number=77)}, {"type": "leg.refused"}])
async def test_a_conflict_freezes_the_chain(world: JournalWorld, change: dict[str, Any]) -> None:
    """Another event at a place that is taken freezes that plan's chain, for good and over restarts, and no other plan's."""
    plan, other = delivery_versus_payment(), delivery_versus_payment()
    await world.append(event_of(plan, 1), event_of(plan, 2))
    answers = await world.append(event_of(plan, 2, **change), event_of(other, 1), event_of(plan, 3))
    assert [answer.verdict for answer in answers] == [CONFLICT, APPENDED, CONFLICT]
    assert (await world.append(event_of(plan, 3)))[0].verdict == CONFLICT
    assert (await world.append(event_of(plan, 2)))[0].verdict == APPENDED
    assert [entry.sequence for entry in await world.entries(plan.plan_id)] == [1, 2]


async def test_a_writer_whose_epoch_was_ended_is_not_obeyed(world: JournalWorld) -> None:
    """What it sent before arrives after the fence was raised: nothing is appended, nothing is frozen, and the writer of the new epoch goes on."""
    plan, unknown = delivery_versus_payment(), delivery_versus_payment()
    await world.append(event_of(plan, 1))
    for each in (plan, unknown):
        request = journal_service_pb2.RaiseFenceRequest(plan_id=each.plan_id, epoch=Epoch(generation=2, counter=1))
        await world.writer.RaiseFence(request, timeout=CALL_SECONDS)
        await world.writer.RaiseFence(request, timeout=CALL_SECONDS)
    late = await world.append(
        event_of(plan, 2), event_of(unknown, 1), event_of(plan, 1, payload=payload_of("plan.created", bytes(range(32))))
    )
    assert [answer.verdict for answer in late] == [STALE, STALE, STALE]
    newer = Epoch(generation=2, counter=1)
    other = event_of(plan, 2, payload=payload_of("leg.prepared", number=22), epoch=newer)
    assert [answer.verdict for answer in await world.append(other, event_of(unknown, 1, epoch=newer))] == [APPENDED, APPENDED]
    assert [entry.payload for entry in await world.entries(plan.plan_id)][1:] == [other.payload]


async def test_a_fence_without_an_epoch(world: JournalWorld) -> None:
    """An epoch is named as what is missing, by the fence and by an event alike, and nothing changes."""
    plan = delivery_versus_payment()
    event = event_of(plan, 1)
    event.ClearField("epoch")
    for call in (
        world.append(event),
        world.writer.RaiseFence(journal_service_pb2.RaiseFenceRequest(plan_id=plan.plan_id), timeout=CALL_SECONDS),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert from_rpc(refused.value).reason == "FIELD_INVALID"
        assert "epoch" in str(refused.value.details())
    assert await world.rows("select * from journal_chain where plan_id = $1", plan.plan_id) == []


async def test_another_plans_id_spoils_no_batch(world: JournalWorld) -> None:
    """An event with another plan's event id is INVALID by itself; the rest of the batch is appended, and its own plan goes on."""
    plan, thief, bystander = (delivery_versus_payment() for _ in range(3))
    await world.append(event_of(plan, 1), event_of(thief, 1))
    stolen = event_of(thief, 2, event_id=journal_event_id(plan.plan_id, 1))
    answers = await world.append(stolen, event_of(bystander, 1), event_of(plan, 2))
    assert [answer.verdict for answer in answers] == [INVALID, APPENDED, APPENDED]
    assert answers[0].message == "event_id must be the UUIDv5 of plan and sequence"
    assert (await world.append(event_of(thief, 2)))[0].verdict == APPENDED


@pytest.mark.parametrize("change", [{"actor": "a\0b"}, {"event_id": "a\0b"}, {"event_id": "x" * 5_000}, {"payload": b"[" * 40_000}])
async def test_what_the_database_would_refuse_spoils_no_batch(world: JournalWorld, change: dict[str, Any]) -> None:
    """An event that no database could store is INVALID by itself; the rest of the batch is appended."""
    plan, bad = delivery_versus_payment(), delivery_versus_payment()
    await world.append(event_of(bad, 1))
    answers = await world.append(event_of(bad, 2, **change), event_of(plan, 1))
    assert [answer.verdict for answer in answers] == [INVALID, APPENDED]
    assert (await world.head(bad.plan_id))["frozen"] == ""


@pytest.mark.parametrize("count", [0, 513])
async def test_batch_size(world: JournalWorld, count: int) -> None:
    """A batch has 1 to 512 events; another one is refused as a whole, with the field at fault."""
    plan = delivery_versus_payment()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.append(*(event_of(plan, 1) for _ in range(count)))
    error = from_rpc(caught.value)
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", "events")


async def test_malformed_plan_id(world: JournalWorld) -> None:
    """A plan id that is none is refused with its field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.append(event_of(delivery_versus_payment(), 1, plan_id="NOT-A-PLAN"))
    assert from_rpc(caught.value).metadata["field"] == "events[0].plan_id"


async def hammer(world: JournalWorld, plans: list[PlanCase], last: int) -> None:
    """A writer that begins anywhere and sends what it is told is missing."""
    for sequence in range(1, last + 1):
        answers = await world.append(*(event_of(plan, sequence) for plan in plans))
        assert {answer.verdict for answer in answers} <= {APPENDED, GAP}
        for plan, answer in zip(plans, answers, strict=True):
            if answer.verdict == GAP:
                await world.append(*(event_of(plan, each) for each in range(answer.expected_sequence, sequence + 1)))


async def test_many_writers_neither_fork_nor_gap(world: JournalWorld) -> None:
    """Many writers with the same events in batches of any order: each chain is whole, and the journal's order has no hole."""
    plans = [delivery_versus_payment() for _ in range(6)]
    writers = [hammer(world, plans if number % 2 else plans[::-1], 12) for number in range(8)]
    await asyncio.gather(*writers)
    for plan in plans:
        assert [entry.sequence for entry in await world.entries(plan.plan_id, page_size=5)] == list(range(1, 13))
        assert (await world.verify(plan.plan_id)).valid
    positions = [row["position"] for row in await world.rows("select position from journal_entry order by position")]
    assert positions == list(range(1, len(positions) + 1))


@pytest.mark.parametrize("place", ["before_tx", "in_tx", "after_commit"])
async def test_a_writer_that_repeats_loses_nothing(world: JournalWorld, service: ParticipantProcess, place: str) -> None:
    """Killed at any point of an append: the same batch again leaves every event once, in an unbroken chain."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    events = [event_of(plan, sequence) for sequence in (2, 3, 4)]
    request = journal_service_pb2.AppendRequest(events=events)
    await service.dies_at(f"event-journal.append.{place}", lambda: world.writer.Append(request, timeout=60))
    stood = (await world.head(plan.plan_id))["entry_count"]
    assert stood == (4 if place == "after_commit" else 1)
    response = await world.writer.Append(request, timeout=CALL_SECONDS, wait_for_ready=True)
    assert [answer.verdict for answer in response.answers] == [APPENDED] * 3
    assert (await world.verify(plan.plan_id)).valid
    assert (await world.head(plan.plan_id))["entry_count"] == 4
