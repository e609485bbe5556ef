"""A participant for tests of the coordinator: the real engine on a real database, over real gRPC; its outside world is scripted."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import grpc
from hoarse import HoarseServicer
from restored import LOOKS_MAX
from scripted_journal import Journal
from scripted_notary import Notary

from lockstep.journal.v1 import journal_reader_service_pb2_grpc, journal_service_pb2_grpc
from lockstep.notary.v1 import notary_service_pb2_grpc
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_kit.db import Database
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import PromiseKind
from lockstep_sandbox.ports import free_ports
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PARTICIPANTS, PlanCase, key_of, registry_of
from lockstep_testkit.scripted import ScriptedOperations


@dataclass
class SoftOperations(ScriptedOperations):
    """Promises lapse, if so scripted."""

    promise_max: timedelta | None = None
    #: The journal's: the chains that it seals.
    journal: Journal | None = None

    def capabilities(self) -> Capabilities:
        return Capabilities(tuple(self.kinds), PromiseKind.GUARANTEED, self.promise_max, self.assets)

    def finding(self, work: LegWork) -> Completion:
        found = super().finding(work)
        if self.journal is not None and work.closing is not None:
            self.journal.seals[work.plan_id] = work.closing
        if found.promise is not None and self.promise_max is not None:
            lapses = work.binding.header.deadline + self.promise_max
            return replace(found, promise=replace(found.promise, expires_at=lapses))
        return found


@dataclass
class Party:
    """One scripted participant: its outside world, and the switch of its server."""

    name: str
    operations: SoftOperations
    engine: ParticipantEngine
    db: Database
    database: TestDatabase
    journal: Journal
    notary: Notary
    #: Nobody else is given it while the server is down.
    port: int = field(default_factory=lambda: free_ports(1)[0])
    server: grpc.aio.Server | None = None
    servicer: HoarseServicer | None = None

    async def up(self) -> None:
        self.server = grpc.aio.server()
        self.servicer = HoarseServicer(self.engine)
        participant_service_pb2_grpc.add_ParticipantServiceServicer_to_server(self.servicer, self.server)
        journal_service_pb2_grpc.add_JournalServiceServicer_to_server(self.journal, self.server)
        journal_reader_service_pb2_grpc.add_JournalReaderServiceServicer_to_server(self.journal, self.server)
        notary_service_pb2_grpc.add_NotaryServiceServicer_to_server(self.notary, self.server)
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def down(self) -> None:
        if self.server is not None:
            await self.server.stop(None)
            self.server = None

    async def find(self, *work: LegWork) -> None:
        """Report what the script finds about work that was left open, once the transaction that began it has committed."""
        for each in work:
            await self._known(each)
        async with self.db.transaction() as tx:
            await self.engine.complete(tx, [self.operations.finding(each) for each in work])

    async def _known(self, work: LegWork) -> None:
        known = "select from participant_leg where plan_id = $1 and leg_id = $2 and phase is not null"
        async with self.database.as_owner() as owner:
            for _ in range(LOOKS_MAX):
                if await owner.fetch(known, work.plan_id, work.leg_id):
                    return
                await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} never began {work.leg_id}")

    async def phases(self, plan: PlanCase) -> dict[str, str]:
        async with self.database.as_owner() as owner:
            rows = await owner.fetch("select leg_id, phase from participant_leg where plan_id = $1", plan.plan_id)
        return {row["leg_id"]: row["phase"] for row in rows}


async def party_of(name: str, database: TestDatabase, journal: Journal, notary: Notary, stack: AsyncExitStack) -> Party:
    kinds = tuple(kind for kind, who in PARTICIPANTS.items() if who == name)
    db = await Database.connect(database.settings, application_name=name)
    stack.push_async_callback(db.close)
    operations = SoftOperations(kinds=kinds, journal=journal if LegKind.JOURNAL in kinds else None)
    settings = ParticipantSettings(
        signing_key_file=Path("unused"), registry_file=Path("unused"), heartbeat_seconds=1.0, poll_seconds=0.2
    )
    engine = ParticipantEngine(
        db=db, name=name, signing_key=key_of(name), registry=registry_of(), operations=operations, settings=settings
    )
    supervisor = TaskSupervisor()
    supervisor.start(*engine.loops())
    stack.push_async_callback(supervisor.stop)
    stack.push_async_callback(engine.drain)
    party = Party(name, operations, engine, db, database, journal, notary)
    await party.up()
    stack.push_async_callback(party.down)
    return party
