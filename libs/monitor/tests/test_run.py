"""The monitor over mutual TLS: an honest journal raises nothing; one that forks, withholds, or shows a split view is raised, and a false witness too."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml

from lockstep.journal.v1 import entry_pb2, log_pb2
from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_kit import merkle, notes
from lockstep_kit.convert import signature_to_pb, time_to_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings
from lockstep_monitor.entries import Delivered
from lockstep_monitor.run import Monitor
from lockstep_monitor.settings import MonitorSettings
from lockstep_monitor.state import read_state
from lockstep_testkit.bundles.history import BEGUN, the_plan
from lockstep_testkit.factories import key_of
from lockstep_testkit.journal_histories import Told, delivered, settled
from lockstep_testkit.participants import registry_document

MONITOR = "spiffe://lockstep.local/client/monitor"
ORIGIN, WITNESS = "lockstep.local/journal", "lockstep.local/notary"
NOW = BEGUN + timedelta(minutes=5)
Context = grpc.aio.ServicerContext[Any, Any]


def to_pb(given: Delivered) -> entry_pb2.Entry:
    """The entry as the journal sends it."""
    return entry_pb2.Entry(
        plan_id=given.plan_id,
        sequence=given.sequence,
        position=given.position,
        type=given.type,
        actor=given.actor,
        event_time=time_to_pb(given.event_time),
        payload=given.payload,
        canonical_bytes=given.canonical_bytes,
        signature=signature_to_pb(given.signature),
    )


def signed(leaves: Sequence[bytes], *, by: str = "event-journal", origin: str = ORIGIN) -> notes.SignedCheckpoint:
    """A checkpoint over these signed bytes."""
    root = merkle.root([merkle.leaf_hash(each) for each in leaves])
    return notes.sign(notes.Checkpoint(origin, len(leaves), Digest(root)), key_of(by))


def octets(entries: Sequence[Delivered]) -> list[bytes]:
    return [each.canonical_bytes for each in entries]


@dataclass
class HostileJournal(stubs.JournalReaderServiceServicer):
    """Delivers what a test gives it, and shows the checkpoint that a test gives it."""

    entries: list[Delivered] = field(default_factory=list)
    note: bytes = b""
    log_id: str = "log-1"

    async def WatchEntries(  # noqa: N802 - named by the protocol
        self, request: messages.WatchEntriesRequest, context: Context
    ) -> AsyncIterator[messages.WatchEntriesResponse]:
        after = int(request.resume_token or "0")
        for each in self.entries[after:]:
            yield messages.WatchEntriesResponse(entries=[to_pb(each)], resume_token=str(each.position), log_id=self.log_id)
        # Nothing more is there: a heartbeat.
        yield messages.WatchEntriesResponse(resume_token=str(len(self.entries)), log_id=self.log_id)

    async def ListEntries(self, request: messages.ListEntriesRequest, context: Context) -> messages.ListEntriesResponse:  # noqa: N802
        return messages.ListEntriesResponse(entries=[to_pb(each) for each in self.entries if each.plan_id == request.plan_id])

    async def GetCheckpoint(  # noqa: N802
        self, request: messages.GetCheckpointRequest, context: Context
    ) -> messages.GetCheckpointResponse:
        told = notes.parse(self.note).checkpoint
        return messages.GetCheckpointResponse(
            checkpoint=log_pb2.Checkpoint(origin=told.origin, tree_size=told.size, root_hash=told.root, signed_note=self.note)
        )


@dataclass
class HostileNotary(notary_service_pb2_grpc.NotaryServiceServicer):
    """Says of what it witnessed what a test tells it to."""

    status: notary_service_pb2.GetWitnessStatusResponse = field(default_factory=notary_service_pb2.GetWitnessStatusResponse)

    async def GetWitnessStatus(  # noqa: N802
        self, request: notary_service_pb2.GetWitnessStatusRequest, context: Context
    ) -> notary_service_pb2.GetWitnessStatusResponse:
        return self.status

    def shows(self, note: bytes, looked_at: datetime = NOW) -> None:
        """What it cosigned last."""
        self.status.last.signed_note = note
        self.status.looked_at.FromDatetime(looked_at)


@dataclass
class World:
    """A journal, a notary, and a monitor of them."""

    journal: HostileJournal
    notary: HostileNotary
    settings: MonitorSettings

    async def once(self) -> list[str]:
        """Rules that a monitor raises in one run, with what it kept of the runs before."""
        out = io.StringIO()
        async with Monitor(self.settings, out=out, clock=lambda: NOW) as monitor:
            await monitor.once()
        return [json.loads(line)["rule"] for line in out.getvalue().splitlines()]


@pytest_asyncio.fixture
async def world(tls_for: Callable[[str], TlsSettings], tmp_path: Path) -> AsyncIterator[World]:
    """An honest journal with one settled plan, which its witness has cosigned."""
    async with contextlib.AsyncExitStack() as stack:
        journal, notary = HostileJournal(), HostileNotary()  # type: ignore[abstract]  # the rest is as generated, unimplemented
        targets = {}
        for name, add, servicer, module in (
            ("event-journal", stubs.add_JournalReaderServiceServicer_to_server, journal, messages),
            ("notary", notary_service_pb2_grpc.add_NotaryServiceServicer_to_server, notary, notary_service_pb2),
        ):
            (descriptor,) = [each for each in module.DESCRIPTOR.services_by_name.values() if each.name.endswith("Service")]
            access = Access({MONITOR: (f"/{descriptor.full_name}/*",)})
            server = Server(ListenSettings(drain_seconds=0.5), tls_for(f"spiffe://lockstep.local/{name}"), access)
            server.add(add, servicer, descriptor)
            await server.start()
            stack.push_async_callback(server.stop)
            targets[name] = f"localhost:{server.port}"
        registry = tmp_path / "registry.yaml"
        registry.write_text(yaml.safe_dump(registry_document()))
        journal.entries = delivered(settled())
        honest = signed(octets(journal.entries))
        journal.note = honest.note
        notary.shows(notes.cosign(honest, WITNESS, key_of("notary"), NOW).note)
        settings = MonitorSettings(
            journal=targets["event-journal"],
            notary=targets["notary"],
            tls=tls_for(MONITOR),
            registry_file=registry,
            state_file=tmp_path / "state.json",
        )
        yield World(journal, notary, settings)


async def test_honest(world: World) -> None:
    """An honest journal and an honest witness raise nothing, in the first run or in one that goes on."""
    assert await world.once() == []
    state = read_state(world.settings.state_file)
    assert (state.tree.size, state.open_plans) == (len(world.journal.entries), [])
    assert state.tree.root() == merkle.root([merkle.leaf_hash(each) for each in octets(world.journal.entries)])
    assert await world.once() == []


async def test_a_journal_that_forks(world: World) -> None:
    """A checkpoint over other entries than those that are delivered here, signed by the journal's own key, is raised."""
    forked = octets(world.journal.entries)
    forked[3] = b"another entry"
    world.journal.note = signed(forked).note
    assert await world.once() == ["CHECKPOINT_DIFFERS"]


