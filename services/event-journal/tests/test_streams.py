"""Streams of entries: many readers, slow ones, several replicas, and a log that is put back; a reader never sees a gap or a repeat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from journal_world import CALL_SECONDS, JournalWorld, append, event_of

from event_journal import streams as streams_module
from event_journal.payload_keys import read_vault
from event_journal.payload_store import entries_of
from event_journal.store import Placed
from event_journal.streams import EntryStreams, Place, Stretch
from lockstep.journal.v1 import (
    entry_pb2,
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2_grpc,
)
from lockstep_kit.canonical import canonical
from lockstep_kit.db import Database
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.ids import PlanId
from lockstep_kit.loops import Loop, TaskSupervisor
from lockstep_kit.migrate import renew_logs
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.journal_events import document_of
from lockstep_testkit.participants import CLIENT, ParticipantProcess

WIDE = "x" * 60_000
#: Longer than any reading of a test takes.
STREAM_SECONDS = 600.0
BRIDGE = "spiffe://lockstep.local/journal-bridge"


async def reader_of(service: ParticipantProcess, caller: str = CLIENT) -> journal_reader_service_pb2_grpc.JournalReaderServiceStub:
    return journal_reader_service_pb2_grpc.JournalReaderServiceStub(await service.channel(caller))


def watch(stub: journal_reader_service_pb2_grpc.JournalReaderServiceStub, plan_id: str = "", token: str = "") -> Any:
    request = journal_reader_service_pb2.WatchEntriesRequest(plan_id=plan_id, resume_token=token)
    return stub.WatchEntries(request, timeout=STREAM_SECONDS)


async def end_of(world: JournalWorld) -> str:
    """A token of where the log ends."""
    token = ""
    stream = world.watch()
    async for message in stream:
        token = message.resume_token
        if not message.entries:
            break
    stream.cancel()
    return token


def raised(plan: PlanCase, detail: str) -> bytes:
    """The payload of an exception that says so much."""
    return canonical({**document_of("exception.raised", plan.header.digest), "reason": {"reason": "LEG_REFUSED", "detail": detail}})


async def wide(world: JournalWorld, count: int) -> PlanCase:
    """A plan whose entries are as large as entries may well be."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    for first in range(2, count + 1, 20):
        numbers = range(first, min(first + 20, count + 1))
        await world.append(*(event_of(plan, n, type="exception.raised", payload=raised(plan, f"{n} {WIDE}")) for n in numbers))
    return plan


async def rest_of(stream: Any, sequences: list[int], tokens: list[str]) -> None:
    """Take a stream to its end."""
    async for message in stream:
        sequences += [entry.sequence for entry in message.entries]
        tokens.append(message.resume_token)


# -- over the wire -------------------------------------------------------------------------------------------------------


async def test_large_entries(world: JournalWorld) -> None:
    """Pages and messages are never larger than a client takes, whatever is in them, and every entry comes once."""
    plan = await wide(world, 120)
    assert [entry.sequence for entry in await world.entries(plan.plan_id, 500)] == list(range(1, 121))
    found: list[int] = []
    async for message in watch(world.reader, plan.plan_id):
        found += [entry.sequence for entry in message.entries]
        if len(found) >= 120:
            break
    assert found == list(range(1, 121))


async def test_a_slow_reader_holds_up_nobody(world: JournalWorld, service: ParticipantProcess) -> None:
    """While one reader takes nothing, another has what is new."""
    await wide(world, 200)
    slow = watch(world.reader)
    await slow.read()
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    message = await watch(await reader_of(service, BRIDGE), plan.plan_id).read()
    assert [entry.sequence for entry in message.entries] == [1]
    await world.append(event_of(plan, 2))
    slow.cancel()


