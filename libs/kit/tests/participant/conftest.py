from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lockstep_kit.certificate import AbortAuthority, Certificate, Decision
from lockstep_kit.convert import certificate_to_pb
from lockstep_kit.db import Database
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import LegId
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant import convert
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion
from lockstep_kit.participant.records import Answer, Item
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.reversals import ReverseAuthority
from lockstep_testkit import commands
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PlanCase, delivery_versus_payment, evidence_of, key_of, registry_of
from lockstep_testkit.scripted import NO, YES, ScriptedOperations

NAME = "bank-gateway"


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_for: Callable[..., Awaitable[TestDatabase]]) -> TestDatabase:
    return await database_for("kit_participant", Path(__file__).parent / "migrations")


@pytest_asyncio.fixture(loop_scope="session")
async def db(database: TestDatabase) -> AsyncIterator[Database]:
    db = await Database.connect(database.settings, application_name="test")
    yield db
    await db.close()


@pytest.fixture
def settings() -> ParticipantSettings:
    return ParticipantSettings(
        signing_key_file=Path("unused"), registry_file=Path("unused"), heartbeat_seconds=0.3, poll_seconds=0.2, watchers_max=8
    )


@pytest.fixture
def operations() -> ScriptedOperations:
    return ScriptedOperations()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(db: Database, settings: ParticipantSettings, operations: ScriptedOperations) -> AsyncIterator[ParticipantEngine]:
    """A bank gateway whose outside world is scripted, on a real database."""
    engine = ParticipantEngine(
        db=db, name=NAME, signing_key=key_of(NAME), registry=registry_of(), operations=operations, settings=settings
    )
    supervisor = TaskSupervisor()
    async with AsyncExitStack() as stack:
        supervisor.start(*engine.loops())
        stack.push_async_callback(supervisor.stop)
        stack.push_async_callback(engine.drain)
        yield engine


class Bench:
    """Sends commands for the leg "cash", reports findings, and looks into the database from outside."""

    LEG = LegId("cash")

    def __init__(self, engine: ParticipantEngine, db: Database, database: TestDatabase, operations: ScriptedOperations) -> None:
        self.engine, self.db, self.database, self.operations = engine, db, database, operations

    async def prepare(self, plan: PlanCase, wait: float = 0, **changes: Any) -> Answer:
        return (await self.send(convert.read_prepare(commands.prepare(plan, self.LEG, **changes)), wait=wait))[0]

    async def commit(self, plan: PlanCase, certificate: Certificate | None = None, wait: float = 0, **changes: Any) -> Answer:
        return (await self.send(self.commit_item(plan, certificate, **changes), wait=wait))[0]

    def commit_item(self, plan: PlanCase, certificate: Certificate | None = None, **changes: Any) -> Item:
        shown = certificate or plan.certificate()
        return convert.read_commit(commands.commit(plan, self.LEG, shown, **changes), shown, certificate_to_pb(shown))

    async def abort(self, plan: PlanCase, authority: AbortAuthority | None = None, wait: float = 0, **changes: Any) -> Answer:
        return (await self.send(convert.read_abort(commands.abort(plan, self.LEG, authority, **changes)), wait=wait))[0]

    async def reverse(self, plan: PlanCase, authority: ReverseAuthority | None = None, wait: float = 0, **changes: Any) -> Answer:
        return (await self.send(convert.read_reverse(commands.reverse(plan, self.LEG, authority, **changes)), wait=wait))[0]

    async def send(self, *items: Item, wait: float = 0) -> list[Answer]:
        return await self.engine.execute(items[0].command, items, wait)

    async def find(self, plan: PlanCase, finding: Finding) -> None:
        async with self.db.transaction() as tx:
            await self.engine.complete(tx, [self.completion(plan, finding)])

    def completion(self, plan: PlanCase, finding: Finding) -> Completion:
        refused = finding in (Finding.VOTED_NO, Finding.LAPSED, Finding.REFUSED, Finding.REVERSAL_REFUSED)
        return Completion(
            plan.plan_id,
            self.LEG,
            finding,
            promise=YES if finding is Finding.VOTED_YES else None,
            refusal=NO if refused else None,
            evidence=evidence_of(plan.leg(self.LEG)) if finding in (Finding.EXECUTED, Finding.REVERSED) else None,
        )

    async def reach(self, phase: Phase | None, *, delegated: bool = False) -> PlanCase:
        """A plan whose leg stands in this phase, by commands and findings alone."""
        plan = delivery_versus_payment()
        if phase is None:
            return plan
        if phase in (Phase.ABORTING, Phase.RELEASED):
            await self.abort(plan)
            if phase is Phase.RELEASED:
                await self.find(plan, Finding.RELEASED)
            return plan
        await self.prepare(plan)
        if phase is not Phase.PREPARING:
            await self.find(plan, Finding.VOTED_NO if phase is Phase.REFUSED else Finding.VOTED_YES)
        if phase in (Phase.COMMITTING, Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED):
            certificate = plan.certificate(decision=Decision.DELEGATED, delegated=self.LEG) if delegated else None
            await self.commit(plan, certificate)
        if phase in (Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED):
            await self.find(plan, Finding.EXECUTED)
        if phase in (Phase.REVERSING, Phase.REVERSED):
            await self.reverse(plan)
        if phase is Phase.REVERSED:
            await self.find(plan, Finding.REVERSED)
        return plan

    async def row(self, plan: PlanCase) -> dict[str, Any] | None:
        async with self.database.as_owner() as owner:
            found = await owner.fetchrow("select * from participant_leg where plan_id = $1 and leg_id = $2", plan.plan_id, self.LEG)
        return None if found is None else dict(found)

    async def log(self) -> list[tuple[int, str, int]]:
        async with self.database.as_owner() as owner:
            rows = await owner.fetch("select sequence, plan_id, revision from participant_outcome_log order by sequence")
        return [(row["sequence"], row["plan_id"], row["revision"]) for row in rows]


@pytest.fixture
def bench(engine: ParticipantEngine, db: Database, database: TestDatabase, operations: ScriptedOperations) -> Bench:
    """The leg "cash" at a bank gateway whose findings the test reports."""
    operations.at_once = False
    return Bench(engine, db, database, operations)
