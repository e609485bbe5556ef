"""What the notary serves of what it has witnessed: what is stored, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import pytest
import pytest_asyncio
from test_witness import forked
from witness_world import NAME, ORIGIN, WitnessWorld

from lockstep.notary.v1 import notary_service_pb2 as messages
from lockstep.notary.v1 import notary_service_pb2_grpc as stubs
from lockstep_kit import merkle, notes
from lockstep_kit.errors import LockstepError, from_rpc
from lockstep_kit.participant.readers import PlanReaders
from lockstep_kit.rpc import Access, ListenSettings, Server, channel
from lockstep_kit.rpc.standings import Standings
from lockstep_testkit.factories import key_of
from lockstep_testkit.participants import CLIENT
from notary.servicer import NotaryServicer
from notary.witness.acknowledging import Desk
from notary.witness.ports import CheckpointAnchors
from notary.witness.settings import WitnessSettings

#: A root that the registry has in a final block.
ANCHOR = "insert into anchor (root, kind, tree_size, block_number, block_hash, anchored_at) values ($1, 1, $2, 7, $3, now())"

CHAIN, REGISTRY = "eip155:138", "0x52908400098527886E0F7030069857D2E4169EE7"


@dataclass
class Reader:
    """Somebody who reads."""

    stub: stubs.NotaryServiceStub

    async def checkpoint(self, size_min: int = 0, *, anchored: bool = False) -> messages.GetWitnessedCheckpointResponse:
        request = messages.GetWitnessedCheckpointRequest(tree_size_min=size_min, anchored=anchored)
        return await self.stub.GetWitnessedCheckpoint(request, timeout=60)

    async def refused(self, size_min: int = 0, *, anchored: bool = False) -> LockstepError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.checkpoint(size_min, anchored=anchored)
        return from_rpc(caught.value)

    async def status(self) -> messages.GetWitnessStatusResponse:
        return await self.stub.GetWitnessStatus(messages.GetWitnessStatusRequest(), timeout=60)


#: Opens a reader of a notary whose anchors are these.
Opened: TypeAlias = Callable[[CheckpointAnchors | None], Awaitable[Reader]]


@pytest_asyncio.fixture(loop_scope="session")
async def reading(witnessed: WitnessWorld) -> AsyncIterator[Opened]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_reader(anchors: CheckpointAnchors | None) -> Reader:
            access = Access({CLIENT: ("/lockstep.notary.v1.NotaryService/*",)})
            server = Server(ListenSettings(drain_seconds=0.5), witnessed.tls_for("spiffe://lockstep.local/notary"), access)
            descriptor = messages.DESCRIPTOR.services_by_name["NotaryService"]
            server.add(
                stubs.add_NotaryServiceServicer_to_server,
                NotaryServicer(witnessed.db, CHAIN, REGISTRY, PlanReaders(witnessed.db, Standings({})), anchors=anchors),
                descriptor,
            )
            await server.start()
            stack.push_async_callback(server.stop)
            opened = await stack.enter_async_context(channel(f"localhost:{server.port}", witnessed.tls_for(CLIENT)))
            return Reader(stubs.NotaryServiceStub(opened))

        yield open_reader


@pytest_asyncio.fixture(loop_scope="session")
async def reader(reading: Opened) -> Reader:
    return await reading(None)


async def test_checkpoints(witnessed: WitnessWorld, reader: Reader) -> None:
    """The newest is served, or the smallest with so many leaves; what is not there yet is said to be pending, with when to ask again."""
    assert (await reader.refused()).reason == "CHECKPOINT_NOT_FOUND"
    assert (await reader.refused(1)).reason == "CHECKPOINT_PENDING"
    witness = await witnessed.witness()
    for _ in range(3):
        witnessed.log.grow(4)
        await witness.round()
    served = [(await reader.checkpoint(size)).checkpoint for size in (0, 1, 4, 5, 12)]
    assert [each.tree_size for each in served] == [12, 4, 4, 8, 12]
    newest = served[0]
    signed = notes.parse(newest.signed_note)
    assert newest.root_hash == signed.checkpoint.root == merkle.root(witnessed.log.leaves)
    assert signed.signed_by(ORIGIN, key_of("event-journal").public)
    cosigned = signed.cosigned_at(NAME, key_of("notary").public)
    assert cosigned is not None
    assert int(cosigned.timestamp()) == newest.witnessed_at.seconds
    assert not newest.HasField("anchor")
    pending = await reader.refused(13)
    assert (pending.code, pending.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_PENDING")
    assert pending.retry_after is not None
    assert (await reader.refused(anchored=True)).reason == "CHECKPOINT_PENDING"
    assert (await reader.refused(-1)).fields[0].field == "tree_size_min"


async def test_status(witnessed: WitnessWorld, reader: Reader) -> None:
    """The status says what was seen last and when, the alarm with both notes while it is open, and every alarm that a person has looked at, for ever."""
    empty = await reader.status()
    assert not any(empty.HasField(name) for name in ("last", "alarm", "looked_at"))
    witness = await witnessed.witness()
    witnessed.log.grow(7)
    await witness.round()
    before = await reader.status()
    assert before.last.tree_size == 7
    await witness.round()
    after = await reader.status()
    assert after.last == before.last
    assert after.looked_at.ToNanoseconds() > before.looked_at.ToNanoseconds()
    forked(witnessed)
    await witness.round()
    alarmed = await reader.status()
    assert (alarmed.alarm.rule, alarmed.last, alarmed.looked_at) == ("LOG_SPLIT", before.last, after.looked_at)
    assert alarmed.alarm.refused_note == witnessed.log.checkpoint().note
    assert alarmed.alarm.cosigned_note == before.last.signed_note
    assert alarmed.alarm.path
    refused = await reader.refused(8)
    assert (refused.reason, refused.metadata["rule"]) == ("WITNESS_ALARM", "LOG_SPLIT")
    assert (await reader.checkpoint()).checkpoint == before.last
    desk = Desk(witnessed.db, await witnessed.journal_log(), witnessed.cosigner, witnessed.registry, WitnessSettings(journal="x"))
    assert await desk.acknowledge(merkle.root(witnessed.log.leaves), "put back", follow=True) == ""
    followed = await reader.status()
    assert not followed.HasField("alarm")
    (kept,) = followed.acknowledged
    assert (kept.rule, kept.finding, kept.followed) == ("LOG_SPLIT", "put back", True)
    assert kept.refused_note == alarmed.alarm.refused_note
    # What was cosigned of the history that ended is not mixed with the present one.
    assert (await reader.checkpoint(7)).checkpoint.tree_size == followed.last.tree_size == 11


async def test_anchored_checkpoints(witnessed: WitnessWorld, reading: Opened) -> None:
    """Asked for what is anchored, it serves only that, with what shows it."""
    reader = await reading(witnessed)
    witness = await witnessed.witness()
    roots = {}
    for _ in range(4):
        witnessed.log.grow(4)
        roots[len(witnessed.log.leaves)] = merkle.root(witnessed.log.leaves)
        await witness.round()
    assert (await reader.refused(anchored=True)).reason == "CHECKPOINT_PENDING"
    async with witnessed.database.as_owner() as connection:
        for size in (8, 12):
            await connection.execute(ANCHOR, roots[size], size, bytes(32))
    assert [(await reader.checkpoint(size, anchored=True)).checkpoint.tree_size for size in (0, 1, 9)] == [12, 8, 12]
    assert (await reader.refused(13, anchored=True)).reason == "CHECKPOINT_PENDING"
    found = (await reader.checkpoint(9)).checkpoint
    assert (found.tree_size, found.anchor.root_hash, found.anchor.block_number) == (12, roots[12], 7)
    assert not (await reader.checkpoint()).checkpoint.HasField("anchor")
