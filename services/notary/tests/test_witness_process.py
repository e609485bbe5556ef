"""The witness in the notary's own processes, replicas of them, killed where it hurts: one history is cosigned, and settlements go on through an alarm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest_asyncio
from notary_world import NotaryWorld
from witness_world import JournalServer, serve_log

from lockstep.notary.v1 import notary_service_pb2 as messages
from lockstep.notary.v1 import notary_service_pb2_grpc as stubs
from lockstep_contracts.notary import PlanStatus
from lockstep_kit import merkle, notes
from lockstep_kit.ids import Digest
from lockstep_kit.rpc import TlsSettings
from lockstep_testkit.chains import SettlementChain
from lockstep_testkit.factories import key_of
from lockstep_testkit.participants import CLIENT, ParticipantProcess

NAME = "lockstep.local/notary"
PATIENCE_SECONDS = 240.0


@dataclass
class Verifier:
    """Somebody who asks every replica, remembers all that he was ever shown, and knows the journal's leaves."""

    journal: JournalServer
    shown: dict[int, set[bytes]] = field(default_factory=dict)

    async def ask(self, service: ParticipantProcess) -> int:
        """Size of the newest checkpoint; 0 while nobody answers."""
        stub = stubs.NotaryServiceStub(await service.channel(CLIENT))
        try:
            found = (await stub.GetWitnessedCheckpoint(messages.GetWitnessedCheckpointRequest(), timeout=60)).checkpoint
        except grpc.aio.AioRpcError:
            return 0
        signed = notes.parse(found.signed_note)
        assert signed.cosigned_at(NAME, key_of("notary").public) is not None
        self.shown.setdefault(signed.checkpoint.size, set()).add(signed.checkpoint.root)
        return signed.checkpoint.size

    async def awaits(self, size: int, *services: ParticipantProcess) -> None:
        """Until every replica shows so many leaves."""
        for each in services:

            async def there(service: ParticipantProcess = each) -> bool:
                return await self.ask(service) >= size

            await until(there)

    def judge(self, leaves: list[Digest]) -> None:
        """All that was ever shown is of one history."""
        assert self.shown
        for size, roots in self.shown.items():
            assert roots == {merkle.root(leaves[:size])}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def journal(tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[JournalServer]:
    async with contextlib.AsyncExitStack() as stack:
        yield await serve_log(stack, tls_for)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, journal: JournalServer
) -> ParticipantProcess:
    return await participant_for(
        "notary",
        chain=settlement_chain.settings("notary"),
        registry=settlement_chain.registry,
        judge_seconds=0.3,
        journal=journal.target,
        witness_seconds=0.1,
        anchor_seconds=0,
    )


async def test_replicas_that_are_killed(service: ParticipantProcess, journal: JournalServer) -> None:
    """Two replicas, of which one after the other is killed at every place around a cosignature, show one history, and go on."""
    verifier, other = Verifier(journal), await service.replica(2)
    for place in ("ask.before_send", "ask.after_send", "cosign.in_tx", "cosign.after_commit"):
        journal.log.grow(3)

        async def grown() -> None:
            journal.log.grow(2)

        # The other replica stands still meanwhile, so that it does not take the place of the one that is to die.
        if "cosign" in place:
            await service.supervisor.stop(other.name)
        await service.dies_at(f"notary.witness.{place}", grown)
        if "cosign" in place:
            await other.restart()
        await verifier.awaits(len(journal.log.leaves), service, other)
    verifier.judge(journal.log.leaves)
    async with service.database.as_owner() as connection:
        assert await connection.fetchval("select count(*) from witness_alarm") == 0
        sizes = [row["tree_size"] for row in await connection.fetch("select tree_size from witness_checkpoint order by tree_size")]
    assert sizes[-1] == len(journal.log.leaves)


async def test_a_split_stops_the_witness_and_no_settlement(
    service: ParticipantProcess, journal: JournalServer, settlement_chain: SettlementChain
) -> None:
    """A witness that has raised an alarm is ready, and settles; it cosigns nothing, restarted or not, until a person has looked."""
    verifier = Verifier(journal)
    journal.log.grow(3)
    await verifier.awaits(len(journal.log.leaves), service)
    size = len(journal.log.leaves)
    journal.log.leaves[1] = merkle.leaf_hash(b"another")
    journal.log.grow(5)
    stub = stubs.NotaryServiceStub(await service.channel(CLIENT))

    async def alarmed() -> bool:
        return (await stub.GetWitnessStatus(messages.GetWitnessStatusRequest(), timeout=60)).alarm.rule == "LOG_SPLIT"

    await until(alarmed)
    await service.restart()
    world = await NotaryWorld.around(service, settlement_chain)
    plan = await world.harness.plan()
    await world.harness.prepare(plan)
    assert await world.status(plan) is PlanStatus.REGISTERED
    assert await verifier.ask(service) == size
    root = await shown(service, status=1)
    assert root["alarm"]["rule"] == "LOG_SPLIT"
    assert root["journal"]["root"] == merkle.root(journal.log.leaves).hex()
    await command(service, "--acknowledge", "00" * 32, "--finding", "put back", "--follow", status=1)
    await command(service, "--acknowledge", root["journal"]["root"], "--finding", "put back", "--follow", status=0)
    assert (await shown(service, status=0))["last"]["history"] == 2
    journal.log.grow(1)
    followed = len(journal.log.leaves)

    async def goes_on() -> bool:
        return await verifier.ask(service) == followed

    await until(goes_on)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def command(service: ParticipantProcess, *arguments: str, status: int) -> str:
    """What the command prints."""
    config = service.supervisor.program(service.name).command[-1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "notary.witness", "--config", config, *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == status
    return out.decode().strip()


async def shown(service: ParticipantProcess, *, status: int) -> dict[str, Any]:
    """The state, as the command shows it."""
    found: dict[str, Any] = json.loads((await command(service, status=status)).splitlines()[-1])
    return found
