"""`python -m coordinator --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

import grpc

from coordinator.admission import Admission
from coordinator.audit_store import DirectoryStore
from coordinator.auditing import Auditing
from coordinator.checks import CapabilityCache, Checks, Rules
from coordinator.engine import Engine, Owner
from coordinator.escalation_relay import EscalationRelay
from coordinator.installed import read_state
from coordinator.journal_relay import JournalRelay
from coordinator.metrics import metrics
from coordinator.news import News
from coordinator.operator_servicer import OperatorServicer
from coordinator.outcomes import Outcomes
from coordinator.participants import Routes
from coordinator.peers import JournalPeer, NotaryPeer, Peer
from coordinator.pressure import Pressure
from coordinator.recovery import Recovery
from coordinator.relay import Due, Relay
from coordinator.resolving import Resolving
from coordinator.restores import Restores
from coordinator.sealing import KeyBox, read_private_key, read_public_key
from coordinator.servicer import SettlementServicer
from coordinator.settings import CoordinatorSettings, read_generation
from coordinator.settlement import Settlement
from coordinator.store import reading
from coordinator.store.notices import Subscriptions
from coordinator.traffic import PlanTraffic
from coordinator.watch_tokens import PURPOSE, WatchTokens
from coordinator.watching import Watchers
from coordinator.webhooks import Sender, Sweeper
from lockstep.coordinator.v1 import (
    operator_service_pb2,
    operator_service_pb2_grpc,
    settlement_service_pb2,
    settlement_service_pb2_grpc,
)
from lockstep_kit import failpoints, telemetry
from lockstep_kit.db import Database
from lockstep_kit.garbage import collect_seldom
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.installation import InstallationServicer, serve_installation
from lockstep_kit.logs import configure_logs
from lockstep_kit.loops import Loop, TaskSupervisor
from lockstep_kit.metrics.serving import exposed
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.rpc import Server, channel
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.rpc.standings import standings_of
from lockstep_kit.settings import load
from lockstep_kit.values import dataclass

NAME: Final = "coordinator"
#: Batches of commands with their certificates are larger than clients' requests.
MESSAGE_BYTES_MAX: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator that is put together: what it serves and what it runs beside."""

    #: Runs the transactions.
    engine: Engine
    #: Does what clients ask for.
    settlement: Settlement
    #: Serves clients.
    servicer: SettlementServicer
    #: Serves operators.
    operator_servicer: OperatorServicer
    #: Follow plans.
    watchers: Watchers
    #: Finds again what was lost with a database that was put back.
    restores: Restores
    #: Looks for what is due and for what nobody holds.
    recovery: Recovery
    #: The participants, as it reaches them.
    peers: Mapping[str, Peer]
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
    subscriptions = Subscriptions(settings.notices.source, {each.name: frozenset(each.kinds) for each in settings.webhooks})
    engine = Engine(
        db=db,
        owner=owner,
        limits=settings.limits.limits(),
        routes=routes,
        registry=registry,
        box=box,
        subscriptions=subscriptions,
        pressure=Pressure(settings.pressure, lambda: asyncio.get_running_loop().time()),
    )
    peers = {name: Peer(name, channels[name], settings.call_seconds) for name in routes.names}
    rules = Rules(settings.known(), settings.compliance.rules(), routes)
    cache, news = CapabilityCache(peers, settings.capability_seconds, db.now, settings.skew_max), News(engine)
    watchers = Watchers(db, engine.dossiers, WatchTokens(box.derived(PURPOSE)), settings.heartbeat_seconds)
    auditing = Auditing(engine, DirectoryStore(settings.audit_directory))
    journal = JournalPeer(channels[routes.journal], settings.call_seconds)
    admission = Admission(db, standings_of(settings.clients))
    settlement = Settlement(engine, rules, cache, journal, settings.quotas)
    servicer = SettlementServicer(
        engine,
        settlement,
        watchers,
        auditing,
        admission,
        traffic=PlanTraffic(settings.quotas),
        plan_bytes_max=settings.plan_bytes_max,
        watchers_max=settings.watchers_max,
        slow_client_seconds=settings.slow_client_seconds,
    )
    journal_relay = JournalRelay(engine, journal)
    restores = Restores(engine, peers, journal, journal_relay)
    recovery = Recovery(engine, peers, news, poll_seconds=settings.recovery_seconds)
    loops = (
        *(Relay(engine, peer, news).loop() for peer in peers.values()),
        *(Outcomes(engine, peer, news, restores).loop() for peer in peers.values()),
        journal_relay.loop(),
        Due(engine).loop(),
        EscalationRelay(engine, NotaryPeer(channels[routes.notary], settings.call_seconds)).loop(),
        restores.loop(),
        Checks(engine, cache, rules).loop(),
        *recovery.loops(),
        auditing.loop(),
        *_notifying(settings, db),
        watchers.loop(),
    )
    operators = OperatorServicer(engine, Resolving(engine), admission)
    return Coordinator(engine, settlement, servicer, operators, watchers, restores, recovery, peers, loops)