async def test_so_many_streams_and_no_more(world: JournalWorld, service: ParticipantProcess) -> None:
    """A caller has at most so many streams at a replica; one more is refused by reason, others have theirs, and a closed one makes room."""
    other = await reader_of(service, "spiffe://lockstep.local/client/many")
    streams = [watch(other) for _ in range(8)]
    for stream in streams:
        await stream.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(other).read()
    error = from_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHERS_TOO_MANY")
    await watch(await reader_of(service, BRIDGE)).read()
    streams[0].cancel()
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await watch(other).read()
                break
            await asyncio.sleep(0.05)
    for stream in streams:
        stream.cancel()


async def test_a_stream_whose_time_is_up_makes_room(world: JournalWorld, service: ParticipantProcess) -> None:
    """Calls that end by their deadlines are no longer counted: a reader that calls again and again is never refused for it."""
    stub = await reader_of(service, "spiffe://lockstep.local/client/again")
    request = journal_reader_service_pb2.WatchEntriesRequest(resume_token=await end_of(world))

    async def opened() -> Any:
        """A stream, as soon as the replica, too, has seen that the ones before are over."""
        async with asyncio.timeout(CALL_SECONDS):
            while True:
                stream = stub.WatchEntries(request, timeout=8.0)
                try:
                    await stream.read()
                except grpc.aio.AioRpcError as error:
                    if from_rpc(error).reason != "WATCHERS_TOO_MANY":
                        return stream
                else:
                    return stream
                await asyncio.sleep(0.05)

    for _ in range(2):
        streams = [await opened() for _ in range(8)]
        ended = await asyncio.gather(*(rest_of(stream, [], []) for stream in streams), return_exceptions=True)
        codes = {each.code() for each in ended if isinstance(each, grpc.aio.AioRpcError)}
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}


class Follower:
    """A reader that follows the whole log over any replicas, resuming with its token whenever its stream ends."""

    def __init__(self, replicas: list[ParticipantProcess], token: str, plan_id: str = "") -> None:
        self.found: list[entry_pb2.Entry] = []
        self.ended = 0
        self._replicas = replicas
        self._token = token
        self._plan_id = plan_id
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        turn = 0
        while True:
            try:
                stub = await reader_of(self._replicas[turn % len(self._replicas)])
                async for message in watch(stub, self._plan_id, self._token):
                    self.found += message.entries
                    self._token = message.resume_token
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self.ended += 1
                turn += 1
                await asyncio.sleep(0.05)

    async def until(self, count: int) -> list[entry_pb2.Entry]:
        async with asyncio.timeout(240):
            while len(self.found) < count:
                assert not self._task.done(), self._task.result()
                await asyncio.sleep(0.05)
        return self.found

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_two_replicas(world: JournalWorld, service: ParticipantProcess) -> None:
    """While both replicas append for many plans and are killed in turn, every reader, wherever its token was drawn, has each entry once, in one order."""
    start = await end_of(world)
    second = await service.replica(2)
    both = [service, second]
    writers = [journal_service_pb2_grpc.JournalServiceStub(await each.channel()) for each in both]
    plans = [delivery_versus_payment() for _ in range(12)]
    followers = [Follower(both, start), Follower(both[::-1], start), Follower(both, start, plans[0].plan_id)]

    async def write(index: int, plan: PlanCase) -> None:
        turn = index
        for number in range(1, 21):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await append(writers[turn % 2], event_of(plan, number))
                    break
                turn += 1
                await asyncio.sleep(0.05)

    writing = [asyncio.create_task(write(index, plan)) for index, plan in enumerate(plans)]
    for each in both:
        await asyncio.sleep(0.3)
        await each.kill()
        await each.restart()
    await asyncio.gather(*writing)
    one, two = await followers[0].until(240), await followers[1].until(240)
    own = await followers[2].until(20)
    positions = [entry.position for entry in one]
    assert positions == list(range(positions[0], positions[0] + 240))
    assert [entry.position for entry in two] == positions
    assert [entry.sequence for entry in own] == list(range(1, 21))
    assert {(entry.plan_id, entry.sequence) for entry in one} == {(plan.plan_id, n) for plan in plans for n in range(1, 21)}
    assert all(each.ended for each in followers)
    for follower in followers:
        await follower.stop()
    await service.supervisor.stop(second.name)


