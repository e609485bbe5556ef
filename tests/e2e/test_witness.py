"""The journal's log and its witness, in a whole installation: what was cosigned is the journal's own tree, and its roots stand on chain."""

from __future__ import annotations

import asyncio
import json

import grpc

from lockstep.notary.v1 import anchor_pb2
from lockstep.notary.v1.notary_service_pb2 import GetWitnessedCheckpointRequest
from lockstep.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from lockstep_contracts.events import Anchored, decode_log, event_topic
from lockstep_kit import merkle, notes
from lockstep_kit.ids import Digest
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.registry_file import load_registry
from lockstep_kit.rpc import channel
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.checker.witness_reading import read_witness, wrong
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew

WITNESSED_SECONDS_MAX = 180.0


async def leaves(crew: Crew) -> list[Digest]:
    """Leaf hashes of all entries that the journal has, as its database has them."""
    async with crew.database("event-journal") as database:
        rows = await database.fetch("select canonical_bytes from journal_entry order by position")
    return [merkle.leaf_hash(row["canonical_bytes"]) for row in rows]


async def checkpoint(sandbox: Sandbox, size: int, *, anchored: bool) -> anchor_pb2.WitnessedCheckpoint:
    """The smallest checkpoint with so many leaves, once there is one."""
    request = GetWitnessedCheckpointRequest(tree_size_min=size, anchored=anchored)
    async with channel(sandbox.address("notary"), sandbox.tls(CLIENT)) as opened:
        async with asyncio.timeout(WITNESSED_SECONDS_MAX):
            while True:
                try:
                    return (await NotaryServiceStub(opened).GetWitnessedCheckpoint(request, timeout=60)).checkpoint
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE):
                        raise
                await asyncio.sleep(0.2)


async def test_a_settlement_is_witnessed_and_anchored(crew: Crew, sandbox: Sandbox) -> None:
    """A settled plan's entries are under a checkpoint that journal and notary have signed, whose root stands on chain; there is no alarm."""
    await crew.settled(crew.payments())
    settled = len(await leaves(crew))
    for anchored in (False, True):
        found = await checkpoint(sandbox, settled, anchored=anchored)
        assert found.root_hash == merkle.root((await leaves(crew))[: found.tree_size])
        signed = notes.parse(found.signed_note)
        assert (signed.checkpoint.size, signed.checkpoint.root) == (found.tree_size, found.root_hash)
        journal, notary = (read_signing_key(sandbox.keys[name].private_file).public for name in ("event-journal", "notary"))
        assert signed.signed_by("lockstep.local/journal", journal)
        assert signed.cosigned_at("lockstep.local/notary", notary) is not None
    assert found.anchor.root_hash == found.root_hash
    topics = ["0x" + event_topic(Anchored).hex(), None, "0x" + found.root_hash.hex()]
    block = hex(found.anchor.block_number)
    where = {"address": sandbox.chain.contracts["NotaryRegistry"], "fromBlock": block, "toBlock": block, "topics": topics}
    (log,) = await sandbox.chain.node.call("eth_getLogs", where)
    event = decode_log([bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:]))
    assert isinstance(event, Anchored)
    assert event.size == found.tree_size
    assert await read_witness(sandbox) == ()


async def test_the_checker_sees_a_split(crew: Crew, sandbox: Sandbox) -> None:
    """What was witnessed is held against the entries: a checkpoint of others is found."""
    await checkpoint(sandbox, 1, anchored=False)
    async with crew.database("notary") as database:
        row = await database.fetchrow("select * from witness_checkpoint order by history desc, tree_size desc limit 1")
    assert row is not None
    entries = await leaves(crew)
    entries[0] = merkle.leaf_hash(b"another")
    keys = load_registry(sandbox.run.path / "config" / "registry.yaml")
    assert wrong(row, await leaves(crew), keys) == []
    assert wrong(row, entries, keys) == [f"a checkpoint with {row['tree_size']} leaves was witnessed that is not the journal's"]
    assert wrong(row, entries[: row["tree_size"] - 1], keys)


async def test_the_command(crew: Crew, sandbox: Sandbox) -> None:
    """`lockstep witness status` verifies what was witnessed last."""
    await checkpoint(sandbox, 1, anchored=False)
    code, out, errors = await lockstep("witness", "status", "--json", sandbox=sandbox)
    assert code == 0, errors
    told = json.loads(out)
    assert told["last"]["findings"] == []
    assert told["last"]["tree_size"] <= len(await leaves(crew))
    assert "alarm" not in told
