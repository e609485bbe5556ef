"""A whole installation in one thread: replicas of the coordinator, the participants, their databases, the network, the outside worlds and the people.

What runs is what production runs, put together as `coordinator.main` and `lockstep_kit.participant.process` do it; everything around it is a twin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from nacl.public import PrivateKey

from coordinator import main as coordinator_main
from coordinator.audit_store import CopyCorrupt
from coordinator.participants import Routes
from coordinator.sealing import KeyBox
from coordinator.settings import CoordinatorSettings, InstallationSettings, LimitSettings
from event_journal import store as journal_store
from event_journal.appender import Appender, JournalOperations
from event_journal.log.publishing import Rhythm
from event_journal.log.sequencer import Sequencer
from event_journal.payload_keys import PayloadVault
from event_journal.servicer import JournalReaderServicer, JournalServicer
from event_journal.signing_keys import SigningKeys
from event_journal.streams import EntryStreams
from lockstep.coordinator.v1 import settlement_service_pb2_grpc
from lockstep.journal.v1 import journal_reader_service_pb2_grpc, journal_service_pb2_grpc
from lockstep.notary.v1 import notary_service_pb2_grpc
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_kit.db import DatabaseSettings, is_transient
from lockstep_kit.ids import Digest
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.readers import PlanReaders
from lockstep_kit.participant.servicer import ParticipantServicer
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.rpc.standings import CallerSettings, Standings
from lockstep_kit.standing import Desk, Standing
from lockstep_testkit.factories import (
    BUYER,
    CHAIN,
    PARTICIPANTS,
    SELLER,
    address_of,
    credit_terms,
    key_of,
    registry_of,
    token_terms,
)
from lockstep_testkit.simulation import bank_checking, chain_checking, schemas
from lockstep_testkit.simulation.bank_party import BankParty
from lockstep_testkit.simulation.chain_parties import ACCOUNTS, DLT_GATEWAY, NOTARY, REGISTRY, ChainParty
from lockstep_testkit.simulation.chance import Seeded
from lockstep_testkit.simulation.database import MemoryDatabase, Trouble
from lockstep_testkit.simulation.loop import Process, VirtualLoop, current_process
from lockstep_testkit.simulation.memory import Key, Row, Server, Transaction
from lockstep_testkit.simulation.network import Network, Weather, identity, methods_of
from lockstep_testkit.simulation.people import People
from lockstep_testkit.simulation.timeline import Timeline, listen
from notary.servicer import NotaryServicer

COORDINATOR: Final = "coordinator"
#: What everybody owns at first.
TOKENS: Final = 8_000_000
MONEY: Final = 80_000

_SERVICE_KEY, _RECOVERY_KEY = PrivateKey(bytes(range(32))), PrivateKey(bytes(range(1, 33)))
_NO_FILE: Final = Path("none")
#: Participants with tables of their own.
_SCHEMAS: Final = {
    PARTICIPANTS[LegKind.JOURNAL]: schemas.journal,
    PARTICIPANTS[LegKind.CREDIT_TRANSFER]: schemas.bank,
    DLT_GATEWAY: schemas.dlt_gateway,
    NOTARY: schemas.notary,
}

#: What the name of a second process ends with.
_STANDBY: Final = "/2"
_CHAIN_DATABASES: Final = {f"{name}-db": name for name in ACCOUNTS}


@cache
def box() -> KeyBox:
    """Keys that plans' keys are sealed to."""
    return KeyBox([bytes(_SERVICE_KEY)], bytes(_RECOVERY_KEY.public_key))


@cache
def registry() -> Registry:
    """Everybody's keys."""
    return registry_of()


@cache
def coordinator_settings() -> CoordinatorSettings:
    """Settings of every replica; times are short, so that a virtual minute holds a whole settlement with its escalations."""
    return CoordinatorSettings(
        database=DatabaseSettings(url="postgresql://coordinator@none/none"),
        tls=TlsSettings(certificate_file=_NO_FILE, key_file=_NO_FILE, ca_file=_NO_FILE),
        generation_file=_NO_FILE,
        registry_file=_NO_FILE,
        seal_key_files=(_NO_FILE,),
        recovery_public_key_file=_NO_FILE,
        participants=dict.fromkeys(PARTICIPANTS.values(), "none"),
        clients={"people": CallerSettings(methods=("*",), parties=(BUYER.party_id, SELLER.party_id))},
        operators={},
        audit_directory=_NO_FILE,
        installation=InstallationSettings(
            assets={token_terms().amount.asset: 6, "EUR": 2},
            chains=(CHAIN,),
            escrows=(address_of("escrow"),),
            registries=(address_of("registry"),),
            banks=("COBADEFF", "BNPAFRPP"),
        ),
        limits=LimitSettings(
            delivery_margin_seconds=15,
            unknown_seconds_max=25,
            validate_seconds_max=30,
            evidence_seconds_max=25,
            deadline_seconds_min=0.1,
        ),
        lease_seconds=4.0,
        recovery_seconds=2.0,
        call_seconds=2.0,
        capability_seconds=20.0,
    )