def _notifying(settings: CoordinatorSettings, db: Database) -> tuple[Loop, ...]:
    """The loops that bring notices to webhooks."""
    told, patience = settings.notices, settings.notices.patience()
    senders = [Sender(db, each.read(), patience, allow_loopback=told.allow_loopback) for each in settings.webhooks]
    names = [each.name for each in settings.webhooks]
    sweeper = Sweeper(db, names, patience.give_up, poll_seconds=told.sweep_seconds)
    return (*(each.loop() for each in senders), sweeper.loop())


@asynccontextmanager
async def running(coordinator: Coordinator) -> AsyncIterator[asyncio.Future[None]]:
    """The coordinator's loops run inside; yields what ends when one of them does. Leases are given back at the end.

    Raises:
        GenerationStale: the generation file is older than the database.
    """
    await coordinator.restores.begin()
    supervisor = TaskSupervisor()
    supervisor.start(*coordinator.loops)
    ended = asyncio.ensure_future(supervisor.wait())
    try:
        yield ended
    finally:
        ended.cancel()
        await supervisor.stop()
        await coordinator.settlement.drained()
        await coordinator.engine.drained()
        async with coordinator.engine.db.connection() as connection:
            await reading.release_all(connection, coordinator.engine.owner.name)


async def run(settings: CoordinatorSettings) -> None:
    """Serve until told to stop."""
    configure_logs(NAME, settings.log_level)
    routes = settings.check()
    generation, registry = read_generation(settings.generation_file), load_registry(settings.registry_file)
    settings.installation.check_versions(registry.matrices)
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
        shown = metrics(settings.installation.assets)
        await stack.enter_async_context(exposed(NAME, settings.metrics, settings.tls, db, shown))
        ended = await stack.enter_async_context(running(coordinator))
        server = Server(settings.listen, settings.tls, settings.access())
        register(server, coordinator, registry_hash=sha256(settings.registry_file.read_bytes()))
        try:
            await server.start()
            collect_seldom()
            await until_told_to_stop(ended)
        finally:
            await server.stop()


def register(server: Server, coordinator: Coordinator, *, registry_hash: Digest) -> None:
    """Have a server serve what the coordinator serves."""
    engine = coordinator.engine
    parts = {"coordinator": lambda: read_state(engine.db, engine.owner.generation)}
    serve_installation(server, InstallationServicer(NAME, engine.db, registry_hash, parts))
    settlement = settlement_service_pb2.DESCRIPTOR.services_by_name["SettlementService"]
    server.add(settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server, coordinator.servicer, settlement)
    operator = operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"]
    server.add(operator_service_pb2_grpc.add_OperatorServiceServicer_to_server, coordinator.operator_servicer, operator)
    server.on_drain(coordinator.watchers.drain)


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(CoordinatorSettings)))