async def test_transactions_that_end_in_another_order(world: JournalWorld) -> None:
    """A place is seen when everything before it can be: appends that wait for one another, and one that is rolled back, leave no gap and no hole."""
    start = await end_of(world)
    follower = Follower([world.service], start)
    plans = [delivery_versus_payment() for _ in range(6)]
    async with world.as_owner() as owner:
        taking = owner.transaction()
        await taking.start()
        await owner.execute("update journal_counter set next_position = next_position + 5")
        appending = [asyncio.create_task(world.append(event_of(plan, 1), event_of(plan, 2))) for plan in plans]
        await asyncio.sleep(0.5)
        assert follower.found == []
        await taking.rollback()
    await asyncio.gather(*appending)
    found = await follower.until(12)
    positions = [entry.position for entry in found]
    assert positions == list(range(positions[0], positions[0] + 12))
    await follower.stop()


async def test_a_stream_over_a_restore(world: JournalWorld) -> None:
    """A stream that is open while the journal is put back ends as expired; it never goes on with another log."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    start = await end_of(world)
    open_streams = [world.watch(token=start), world.watch(plan.plan_id, start)]
    for stream in open_streams:
        await stream.read()
    await asyncio.to_thread(renew_logs, world.service.database.owner_url)
    await world.append(event_of(plan, 2))
    found: list[int] = []
    for stream in open_streams:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rest_of(stream, found, [])
        assert from_rpc(caught.value).reason == "RESUME_TOKEN_EXPIRED"
    assert found == []


# -- inside the process --------------------------------------------------------------------------------------------------


class CountedDatabase(Database):
    """A database that counts how often it is gone to."""

    count = 0
    #: Holds up the next who wants a connection; None: nobody.
    gate: asyncio.Event | None = None
    #: Holds up the next who has read and gives the connection back; None: nobody.
    late: asyncio.Event | None = None
    #: Set when somebody is held up so.
    held: asyncio.Event

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        self.count += 1
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate.wait()
        late, self.late = self.late, None
        async with super().connection() as connection:
            yield connection
            if late is not None:
                self.held.set()
                await late.wait()


@pytest_asyncio.fixture(loop_scope="session")
async def counted(world: JournalWorld) -> AsyncIterator[CountedDatabase]:
    db = await CountedDatabase.connect(world.service.database.settings, application_name="test")
    assert isinstance(db, CountedDatabase)
    db.held = asyncio.Event()
    yield db
    await db.close()


@pytest.fixture
def within(counted: CountedDatabase, payload_key_file: Path) -> EntryStreams:
    """Streams that nobody tells of anything: only `follow` has them look."""
    return EntryStreams(counted, read_vault([payload_key_file]), heartbeat_seconds=0.2)


async def taken(stream: Any, count: int) -> list[entry_pb2.Entry]:
    found: list[entry_pb2.Entry] = []
    async with asyncio.timeout(CALL_SECONDS):
        while len(found) < count:
            stretch: Stretch = await anext(stream)
            found += stretch.entries
    return found


async def test_polling_is_the_net(world: JournalWorld, within: EntryStreams) -> None:
    """Without a single notification, what is new is found by looking."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    supervisor = TaskSupervisor()
    supervisor.start(Loop("poll", within.follow, poll_seconds=0.1))
    try:
        stream = within.stream(plan.plan_id, None)
        assert [entry.sequence for entry in await taken(stream, 1)] == [1]
        await world.append(event_of(plan, 2), event_of(plan, 3))
        assert [entry.sequence for entry in await taken(stream, 2)] == [2, 3]
        await stream.aclose()
    finally:
        await supervisor.stop()


