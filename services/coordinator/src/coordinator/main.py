"""`python -m coordinator --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from coordinator.checks import CapabilityCache, Checks, Rules
from coordinator.engine import Engine, Owner
from coordinator.journal_relay import JournalRelay
from coordinator.news import News
from coordinator.outcomes import Outcomes
from coordinator.participants import Routes
from coordinator.peers import JournalPeer, Peer
from coordinator.recovery import Recovery
from coordinator.relay import Relay
from coordinator.sealing import KeyBox, read_private_key, read_public_key
from coordinator.servicer import SettlementServicer
from coordinator.settings import CoordinatorSettings, read_generation
from coordinator.settlement import Settlement
from coordinator.store import reading
from coordinator.watching import Watchers
from lockstep.coordinator.v1 import settlement_service_pb2, settlement_service_pb2_grpc
from lockstep_kit import failpoints, telemetry
from lockstep_kit.db import Database
from lockstep_kit.logs import configure_logs
from lockstep_kit.loops import Loop, TaskSupervisor
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.rpc import Access, Server, channel
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.settings import load

NAME: Final = "coordinator"
#: Batches of commands with their certificates are larger than clients' requests.
MESSAGE_BYTES_MAX: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator that is put together: what it serves and what it runs beside."""

    #: Runs the transactions.
    engine: Engine
    #: Serves clients.
    servicer: SettlementServicer
    #: Follow plans.
    watchers: Watchers
    #: Run as long as the coordinator does.
    loops: tuple[Loop, ...]


def build(
    settings: CoordinatorSettings,
    routes: Routes,
    *,
    db: Database,
    registry: Registry,
    box: KeyBox,
    generation: int,
    channels: Mapping[str, grpc.aio.Channel],
) -> Coordinator:
    """Put a coordinator together."""
    owner = Owner(f"{settings.replica}/{secrets.token_hex(8)}", generation, timedelta(seconds=settings.lease_seconds))
    engine = Engine(db=db, owner=owner, limits=settings.limits.limits(), routes=routes, registry=registry, box=box)
    peers = {name: Peer(name, channels[name], settings.call_seconds) for name in routes.names}
    rules = Rules(settings.known(), settings.compliance.rules(), routes)
    cache, news = CapabilityCache(peers, settings.capability_seconds), News(engine)
    watchers = Watchers(db, settings.heartbeat_seconds)
    servicer = SettlementServicer(
        engine,
        Settlement(engine, rules, cache),
        watchers,
        plan_bytes_max=settings.plan_bytes_max,
        watchers_max=settings.watchers_max,
        slow_client_seconds=settings.slow_client_seconds,
    )
    journal = JournalPeer(channels[routes.journal], settings.call_seconds)
    loops = (
        *(Relay(engine, peer, news).loop() for peer in peers.values()),
        *(Outcomes(engine, peer, news).loop() for peer in peers.values()),
        JournalRelay(engine, journal).loop(),
        Checks(engine, cache, rules).loop(),
        Recovery(engine, peers, news, poll_seconds=settings.recovery_seconds).loop(),
        watchers.loop(),
    )
    return Coordinator(engine, servicer, watchers, loops)


@asynccontextmanager
async def running(coordinator: Coordinator) -> AsyncIterator[asyncio.Future[None]]:
    """The coordinator's loops run inside; yields what ends when one of them does. Leases are given back at the end."""
    supervisor = TaskSupervisor()
    supervisor.start(*coordinator.loops)
    ended = asyncio.ensure_future(supervisor.wait())
    try:
        yield ended
    finally:
        ended.cancel()
        await supervisor.stop()
        async with coordinator.engine.db.connection() as connection:
            await reading.release_all(connection, coordinator.engine.owner.name)


async def run(settings: CoordinatorSettings) -> None:
    """Serve until told to stop."""
    configure_logs(NAME, settings.log_level)
    routes = settings.check()
    generation, registry = read_generation(settings.generation_file), load_registry(settings.registry_file)
    box = KeyBox([read_private_key(each) for each in settings.seal_key_files], read_public_key(settings.recovery_public_key_file))
    async with AsyncExitStack() as stack:
        tracing = telemetry.configure(NAME, settings.telemetry)
        stack.callback(tracing.shutdown)
        db = await Database.connect(settings.database, application_name=NAME)
        stack.push_async_callback(db.close)
        channels = {
            name: channel(settings.participants[name], settings.tls, message_bytes_max=MESSAGE_BYTES_MAX) for name in routes.names
        }
        for each in channels.values():
            stack.push_async_callback(each.close)
        coordinator = build(settings, routes, db=db, registry=registry, box=box, generation=generation, channels=channels)
        failpoints.arm_from_environment()
        ended = await stack.enter_async_context(running(coordinator))
        server = Server(settings.listen, settings.tls, Access(settings.access()))
        descriptor = settlement_service_pb2.DESCRIPTOR.services_by_name["SettlementService"]
        server.add(settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server, coordinator.servicer, descriptor)
        server.on_drain(coordinator.watchers.drain)
        try:
            await server.start()
            await until_told_to_stop(ended)
        finally:
            await server.stop()


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(CoordinatorSettings)))
