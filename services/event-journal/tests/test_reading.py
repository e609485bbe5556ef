"""Reading the journal over real mutual TLS: pages, streams, verification, and what bad tokens are answered."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import grpc
import pytest
from journal_world import CALL_SECONDS, JournalWorld, event_of

from lockstep.journal.v1 import (
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep_client.convert import entry_from_pb
from lockstep_client.journal_chain import Entry
from lockstep_kit.errors import from_rpc
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.participants import CLIENT, COORDINATOR, ParticipantProcess


async def chain(world: JournalWorld, count: int = 3) -> PlanCase:
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in range(1, count + 1)))
    return plan


async def taken(stream: Any, count: int, *, silent: int = 0) -> tuple[list[Entry], str]:
    """So many entries of a stream, and the token behind them."""
    found: list[Entry] = []
    token, heartbeats = "", 0
    async for message in stream:
        found += [entry_from_pb(entry) for entry in message.entries]
        token = message.resume_token
        heartbeats += not message.entries
        if len(found) >= count and heartbeats >= silent:
            break
    stream.cancel()
    return found, token


async def test_pages(world: JournalWorld) -> None:
    """Pages of any size meet each entry once, in order; a plan that is not known has none."""
    plan = await chain(world, 7)
    for size in (0, 1, 3, 7, 8):
        assert [entry.sequence for entry in await world.entries(plan.plan_id, size)] == list(range(1, 8))
    assert await world.entries(delivery_versus_payment().plan_id) == []


async def test_pages_of_many_plans(world: JournalWorld) -> None:
    """Pages of any size over many plans meet each entry of each once, in order of plan and sequence; a plan that is not known has none."""
    counts = {(await chain(world, count)).plan_id: count for count in (1, 4, 2)}
    await chain(world, 2)
    asked = [*counts, delivery_versus_payment().plan_id]
    expected = [(plan_id, sequence) for plan_id in sorted(counts) for sequence in range(1, counts[plan_id] + 1)]
    for size in (0, 1, 2, 7, 8):
        found = await world.chains(asked, size)
        assert [(entry.plan_id, entry.sequence) for entry in found] == expected
        assert found == [entry for plan_id in sorted(counts) for entry in await world.entries(plan_id)]


PLAN = delivery_versus_payment().plan_id
WRONG_PLANS = [
    ({}, "plan_id"),
    ({"plan_id": PLAN, "plan_ids": [PLAN]}, "plan_id"),
    ({"plan_ids": [PLAN, "x"]}, "plan_ids[1]"),
    ({"plan_ids": [PLAN, PLAN]}, "plan_ids"),
    ({"plan_ids": [delivery_versus_payment().plan_id for _ in range(65)]}, "plan_ids"),
]


@pytest.mark.parametrize(("asked", "field"), WRONG_PLANS)
async def test_wrong_plans(world: JournalWorld, asked: dict[str, Any], field: str) -> None:
    """A request names one plan or at most 64 different ones, and is told which it is not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.reader.ListEntries(journal_reader_service_pb2.ListEntriesRequest(**asked), timeout=CALL_SECONDS)
    error = from_rpc(caught.value)
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", field)


TOKENS = [
    "x",
    "ö",
    "!!!!",
    base64.urlsafe_b64encode(b"journal").decode(),
    base64.urlsafe_b64encode(b"journal:a:-1").decode(),
    base64.urlsafe_b64encode(b"journal:a:1:2").decode(),
    base64.urlsafe_b64encode(b"journal:a:" + b"9" * 40).decode(),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
]