async def test_news_of_others_wakes_nobody(world: JournalWorld, within: EntryStreams, counted: CountedDatabase) -> None:
    """Readers of single plans cost the database nothing while others' plans go on: what is new is read once for all, heartbeats need no look."""
    plans = [delivery_versus_payment() for _ in range(20)]
    await world.append(*(event_of(plan, 1) for plan in plans))
    # The first common look finds where the log ends; streams that are there by then read for themselves once more.
    await within.follow()
    streams = [within.stream(plan.plan_id, None) for plan in plans]
    for stream in streams:
        await taken(stream, 1)
    await within.follow()
    before = counted.count
    other = delivery_versus_payment()
    for number in range(1, 6):
        await world.append(event_of(other, number))
        await within.follow()
    for stream in streams:
        assert (await anext(stream)).entries == ()
    assert counted.count - before == 5
    await world.append(event_of(plans[0], 2))
    await within.follow()
    assert [entry.sequence for entry in await taken(streams[0], 1)] == [2]
    assert counted.count - before == 6
    for stream in streams:
        await stream.aclose()


async def test_a_stream_that_has_fallen_behind(world: JournalWorld, within: EntryStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has more coming than its stream holds has it from the database, each entry once, and is live again then."""
    monkeypatch.setattr(streams_module, "HELD_ENTRIES_MAX", 3)
    monkeypatch.setattr(streams_module, "READ_MAX", 4)
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    stream = within.stream(plan.plan_id, None)
    found = await taken(stream, 1)
    for first in (2, 12, 22):
        for number in range(first, first + 10):
            await world.append(event_of(plan, number))
            await within.follow()
        found += await taken(stream, 10)
        await world.append(event_of(delivery_versus_payment(), 1))
    assert [entry.sequence for entry in found] == list(range(1, 32))
    await world.append(event_of(plan, 32))
    await within.follow()
    assert [entry.sequence for entry in await taken(stream, 1)] == [32]
    await stream.aclose()


async def test_what_is_handed_and_read(world: JournalWorld, within: EntryStreams) -> None:
    """An entry that the database shows before it is handed out comes once."""
    plan = delivery_versus_payment()
    warm = within.stream(None, None)
    await anext(warm)
    await within.follow()
    await world.append(event_of(plan, 1), event_of(plan, 2))
    stream = within.stream(plan.plan_id, None)
    found = await taken(stream, 2)
    await within.follow()
    await world.append(event_of(plan, 3))
    await within.follow()
    found += await taken(stream, 1)
    assert [entry.sequence for entry in found] == [1, 2, 3]
    await stream.aclose()
    await warm.aclose()


async def test_a_stream_that_begins_before_the_first_look(
    world: JournalWorld, within: EntryStreams, counted: CountedDatabase
) -> None:
    """A stream that begins while the process looks for the log's end for the first time has what came in between."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    counted.gate = gate = asyncio.Event()
    looking = asyncio.create_task(within.follow())
    await asyncio.sleep(0)
    stream = within.stream(plan.plan_id, None)
    await taken(stream, 1)
    await world.append(event_of(plan, 2))
    gate.set()
    await looking
    assert [entry.sequence for entry in await taken(stream, 1)] == [2]
    await stream.aclose()


# -- what the process has appended itself ----------------------------------------------------------------------------------


async def placed(world: JournalWorld, payload_key_file: Path, plan: PlanCase, *sequences: int) -> Placed:
    """Entries of a plan that stand in the database, as the writer tells of them."""
    async with world.as_owner() as owner:
        rows = await owner.fetch(
            "select * from journal_entry where plan_id = $1 and sequence = any($2) order by position", plan.plan_id, list(sequences)
        )
        entries = await entries_of(owner, rows, read_vault([payload_key_file]))
        log_id = await owner.fetchval("select incarnation from journal_counter")
    return Placed(log_id, rows[0]["position"], entries)


async def test_what_was_appended_here_is_not_read(
    world: JournalWorld, within: EntryStreams, counted: CountedDatabase, payload_key_file: Path
) -> None:
    """What follows what was handed out last goes to its streams without a look, the same as a look would give; its notification wakes nobody."""
    plan, other = delivery_versus_payment(), delivery_versus_payment()
    await world.append(event_of(plan, 1))
    await within.follow()
    streams = [within.stream(plan.plan_id, None), within.stream(other.plan_id, None)]
    await taken(streams[0], 1)
    await anext(streams[1])
    await within.follow()
    await world.append(event_of(plan, 2), event_of(plan, 3))
    told = await placed(world, payload_key_file, plan, 2, 3)
    before = counted.count
    assert within.heeds(str(told.last))
    with within.coming(told):
        assert not within.heeds(str(told.last))
        assert within.heeds(str(told.last + 1))
    found = await taken(streams[0], 2)
    assert not within.heeds(str(told.last))
    assert within.heeds(str(told.last + 1))
    assert within.heeds("")
    assert not within.wake.is_set()
    assert counted.count == before
    assert found == (await world.entries(plan.plan_id))[1:]
    assert (await anext(streams[1])).entries == ()
    await world.append(event_of(plan, 4))
    await within.follow()
    assert [entry.sequence for entry in await taken(streams[0], 1)] == [4]
    for stream in streams:
        await stream.aclose()


@pytest.mark.parametrize("case", ["a gap", "another log", "an error"])
async def test_what_may_not_follow_is_read(world: JournalWorld, within: EntryStreams, payload_key_file: Path, case: str) -> None:
    """Where entries are missing before those of here, or it is not known whether they stand, the database is looked at: none is left out or comes twice."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    stream = within.stream(plan.plan_id, None)
    await taken(stream, 1)
    await within.follow()
    await world.append(event_of(plan, 2), event_of(plan, 3))
    told = await placed(world, payload_key_file, plan, *((3,) if case == "a gap" else (2, 3)))
    with contextlib.suppress(ConnectionError), within.coming(replace(told, log_id="another") if case == "another log" else told):
        if case == "an error":
            raise ConnectionError
    assert within.wake.is_set()
    await within.follow()
    assert [entry.sequence for entry in await taken(stream, 2)] == [2, 3]
    assert (await anext(stream)).entries == ()
    await stream.aclose()


@pytest.mark.parametrize("watched", [True, False])
async def test_what_is_appended_during_a_look(
    world: JournalWorld, within: EntryStreams, counted: CountedDatabase, payload_key_file: Path, *, watched: bool
) -> None:
    """A look that is overtaken by what is handed out from here ends no stream, and neither repeats nor leaves out anything."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    stream = within.stream(plan.plan_id, None)
    if watched:
        await taken(stream, 1)
    await within.follow()
    counted.late = gate = asyncio.Event()
    looking = asyncio.create_task(within.follow())
    await counted.held.wait()
    await world.append(event_of(plan, 2))
    with within.coming(await placed(world, payload_key_file, plan, 2)):
        pass
    await world.append(event_of(plan, 3))
    gate.set()
    await looking
    await within.follow()
    assert [entry.sequence for entry in await taken(stream, 2 if watched else 3)] == ([2, 3] if watched else [1, 2, 3])
    assert (await anext(stream)).entries == ()
    await stream.aclose()


async def test_the_common_reading_fails(world: JournalWorld, within: EntryStreams, counted: CountedDatabase) -> None:
    """When what is new cannot be read, no stream is left open as though nothing were new: each ends, and its token resumes."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    stream = within.stream(plan.plan_id, None)
    await taken(stream, 1)
    await within.follow()
    await counted.close()
    with pytest.raises(Exception, match="pool"):
        await within.follow()
    with pytest.raises(LockstepError) as caught:
        await anext(stream)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_place_of_another_log(within: EntryStreams) -> None:
    """A place of a log that is no more, or beyond the log's end, is refused."""
    with pytest.raises(LockstepError, match="RESUME_TOKEN_EXPIRED"):
        await anext(within.stream(PlanId("0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11"), Place("another", 1)))


async def test_a_drained_process(world: JournalWorld, within: EntryStreams) -> None:
    """A process that stops ends its streams and takes no new ones."""
    stream = within.stream(None, None)
    await anext(stream)
    within.drain()
    for each in (stream, within.stream(None, None)):
        with pytest.raises(LockstepError, match="DRAINING"):
            async for _ in each:
                pass
