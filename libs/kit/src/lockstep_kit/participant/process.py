"""What every participant's process has in common, so that a service's `main` says only what is its own.

async with ParticipantProcess.opened("bank-gateway", settings, settings.participant) as process:
    operations = BankOperations(…)
    engine = process.engine(operations)
    await process.serve(engine, loops=[Loop("bank.recovery", …)])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from lockstep.participant.v1 import participant_service_pb2, participant_service_pb2_grpc
from lockstep_kit import failpoints, telemetry
from lockstep_kit.db import Database
from lockstep_kit.garbage import collect_seldom
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.installation import InstallationServicer, Parts, serve_installation, with_inspectors
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.logs import configure_logs
from lockstep_kit.loops import Loop, TaskSupervisor
from lockstep_kit.metrics.serving import Metrics, exposed
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.metrics import with_legs
from lockstep_kit.participant.ports import Operations
from lockstep_kit.participant.servicer import ParticipantServicer
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.rpc import Server, access_of
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.settings import ServiceSettings
from lockstep_kit.signing import SigningKey
from lockstep_kit.values import dataclass

#: Whether services can do their work is asked at least so often.
HEALTH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """A service that a process serves beside ParticipantService."""

    #: The generated `add_…Servicer_to_server`.
    register: Any
    #: The servicer.
    servicer: object
    #: The service's descriptor.
    descriptor: Any
    #: Ends its open streams when the process stops; None where it has none.
    drain: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class ParticipantProcess:
    """An opened process: it has its database, key and registry, and takes no calls yet."""

    #: Name that votes and outcomes carry.
    name: str
    #: What every service is told.
    settings: ServiceSettings
    #: What every participant is told.
    participant: ParticipantSettings
    #: The service's own database.
    db: Database
    #: Key that signs votes and outcomes.
    signing_key: SigningKey
    #: This participant's own copy of the registry.
    registry: Registry
    #: SHA-256 of the file that it came from.
    registry_hash: Digest

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, name: str, settings: ServiceSettings, participant: ParticipantSettings
    ) -> AsyncIterator[ParticipantProcess]:
        """Logs, telemetry, key, registry and database; closed again at the end.

        Raises:
            FieldInvalid: a key or registry file breaks a rule.
            OSError, asyncpg.PostgresError: a file cannot be read, or the database cannot be reached.
        """
        configure_logs(name, settings.log_level)
        signing_key, registry = read_signing_key(participant.signing_key_file), load_registry(participant.registry_file)
        registry_hash = sha256(participant.registry_file.read_bytes())
        tracing = telemetry.configure(name, settings.telemetry)
        try:
            db = await Database.connect(settings.database, application_name=name)
            try:
                yield cls(name, settings, participant, db, signing_key, registry, registry_hash)
            finally:
                await db.close()
        finally:
            tracing.shutdown()

    def engine(self, operations: Operations) -> ParticipantEngine:
        """The engine over the participant's own operations."""
        return ParticipantEngine(
            db=self.db,
            name=self.name,
            signing_key=self.signing_key,
            registry=self.registry,
            operations=operations,
            settings=self.participant,
        )

    async def serve(
        self,
        engine: ParticipantEngine,
        *,
        loops: Sequence[Loop] = (),
        services: Sequence[Service] = (),
        clients: Mapping[str, tuple[str, ...]] | None = None,
        standing: Callable[[], Awaitable[Mapping[str, bool]]] | None = None,
        metrics: Metrics | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Take calls and run loops until SIGTERM or SIGINT, or until a loop ends, which none should; then drain.

        Who may call is said in `rpc.arrows`; `clients` adds which clients may call which of the methods that clients may call at all. `standing`
        is asked every second which services, by their full names, can do their work, for health to say. `metrics` are shown beside those that every
        participant shows, and `parts` are told of the installation besides what every service tells.
        """
        failpoints.arm_from_environment()
        access = access_of(self.name, with_inspectors(clients or {}, self.settings.inspectors))
        server = Server(self.settings.listen, self.settings.tls, access)
        serve_installation(server, InstallationServicer(self.name, self.db, self.registry_hash, parts or {}))
        servicer = ParticipantServicer(engine)
        descriptor = participant_service_pb2.DESCRIPTOR.services_by_name["ParticipantService"]
        server.add(participant_service_pb2_grpc.add_ParticipantServiceServicer_to_server, servicer, descriptor)
        for each in services:
            server.add(each.register, each.servicer, each.descriptor)
            if each.drain is not None:
                server.on_drain(each.drain)
        server.on_drain(engine.drain)
        if standing is not None:

            async def told() -> None:
                for name, serving in (await standing()).items():
                    await server.report(name, serving=serving)

            loops = (*loops, Loop("participant.health", told, poll_seconds=min(HEALTH_SECONDS, self.participant.poll_seconds)))
        supervisor = TaskSupervisor()
        supervisor.start(*engine.loops(), *loops)
        ended = asyncio.ensure_future(supervisor.wait())
        try:
            async with exposed(self.name, self.settings.metrics, self.settings.tls, self.db, with_legs(metrics or Metrics())):
                await server.start()
                collect_seldom()
                await until_told_to_stop(ended)
        finally:
            await server.stop()
            ended.cancel()
            await supervisor.stop()