@pytest.mark.parametrize("token", TOKENS)
async def test_bad_tokens(world: JournalWorld, token: str) -> None:
    """A token that this service did not give is FIELD_INVALID by name, never an internal error."""
    plan = await chain(world)
    request = journal_reader_service_pb2.ListEntriesRequest(plan_id=plan.plan_id, page_token=token)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.reader.ListEntries(request, timeout=CALL_SECONDS)
    error = from_rpc(caught.value)
    assert (error.code, error.reason, error.metadata["field"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        "page_token",
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await taken(world.watch(token=token), 1)
    assert from_rpc(caught.value).metadata["field"] == "resume_token"


async def test_a_token_of_another_plan(world: JournalWorld) -> None:
    """A page token goes on with the plan that it was given for, and with no other."""
    plan, other = await chain(world), await chain(world)
    first = journal_reader_service_pb2.ListEntriesRequest(plan_id=plan.plan_id, page_size=1)
    token = (await world.reader.ListEntries(first, timeout=CALL_SECONDS)).next_page_token
    request = journal_reader_service_pb2.ListEntriesRequest(plan_id=other.plan_id, page_token=token)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.reader.ListEntries(request, timeout=CALL_SECONDS)
    assert from_rpc(caught.value).metadata["field"] == "page_token"


async def test_replay_then_live(world: JournalWorld) -> None:
    """A stream replays what stands and goes on live while others append: each entry once, none passed over."""
    plan = await chain(world, 3)
    stream = asyncio.create_task(taken(world.watch(plan.plan_id), 40))
    for sequence in range(4, 41):
        others = [event_of(delivery_versus_payment(), 1) for _ in range(2)]
        await asyncio.gather(world.append(event_of(plan, sequence)), world.append(*others))
    found, _ = await stream
    assert [entry.sequence for entry in found] == list(range(1, 41))


async def test_all_plans_in_one_order(world: JournalWorld) -> None:
    """A stream of all plans carries every entry in the order of its place, while many append at once; it resumes where it was left."""
    _, start = await taken(world.watch(), 1, silent=1)
    plans = [delivery_versus_payment() for _ in range(10)]
    stream = asyncio.create_task(taken(world.watch(token=start), 25))
    await asyncio.gather(*(world.append(*(event_of(plan, number) for number in range(1, 6))) for plan in plans))
    first, token = await stream
    rest, _ = await taken(world.watch(token=token), 50 - len(first))
    assert sorted((entry.plan_id, entry.sequence) for entry in (*first, *rest)) == sorted(
        (plan.plan_id, number) for plan in plans for number in range(1, 6)
    )


async def test_heartbeats(world: JournalWorld) -> None:
    """A silent stream is not a lost one: it says so, with a token that resumes."""
    plan = await chain(world)
    found, token = await taken(world.watch(plan.plan_id), 3, silent=2)
    assert len(found) == 3
    await world.append(event_of(plan, 4))
    later, _ = await taken(world.watch(plan.plan_id, token), 1)
    assert [entry.sequence for entry in later] == [4]


async def test_a_stream_over_a_restart(world: JournalWorld, service: ParticipantProcess) -> None:
    """A stopping journal ends its streams as UNAVAILABLE; the token resumes at the next process."""
    plan = await chain(world)
    stream = world.watch(plan.plan_id)
    token = (await stream.read()).resume_token
    ended = asyncio.create_task(taken(stream, 99))
    await service.restart()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ended
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await world.append(event_of(plan, 4))
    later, _ = await taken(world.watch(plan.plan_id, token), 1)
    assert [entry.sequence for entry in later] == [4]


async def test_a_token_of_a_log_that_is_no_more(world: JournalWorld) -> None:
    """After a restore the places mean something else: a token from before is refused as expired, never answered with a gap."""
    _, token = await taken(world.watch(), 1, silent=1)
    incarnation = base64.urlsafe_b64decode(token).decode().split(":")[1]
    ahead = base64.urlsafe_b64encode(f"journal:{incarnation}:{10**9}".encode()).decode()
    other = base64.urlsafe_b64encode(b"journal:another-log:1").decode()
    for lost in (ahead, other):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await taken(world.watch(token=lost), 1)
        assert from_rpc(caught.value).reason == "RESUME_TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("statements", "rules"),
    [
        (("update journal_entry set payload = '{\"n\":7}' where plan_id = $1 and sequence = 2",), {(2, "ENTRY_CHANGED")}),
        (("update journal_entry set actor = 'mallory' where plan_id = $1 and sequence = 2",), {(2, "ENTRY_CHANGED")}),
        (("update journal_entry set event_time = now() where plan_id = $1 and sequence = 3",), {(3, "ENTRY_CHANGED")}),
        (
            ("update journal_entry set signature = decode(repeat('01', 64), 'hex') where plan_id = $1 and sequence = 2",),
            {(2, "SIGNATURE_INVALID")},
        ),
        (("delete from journal_entry where plan_id = $1 and sequence = 2",), {(3, "SEQUENCE_GAP"), (3, "LINK_BROKEN")}),
        (("delete from journal_entry where plan_id = $1 and sequence = 3",), {(2, "HEAD_DIFFERS")}),
        (("delete from journal_chain where plan_id = $1",), {(3, "HEAD_DIFFERS")}),
        (("delete from journal_entry where plan_id = $1",), {(0, "CHAIN_EMPTY"), (0, "HEAD_DIFFERS")}),
    ],
)
async def test_verification_names_what_is_tampered(
    world: JournalWorld, statements: tuple[str, ...], rules: set[tuple[int, str]]
) -> None:
    """Whatever the owner of the database changed, verification names the entry and the rule."""
    plan = await chain(world)
    assert (await world.verify(plan.plan_id)).valid
    await world.tamper(*statements, plan_id=plan.plan_id)
    found = await world.verify(plan.plan_id)
    assert not found.valid
    assert rules <= {(finding.sequence, finding.rule) for finding in found.findings}


async def test_an_unknown_plan(world: JournalWorld) -> None:
    """A plan that the journal has nothing of is not found."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.verify(delivery_versus_payment().plan_id)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("caller", [CLIENT, COORDINATOR])
async def test_who_reads_and_who_writes(service: ParticipantProcess, world: JournalWorld, caller: str) -> None:
    """Auditors read; the coordinator writes, and reads the entries of a plan, which a restore needs, and no more."""
    plan = await chain(world)
    channel = await service.channel(caller)
    reader = journal_reader_service_pb2_grpc.JournalReaderServiceStub(channel)
    writer = journal_service_pb2_grpc.JournalServiceStub(channel)
    writing = writer.Append(journal_service_pb2.AppendRequest(events=[event_of(plan, 4)]), timeout=CALL_SECONDS)
    verifying = reader.VerifyPlan(journal_reader_service_pb2.VerifyPlanRequest(plan_id=plan.plan_id), timeout=CALL_SECONDS)
    await reader.ListEntries(journal_reader_service_pb2.ListEntriesRequest(plan_id=plan.plan_id), timeout=CALL_SECONDS)
    allowed, denied = (writing, verifying) if caller == COORDINATOR else (verifying, writing)
    await allowed
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await denied
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