async def test_a_split_view(world: World) -> None:
    """A witness that was shown another log than this reader is raised, whoever of the two was lied to."""
    forked = octets(world.journal.entries)
    forked[3] = b"another entry"
    world.notary.shows(notes.cosign(signed(forked), WITNESS, key_of("notary"), NOW).note)
    assert await world.once() == ["WITNESS_DIFFERS"]


async def test_a_journal_that_withholds(world: World) -> None:
    """Entries under a checkpoint that are not delivered here are raised, and so are those that the witness has seen."""
    whole = octets(world.journal.entries)
    world.journal.entries = world.journal.entries[:-2]
    assert await world.once() == ["ENTRIES_WITHHELD", "ENTRIES_WITHHELD"]
    world.journal.note = signed(whole[:-2]).note
    world.notary.shows(notes.cosign(signed([*whole, b"one more"]), WITNESS, key_of("notary"), NOW).note)
    assert await world.once() == ["ENTRIES_WITHHELD"]


async def test_a_journal_that_drops_what_it_had(world: World) -> None:
    """A log that is shorter than it was shown is raised, and one in the place of another is raised and read anew."""
    assert await world.once() == []
    world.journal.note = signed(octets(world.journal.entries[:-2])).note
    assert await world.once() == ["LOG_SHRUNKEN"]
    world.journal.log_id = "log-2"
    world.journal.entries = [*world.journal.entries, *delivered(other(), first=len(world.journal.entries) + 1)]
    world.journal.note = signed(octets(world.journal.entries)).note
    assert await world.once() == ["LOG_REPLACED"]
    state = read_state(world.settings.state_file)
    assert (state.log_id, state.tree.size, len(state.open_plans)) == ("log-2", len(world.journal.entries), 1)


def other() -> Told:
    """Another plan's first entries."""
    case = the_plan()
    history = Told(replace(case, header=replace(case.header, plan_id=PlanId("6c9f2c1e-3d47-4a6b-9c0d-7e1f2a3b4c5d"))))
    history.begin()
    return history


async def test_signed_by_a_stolen_key(world: World) -> None:
    """A participant's stolen key signs neither the journal's checkpoints nor its entries."""
    world.journal.note = signed(octets(world.journal.entries), by="bank-gateway").note
    assert await world.once() == ["CHECKPOINT_INVALID"]


async def test_a_notary_that_lies(world: World) -> None:
    """A cosignature by another key, or over what the journal never signed, and an alarm of its own, are raised."""
    honest = signed(octets(world.journal.entries))
    world.notary.shows(notes.cosign(honest, WITNESS, key_of("bank-gateway"), NOW).note)
    assert await world.once() == ["WITNESS_INVALID"]
    invented = signed([b"what the journal never had"] * len(world.journal.entries), by="notary")
    world.settings.state_file.unlink()
    world.notary.shows(notes.cosign(invented, WITNESS, key_of("notary"), NOW).note)
    assert await world.once() == ["WITNESS_INVALID"]
    world.notary.shows(notes.cosign(honest, WITNESS, key_of("notary"), NOW).note, looked_at=NOW - timedelta(hours=1))
    world.notary.status.alarm.rule = "LOG_SPLIT"
    assert await world.once() == ["WITNESS_ALARM", "WITNESS_SILENT"]


async def test_killed_and_started_again(world: World) -> None:
    """A monitor that begins in the middle of a plan knows what stood before, and raises nothing twice."""
    history = Told()
    history.begin()
    history.votes_given(but=("cash",))
    history.approved()
    history.released()
    entries = delivered(history)
    world.journal.entries, world.journal.note = entries[:6], signed(octets(entries[:6])).note
    world.notary.status.Clear()
    assert await world.once() == []
    assert read_state(world.settings.state_file).open_plans == [history.case.plan_id]
    world.journal.entries, world.journal.note = entries, signed(octets(entries)).note
    assert await world.once() == ["VOTES_DIFFER"]
    assert await world.once() == []


async def test_a_state_that_was_changed(world: World) -> None:
    """A state file of another form is refused, and never taken for the beginning."""
    assert await world.once() == []
    told = json.loads(world.settings.state_file.read_text())
    world.settings.state_file.write_text(json.dumps(told | {"peaks": []}))
    with pytest.raises(FieldInvalid, match="state_file"):
        await world.once()