@cache
def participant_settings() -> ParticipantSettings:
    """Settings of every participant."""
    return ParticipantSettings(signing_key_file=_NO_FILE, registry_file=_NO_FILE, wait_seconds_max=1.0)


class MemoryAuditStore:
    """Write-once storage that outlives every process."""

    def __init__(self) -> None:
        self.logs: Final[dict[Digest, bytes]] = {}
        #: Nothing can be written or read.
        self.full = False

    async def put(self, digest: Digest, octets: bytes) -> None:
        """As `AuditStore.put`."""
        if self.full:
            raise OSError("no space left on device")
        if self.logs.setdefault(digest, octets) != octets:
            raise CopyCorrupt(digest)

    async def get(self, digest: Digest) -> bytes | None:
        """As `AuditStore.get`."""
        return self.logs.get(digest)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a simulation is made of."""

    #: Replicas of the coordinator.
    replicas: int
    #: Plans.
    plans: int
    #: Virtual seconds in which faults happen.
    span: float
    #: Longest hold that is agreed with the bank; None: it never ends one by itself.
    promise_seconds: float | None
    #: Whether databases are put back to what they were.
    restores: bool = False
    #: Whether each account on the chain has a second process, which nobody calls, to sign and send when the first is silent.
    standbys: bool = False


def _epoch(lease: Row) -> tuple[int, int]:
    return lease["generation"], lease["counter"]


class World:
    """Everything, and the means to break it."""

    def __init__(self, seeded: Seeded, loop: VirtualLoop, shape: Shape) -> None:
        self.seeded: Final = seeded
        self.loop: Final = loop
        self.shape: Final = shape
        self.timeline: Final = Timeline(loop)
        self.audits: Final = MemoryAuditStore()
        # The one thing that `build` makes itself of what is outside.
        setattr(coordinator_main, "DirectoryStore", lambda _: self.audits)  # noqa: B010 - a name that is not exported
        listen(self.timeline)
        self.weather: Final = Weather()
        self.network: Final = Network(loop, seeded.stream("network"), self.weather)
        self.outside: Final = Process(loop, "outside")
        #: Faults, by kind.
        self.faults: Final[dict[str, int]] = {}
        self.weather.counts = self.faults
        self.chain: Final = ChainParty(seeded, self.outside, self.faults, TOKENS)
        money = {credit_terms().debtor.iban: MONEY, credit_terms().creditor.iban: 0}
        self.bank: Final = BankParty(seeded, self.outside, self.timeline, self.faults, money, shape.promise_seconds)
        self.servers: Final = {COORDINATOR: self._server(COORDINATOR, schemas.coordinator(self._incarnation()))}
        for name in dict.fromkeys(PARTICIPANTS.values()):
            self.servers[name] = self._server(name, _SCHEMAS[name](self._incarnation()))
        self.troubles: Final = {name: Trouble() for name in self.servers}
        #: Outside the database; every restore of it raises it.
        self.generation = 1
        #: Databases that were put back, each with the time that it lost.
        self.losses: Final[list[tuple[str, float, float]]] = []
        #: Processes by name: as they are now.
        self.processes: Final[dict[str, Process]] = {}
        #: When everything was well again, by the loop's clock.
        self.healed_at = math.inf
        #: What must never happen, as it was noticed.
        self.findings: Final[list[str]] = []
        self.replicas: Final = tuple(f"{COORDINATOR}-{number}" for number in range(shape.replicas))
        self.people_process: Final = Process(loop, "people")
        channels = [self.network.channel(self.people_process, name) for name in self.replicas]
        book = self.servers[COORDINATOR]
        self.people: Final = People(channels, book, seeded.stream("people"), self.timeline)
        self._chance = seeded.stream("databases")
        drawn = seeded.stream("payload-keys").randbytes
        self.vault: Final = PayloadVault([drawn(32)], draw=drawn)

    def _incarnation(self) -> str:
        return self.seeded.octets(8).hex()

    def _server(self, name: str, schema: Any) -> Server:
        server = Server(self.loop, f"{name}-db", schema)
        server.observers.append(self._committed)
        return server

    def _committed(self, server: Server, tx: Transaction) -> None:
        self.timeline.committed(server.name, tx.writes, server.tables)
        if server is self.servers[PARTICIPANTS[LegKind.CREDIT_TRANSFER]]:
            self.findings.extend(bank_checking.written(self.bank, tx.writes, server.tables, restored=self.restored))
        if server.name in _CHAIN_DATABASES:
            self.findings.extend(chain_checking.written(self.chain.node, _CHAIN_DATABASES[server.name], tx.writes, server.tables))
        if server is not self.servers[COORDINATOR]:
            return
        plans: Mapping[Key, Row | None] = tx.writes.get("plan", {})
        writer = current_process()
        for (plan_id,), held in tx.writes.get("lease", {}).items():
            before = server.tables["lease"].get((plan_id,))
            if before is not None and held is not None and before["owner"] != held["owner"] and _epoch(held) <= _epoch(before):
                self.findings.append(f"I7: the lease of plan {plan_id} went to another under the same epoch: {before}, {held}")
        for (plan_id,), row in plans.items():
            lease = tx.writes.get("lease", {}).get((plan_id,)) or server.tables["lease"].get((plan_id,))
            epoch = None if row is None else (row["epoch_generation"], row["epoch_counter"])
            mine = lease is not None and writer is not None and lease["owner"].split("/")[0] in (writer.name, "restore")
            if lease is None or not mine or epoch != _epoch(lease):
                self.findings.append(f"I7: {writer and writer.name} saved plan {plan_id} under {epoch}, its lease is {lease}")

    # -- processes ---------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a process, or start it again, unless it runs."""
        if name in self.processes and self.processes[name].alive:
            return
        process = self.processes[name] = Process(self.loop, name)
        self.timeline.tell("world", f"{name} starts")
        if name in self.replicas:
            process.spawn(self._coordinate(process), name=f"{name}/main")
        else:
            self._run(process, process.context().run(self._participant, process))

    async def _coordinate(self, process: Process) -> None:
        """What `coordinator.main.run` does; a process that cannot begin ends, and is started again."""
        made = self._coordinator(process)
        try:
            await made.restores.begin()
        except Exception as error:  # noqa: BLE001 - the process would end with it
            if not is_transient(error):
                self.findings.append(f"{process.name} cannot begin: {type(error).__name__}: {error}")
            process.kill()
            self.loop.call_later(1.0, self.start, process.name, context=self.outside.context())
            return
        methods = methods_of(settlement_service_pb2_grpc.add_SettlementServiceServicer_to_server, made.servicer)
        self.network.serve(process.name, process, methods)
        self._run(process, made.loops)

    def _run(self, process: Process, loops: Iterable[Loop]) -> None:
        for each in loops:
            task = process.spawn(each.run(), name=f"{process.name}/{each.name}")
            task.add_done_callback(lambda done: self._ended(process, done))

    def _ended(self, process: Process, task: Any) -> None:
        if process.alive:
            self.findings.append(f"the loop {task.get_name()} ended: {task!r}")

    def _database(self, name: str, process: Process) -> MemoryDatabase:
        return MemoryDatabase(self.servers[name], process, self._chance, self.troubles[name])

    def _coordinator(self, process: Process) -> coordinator_main.Coordinator:
        settings = coordinator_settings().model_copy(update={"replica": process.name})
        routes = Routes(settings.routes)
        return coordinator_main.build(
            settings,
            routes,
            db=self._database(COORDINATOR, process).typed,
            registry=registry(),
            box=box(),
            generation=self.generation,
            channels={name: self.network.channel(process, name) for name in routes.names},
        )

    def _participant(self, process: Process) -> tuple[Loop, ...]:
        name = process.name.removesuffix(_STANDBY)
        db, kind = self._database(name, process), next(kind for kind, who in PARTICIPANTS.items() if who == name)
        if kind is LegKind.JOURNAL:
            return self._journal(process, db)
        if kind is LegKind.CREDIT_TRANSFER:
            engine, loops = self.bank.gateway(db.typed, lambda own: self._engine(name, db, own))
            self._serve(process, engine, {})
            return (*engine.loops(), *loops)
        gateway = self.chain.gateway(name, db.typed, registry())
        reading = methods_of(
            notary_service_pb2_grpc.add_NotaryServiceServicer_to_server,
            NotaryServicer(db.typed, CHAIN, REGISTRY, self._readers(db)),
        )
        if process.name == name:
            self._serve(process, gateway.engine, reading if name == NOTARY else {})
        return (*gateway.engine.loops(), *gateway.loops)

    def _journal(self, process: Process, db: MemoryDatabase) -> tuple[Loop, ...]:
        keys = SigningKeys(key_of(process.name), registry())
        operations = JournalOperations(keys, registry(), self.vault)
        engine = self._engine(process.name, db, operations)
        appender = Appender(db.typed, engine, operations, keys, self.vault)
        streams = EntryStreams(db.typed, self.vault, heartbeat_seconds=5.0)
        reader = JournalReaderServicer(db.typed, registry(), self.vault, streams, self._readers(db))
        writing = methods_of(journal_service_pb2_grpc.add_JournalServiceServicer_to_server, JournalServicer(appender))
        reading = methods_of(journal_reader_service_pb2_grpc.add_JournalReaderServiceServicer_to_server, reader)
        self._serve(process, engine, {**writing, **reading})
        sequencer = Sequencer(db.typed, keys, "lockstep.local/journal", Rhythm(timedelta(seconds=1), entries=64))
        db.listen(journal_store.CHANNEL, sequencer.wake, sequencer.heeds)
        advance = Loop("journal.advance", appender.advance, poll_seconds=1.0, wake=operations.waiting)
        return (*engine.loops(), advance, Loop("journal.log", sequencer.run, poll_seconds=1.0, wake=sequencer.wake))

    def _readers(self, db: MemoryDatabase) -> PlanReaders:
        """The coordinator's replicas read what they had written."""
        return PlanReaders(db.typed, Standings({identity(name): Standing(desk=Desk.AUDITOR) for name in self.replicas}))

    def _engine(self, name: str, db: MemoryDatabase, operations: Any) -> ParticipantEngine:
        return ParticipantEngine(
            db=db.typed,
            name=name,
            signing_key=key_of(name),
            registry=registry(),
            operations=operations,
            settings=participant_settings(),
        )

    def _serve(self, process: Process, engine: ParticipantEngine, others: Mapping[str, Any]) -> None:
        servicer = ParticipantServicer(engine)
        methods = methods_of(participant_service_pb2_grpc.add_ParticipantServiceServicer_to_server, servicer)
        self.network.serve(process.name, process, {**methods, **others})

    # -- everything --------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Every process that can be killed."""
        standbys = tuple(f"{name}{_STANDBY}" for name in ACCOUNTS) if self.shape.standbys else ()
        return (*self.replicas, *dict.fromkeys(PARTICIPANTS.values()), *standbys)

    def begin(self) -> None:
        """Start everything."""
        for name in self.names:
            self.start(name)
        self.chain.mine()
        cases = self.people.invited(self.shape.plans, self.shape.span, soft=True)
        for case in cases:
            self.people_process.spawn(self.people.attend(case), name=f"people/{case.plan.plan_id}")

    def put_back(self, name: str, snapshot: Mapping[str, Mapping[Key, Row]], since: float) -> None:
        """Put a database back to what it was at a moment, as its operators do: whoever uses it is stopped first, and started again after."""
        self.losses.append((name, since, self.loop.time()))
        users = [each for each in self.names if (each in self.replicas if name == COORDINATOR else each.startswith(name))]
        for each in users:
            if self.processes[each].alive:
                self.processes[each].kill()
        self.servers[name].restore(snapshot)
        self._renew_logs(self.servers[name])
        if name == COORDINATOR:
            self.generation += 1
        for each in users:
            self.loop.call_later(0.5, self.start, each, context=self.outside.context())

    def _renew_logs(self, server: Server) -> None:
        """As `lockstep_kit.migrate.renew_logs`: what followed a log reads it anew."""
        for rows in server.tables.values():
            for key, row in rows.items():
                if "singleton" in row and "incarnation" in row:
                    rows[key] = {**row, "incarnation": self._incarnation()}

    @property
    def restored(self) -> bool:
        """Whether a database was put back."""
        return "database_restored" in self.faults

    @property
    def lost_twice(self) -> bool:
        """Whether the coordinator and a participant lost the same time, and with it what only those two knew."""
        mine = [(since, until) for name, since, until in self.losses if name == COORDINATOR]
        others = [(since, until) for name, since, until in self.losses if name != COORDINATOR]
        return any(one[0] < other[1] and other[0] < one[1] for one in mine for other in others)

    def count(self, kind: str) -> None:
        """Note a fault."""
        self.faults[kind] = self.faults.get(kind, 0) + 1

    def count_by(self, kind: str, number: int) -> None:
        """Note that there were so many faults of a kind."""
        if number:
            self.faults[kind] = self.faults.get(kind, 0) + number
