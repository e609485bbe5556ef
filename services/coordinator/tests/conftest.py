"""A coordinator on a real database, with four participants whose outside worlds are scripted, each on a real database, over real gRPC."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from nacl.public import PrivateKey

from coordinator.main import Coordinator, build, register, running
from coordinator.sealing import KeyBox
from coordinator.settings import CoordinatorSettings, InstallationSettings, LimitSettings
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep.journal.v1 import (
    entry_pb2,
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep.notary.v1 import notary_service_pb2_grpc
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_kit import failpoints
from lockstep_kit.canonical import Document, canonical
from lockstep_kit.convert import epoch_from_pb, gate_to_pb, header_to_pb, leg_to_pb, outcome_from_pb, vote_from_pb
from lockstep_kit.db import Database
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.journal_payloads import VERSION, check_payload
from lockstep_kit.logs import configure_logs
from lockstep_kit.loops import TaskSupervisor
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Closing, Completion, LegWork
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import LegKind
from lockstep_kit.rpc import ListenSettings, Server, TlsSettings, channel
from lockstep_kit.rpc.limits import ServingLimits
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk
from lockstep_kit.statements import Gate, GateSignature, PromiseKind, Verdict
from lockstep_sandbox.ports import free_ports
from lockstep_testkit.clocks import JumpingClock
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import (
    BUYER,
    CHAIN,
    PARTICIPANTS,
    SELLER,
    PlanCase,
    address_of,
    delivery_versus_payment,
    key_of,
    registry_of,
    token_terms,
)
from lockstep_testkit.participants import ROOMY
from lockstep_testkit.scripted import ScriptedOperations
from lockstep_testkit.snapshots import Snapshots

# The tests' own modules, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from hoarse import HoarseServicer
from restored import LOOKS_MAX
from scripted_notary import Notary

STATE = settlement_pb2.PlanState
CLIENT = "spiffe://lockstep.local/client/test"
ASSETS = {token_terms().amount.asset: 6, "EUR": 2}
SERVICE_KEY, RECOVERY_KEY = PrivateKey(bytes(range(32))), PrivateKey(bytes(range(1, 33)))
#: Longer than a replica works on a plan.
HELD_SECONDS_MAX = 120.0
DEADLINE_SECONDS = 60.0


class Journal(journal_service_pb2_grpc.JournalServiceServicer, journal_reader_service_pb2_grpc.JournalReaderServiceServicer):
    """Takes events as the journal does: densely numbered per plan, the same again as before, others never."""

    def __init__(self) -> None:
        self.chains: dict[str, list[journal_service_pb2.Event]] = {}
        self.conflicts: set[str] = set()
        self.fences: dict[str, Epoch] = {}
        #: Plan -> how it was ordered to be closed: from then on its chain ends with a seal.
        self.seals: dict[str, Closing] = {}
        #: Plans whose payloads were erased.
        self.erased: set[str] = set()
        #: Whether it takes nothing now.
        self.deaf = False

    async def ListEntries(  # noqa: N802
        self, request: journal_reader_service_pb2.ListEntriesRequest, context: Any
    ) -> journal_reader_service_pb2.ListEntriesResponse:
        """Two entries a page."""
        chain, after = self._entries(request.plan_id), int(request.page_token or 0)
        more = str(after + 2) if len(chain) > after + 2 else ""
        return journal_reader_service_pb2.ListEntriesResponse(entries=chain[after : after + 2], next_page_token=more)

    def _entries(self, plan_id: str) -> list[entry_pb2.Entry]:
        events = list(self.chains.get(plan_id, []))
        seal = self.seals.get(plan_id)
        if seal is not None:
            transition: dict[str, Document] = {"transition_no": seal.transition_no, "from": seal.from_state, "to": "CLOSED"}
            document: dict[str, Document] = {"outcome": seal.outcome.value, "evidence_digest": seal.evidence_digest.hex()}
            document |= {"version": VERSION, "transition": transition, "entry_count": len(events), "head_hash": "00" * 32}
            payload = canonical(document)
            check_payload("plan.closed", document)
            events.append(journal_service_pb2.Event(sequence=len(events) + 1, type="plan.closed", payload=payload))
        return [
            entry_pb2.Entry(
                plan_id=plan_id,
                sequence=event.sequence,
                type=event.type,
                actor=event.actor,
                actor_role=event.actor_role,
                event_time=event.event_time,
                payload=b"" if plan_id in self.erased else event.payload,
                payload_hash=sha256(event.payload),
                erased=plan_id in self.erased,
            )
            for event in events
        ]

    async def Append(self, request: journal_service_pb2.AppendRequest, context: Any) -> journal_service_pb2.AppendResponse:  # noqa: N802
        if self.deaf:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return journal_service_pb2.AppendResponse(answers=[self._append(each) for each in request.events])

    async def RaiseFence(  # noqa: N802
        self, request: journal_service_pb2.RaiseFenceRequest, context: Any
    ) -> journal_service_pb2.RaiseFenceResponse:
        self.fences[request.plan_id] = epoch_from_pb(request.epoch)
        return journal_service_pb2.RaiseFenceResponse()

    def _append(self, event: journal_service_pb2.Event) -> journal_service_pb2.AppendAnswer:
        epoch = epoch_from_pb(event.epoch)
        event.ClearField("epoch")
        try:
            check_payload(event.type, json.loads(event.payload))
        except FieldInvalid as finding:
            return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_INVALID, message=str(finding))
        if epoch < self.fences.get(event.plan_id, epoch):
            return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_STALE)
        chain = self.chains.setdefault(event.plan_id, [])
        if event.plan_id in self.conflicts:
            return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_CONFLICT, message="another event")
        if event.sequence > len(chain) + 1:
            return journal_service_pb2.AppendAnswer(
                verdict=journal_service_pb2.APPEND_VERDICT_GAP, expected_sequence=len(chain) + 1
            )
        if event.sequence <= len(chain):
            same = chain[event.sequence - 1] == event
            verdict = journal_service_pb2.APPEND_VERDICT_APPENDED if same else journal_service_pb2.APPEND_VERDICT_CONFLICT
            return journal_service_pb2.AppendAnswer(verdict=verdict)
        chain.append(event)
        return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_APPENDED, entry_hash=bytes(32))

    def types(self, plan: PlanCase) -> list[str]:
        return [each.type for each in self.chains[plan.plan_id]]

    def payloads(self, plan: PlanCase) -> list[dict[str, Any]]:
        return [json.loads(each.payload) for each in self.chains[plan.plan_id]]


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
            from dataclasses import replace

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


async def again(call: Any, request: Any) -> Any:
    """The answer to a request, repeated as it is while another replica is working on the plan, as clients do."""
    give_up = time.monotonic() + HELD_SECONDS_MAX
    while True:
        try:
            return await call(request, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > give_up:
                raise
        await asyncio.sleep(0.05)


@dataclass
class World:
    """Everything, with a client."""

    database: TestDatabase
    parties: dict[str, Party]
    journal: Journal
    notary: Notary
    settings: CoordinatorSettings
    tls_for: Callable[[str], TlsSettings]
    stack: AsyncExitStack
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    client: SettlementServiceStub | None = None
    ended: asyncio.Future[None] | None = None
    port: int = 0
    listen: ListenSettings = field(default_factory=lambda: ListenSettings(limits=ServingLimits(clients=ROOMY)))

    @asynccontextmanager
    async def coordinator(
        self, *, serve: bool = True, crash: bool = False, generation: int = 1, **changes: Any
    ) -> AsyncIterator[Coordinator]:
        """A replica of the coordinator; one that crashes gives no lease back."""
        settings = self.settings.model_copy(update=changes)
        db = await Database.connect(settings.database, application_name="coordinator")
        box = KeyBox([bytes(SERVICE_KEY)], bytes(RECOVERY_KEY.public_key))
        made = build(
            settings, settings.check(), db=db, registry=registry_of(), box=box, generation=generation, channels=self.channels
        )
        server = Server(self.listen, self.tls_for("spiffe://lockstep.local/coordinator"), settings.access())
        register(server, made, registry_hash=sha256(b"registry"))
        try:
            async with crashing(made) if crash else running(made) as ended:
                if serve:
                    await server.start()
                    self.port, self.client = server.port, self.stub(server.port)
                self.ended = ended
                yield made
        finally:
            await server.stop()
            await db.close()

    def stub(self, port: int, who: str = CLIENT) -> SettlementServiceStub:
        made = channel(f"127.0.0.1:{port}", self.tls_for(who))
        self.stack.push_async_callback(made.close)
        return SettlementServiceStub(made)

    @property
    def requests(self) -> Requests:
        return Requests(self)

    async def again(self, call: Any, request: Any) -> Any:
        return await again(call, request)

    # -- What people do ----------------------------------------------------------------------------------------------

    @property
    def api(self) -> SettlementServiceStub:
        assert self.client is not None
        return self.client

    def creation(self, plan: PlanCase) -> messages.CreatePlanRequest:
        return create_request(plan)

    async def create(self, plan: PlanCase, **changes: Any) -> settlement_pb2.Plan:
        return (await self.api.CreatePlan(create_request(plan, **changes), timeout=DEADLINE_SECONDS)).plan

    async def execute(self, plan: PlanCase) -> settlement_pb2.Plan:
        answer: messages.ExecutePlanResponse = await again(self.api.ExecutePlan, execute_request(plan))
        return answer.plan

    async def sign(self, plan: PlanCase, signed: GateSignature) -> settlement_pb2.Plan:
        answer: messages.SignGateResponse = await again(self.api.SignGate, sign_request(plan, signed))
        return answer.plan

    async def cancel(self, plan: PlanCase, who: str = "alice", etag: str = "") -> settlement_pb2.Plan:
        request = messages.CancelPlanRequest(
            request_id=str(uuid.uuid4()), plan_id=plan.plan_id, cancel=gate_to_pb(plan.gate(Gate.CANCEL, who)), etag=etag
        )
        return (await self.api.CancelPlan(request, timeout=DEADLINE_SECONDS)).plan

    async def get(self, plan: PlanCase) -> settlement_pb2.Plan:
        return (await self.api.GetPlan(messages.GetPlanRequest(plan_id=plan.plan_id), timeout=DEADLINE_SECONDS)).plan

    async def reaches(self, plan: PlanCase, *states: str, seconds: float = DEADLINE_SECONDS) -> settlement_pb2.Plan:
        """The plan once it is in one of the states."""
        wanted = {STATE.Value(f"PLAN_STATE_{each}") for each in states}
        return await self.until(plan, lambda found: found.state in wanted, seconds)

    async def until(
        self, plan: PlanCase, holds: Callable[[settlement_pb2.Plan], bool], seconds: float = DEADLINE_SECONDS
    ) -> settlement_pb2.Plan:
        found = await self.get(plan)
        for _ in range(int(seconds / 0.02)):
            if holds(found):
                return found
            await asyncio.sleep(0.02)
            found = await self.get(plan)
        raise AssertionError(f"the plan rests in {STATE.Name(found.state)}: {found.reason} {found.waiting} {found.escalations}")

    async def journalled(self, plan: PlanCase) -> settlement_pb2.Plan:
        """The plan, once the journal has all that is recorded of it, and that is known."""
        found = await self.until(plan, lambda found: len(self.journal.chains.get(plan.plan_id, ())) == found.journal_sequence)
        async with self.database.as_owner() as owner:
            while not await owner.fetchval(  # noqa: ASYNC110 - Postgres tells nobody
                "select appended = recorded or frozen <> '' from journal_progress where plan_id = $1", plan.plan_id
            ):
                await asyncio.sleep(0.02)
        return found

    async def release(self, plan: PlanCase) -> settlement_pb2.Plan:
        """The releaser signs over the votes as they stand."""
        found = await self.get(plan)
        votes = [vote_from_pb(leg.vote) for leg in found.legs]
        return await self.sign(plan, plan.gate(Gate.RELEASE, votes=votes))

    async def validate(self, plan: PlanCase, verdict: Verdict = Verdict.APPROVE) -> settlement_pb2.Plan:
        """The validator signs over the evidence as it stands."""
        found = await self.get(plan)
        settling = [leg for leg in found.legs if plan.leg(leg.leg.leg_id).settling]
        outcomes = [outcome_from_pb(leg.outcome) for leg in settling]
        return await self.sign(plan, plan.gate(Gate.VALIDATE, outcomes=outcomes, verdict=verdict))

    async def started(self, plan: PlanCase | None = None) -> PlanCase:
        """A plan that is created, executed and approved."""
        plan = plan or delivery_versus_payment()
        await self.create(plan)
        await self.execute(plan)
        await self.sign(plan, plan.gate(Gate.APPROVE))
        return plan

    async def executing(self, plan: PlanCase | None = None) -> PlanCase:
        """A plan that is released."""
        plan = await self.started(plan)
        await self.reaches(plan, "PREPARED")
        await self.release(plan)
        return plan

    async def settled(self, plan: PlanCase | None = None) -> PlanCase:
        """A plan that went all the way."""
        plan = await self.started(plan)
        await self.settled_from_prepared(plan)
        return plan

    async def settled_from_draft(self, plan: PlanCase) -> None:
        """A plan that is created goes the rest of the way."""
        await self.execute(plan)
        await self.sign(plan, plan.gate(Gate.APPROVE))
        await self.settled_from_prepared(plan)

    async def settled_from_prepared(self, plan: PlanCase) -> None:
        """A plan that is approved goes the rest of the way."""
        await self.reaches(plan, "PREPARED")
        await self.release(plan)
        await self.reaches(plan, "VALIDATING")
        await self.validate(plan)
        await self.reaches(plan, "CLOSED")

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self.database.as_owner() as owner:
            return list(await owner.fetch(query, *arguments))


@asynccontextmanager
async def crashing(coordinator: Coordinator) -> AsyncIterator[asyncio.Future[None]]:
    """The coordinator's loops, until one of them dies; then all die, and nothing is tidied up."""
    await coordinator.restores.begin()
    tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in coordinator.loops]
    ended = asyncio.ensure_future(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
    try:
        yield ended  # type: ignore[misc]
    finally:
        ended.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Requests:
    """Requests that can be sent again with the same ids; each gives the answer's bytes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _again(self, method: str, request: Any) -> Callable[[], Awaitable[bytes]]:
        async def send() -> bytes:
            answer = await getattr(self._world.api, method)(request, timeout=DEADLINE_SECONDS)
            return bytes(answer.SerializeToString(deterministic=True))

        return send

    def create(self, plan: PlanCase) -> Callable[[], Awaitable[bytes]]:
        return self._again("CreatePlan", create_request(plan))

    def execute(self, plan: PlanCase) -> Callable[[], Awaitable[bytes]]:
        return self._again("ExecutePlan", execute_request(plan))

    def approve(self, plan: PlanCase) -> Callable[[], Awaitable[bytes]]:
        return self._again("SignGate", sign_request(plan, plan.gate(Gate.APPROVE)))

    def release(self, plan: PlanCase, found: settlement_pb2.Plan) -> Callable[[], Awaitable[bytes]]:
        votes = [vote_from_pb(leg.vote) for leg in found.legs]
        return self._again("SignGate", sign_request(plan, plan.gate(Gate.RELEASE, votes=votes)))


def create_request(plan: PlanCase, make: GateSignature | None = None, request_id: str | None = None) -> messages.CreatePlanRequest:
    return messages.CreatePlanRequest(
        request_id=request_id or str(uuid.uuid4()),
        header=header_to_pb(plan.header),
        legs=[leg_to_pb(leg) for leg in plan.legs],
        make=gate_to_pb(make or plan.gate(Gate.MAKE)),
    )


def execute_request(plan: PlanCase, signed: Sequence[str] | None = None) -> messages.ExecutePlanRequest:
    legs = [leg.leg_id for leg in plan.legs if leg.kind is LegKind.TOKEN_TRANSFER] if signed is None else signed
    return messages.ExecutePlanRequest(
        request_id=str(uuid.uuid4()),
        plan_id=plan.plan_id,
        payer_signatures=[messages.PayerSignature(leg_id=each, signature=bytes(65)) for each in legs],
    )


def sign_request(plan: PlanCase, signed: GateSignature) -> messages.SignGateRequest:
    return messages.SignGateRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id, signature=gate_to_pb(signed))


def settings_of(database: TestDatabase, tls: TlsSettings, audit_directory: Path) -> CoordinatorSettings:
    return CoordinatorSettings(
        database=database.settings,
        tls=tls,
        generation_file=Path("unused"),
        registry_file=Path("unused"),
        seal_key_files=(Path("unused"),),
        recovery_public_key_file=Path("unused"),
        audit_directory=audit_directory,
        participants=dict.fromkeys(PARTICIPANTS.values(), "unused"),
        clients={
            "test": CallerSettings(methods=("*",), parties=(BUYER.party_id, SELLER.party_id), desk=Desk.OPERATOR),
            "reader": CallerSettings(methods=("GetPlan",), desk=Desk.AUDITOR),
        },
        operators={"test": ("*",), "reader": ("ListEscalations",)},
        installation=InstallationSettings(
            assets=ASSETS,
            chains=(CHAIN,),
            escrows=(address_of("escrow"),),
            registries=(address_of("registry"),),
            banks=("COBADEFF", "BNPAFRPP"),
        ),
        limits=LimitSettings(deadline_seconds_min=0.1),
        lease_seconds=1.0,
        recovery_seconds=0.1,
        call_seconds=20.0,
        heartbeat_seconds=0.3,
        capability_seconds=0.5,
    )


class Clocks:
    """The clocks of everybody's databases, which pass a deadline when a test says so: no test hurries to be done before it, and none waits for it."""

    def __init__(self, world: World) -> None:
        databases = (world.database, *(party.database for party in world.parties.values()))
        self._clocks = [JumpingClock(database.owner_url) for database in databases]
        #: Before the machine's clock.
        self._ahead = timedelta()

    def soon(self) -> datetime:
        """A deadline that passes by itself only if something hangs."""
        return datetime.now(UTC) + timedelta(minutes=2)

    async def pass_deadline(self, plan: PlanCase) -> None:
        """A second after a plan's deadline, for everybody."""
        await self.pass_moment(plan.header.deadline)

    async def pass_moment(self, moment: datetime) -> None:
        """A second after a moment, for everybody."""
        self._ahead = moment - datetime.now(UTC) + timedelta(seconds=1)
        for clock in self._clocks:
            await clock.set(self._ahead)

    async def go_on(self, by: timedelta) -> None:
        """Longer than so long after now, for everybody."""
        await self.pass_moment(datetime.now(UTC) + self._ahead + by)


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


@pytest_asyncio.fixture(loop_scope="session")
async def world(
    request: pytest.FixtureRequest,
    database_for: Callable[..., Awaitable[TestDatabase]],
    tls_for: Callable[[str], TlsSettings],
    tmp_path: Path,
) -> AsyncIterator[World]:
    """Four participants, and all that a coordinator needs; no coordinator yet. For a test that asks for `clocks`, nobody's clock is the machine's."""

    async def made_for(service: str, *migrations: Path) -> TestDatabase:
        database = await database_for(service, *migrations)
        if "clocks" in request.fixturenames:
            await JumpingClock(database.owner_url).prepare()
        return database

    async with AsyncExitStack() as stack:
        database = await made_for("coordinator")
        journal = Journal()  # type: ignore[abstract]  # readers ask for nothing else
        notary = Notary()  # type: ignore[abstract]  # the coordinator reads nothing there
        parties: dict[str, Party] = {}
        channels: dict[str, grpc.aio.Channel] = {}
        for name in dict.fromkeys(PARTICIPANTS.values()):
            party = await party_of(
                name, await made_for("coordinator_party", Path(__file__).parent / "participants"), journal, notary, stack
            )
            parties[party.name] = party
            channels[party.name] = grpc.aio.insecure_channel(
                f"127.0.0.1:{party.port}", options=(("grpc.max_reconnect_backoff_ms", 200),)
            )
            stack.push_async_callback(channels[party.name].close)
        settings = settings_of(database, tls_for(CLIENT), tmp_path)
        made = World(database, parties, journal, notary, settings, tls_for, stack, channels)
        yield made


@pytest.fixture
def clocks(world: World) -> Clocks:
    return Clocks(world)


@pytest.fixture
def snapshots(superuser_url: str) -> Snapshots:
    return Snapshots(superuser_url)


@pytest.fixture(autouse=True, scope="session")
def _logged() -> None:
    """As the service logs: a console's tracebacks, with every local variable, take seconds each."""
    configure_logs("coordinator")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")
