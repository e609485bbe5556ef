"""A coordinator on a real database, with its participants, and what people ask of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from nacl.public import PrivateKey
from scripted_journal import Journal
from scripted_notary import Notary
from scripted_party import Party

from coordinator.main import Coordinator, build, register, running
from coordinator.sealing import KeyBox
from coordinator.settings import CoordinatorSettings, InstallationSettings, LimitSettings
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep_kit.convert import gate_to_pb, header_to_pb, leg_to_pb, outcome_from_pb, vote_from_pb
from lockstep_kit.db import Database
from lockstep_kit.ids import sha256
from lockstep_kit.plan import LegKind
from lockstep_kit.rpc import ListenSettings, Server, TlsSettings, channel
from lockstep_kit.rpc.limits import ServingLimits
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import (
    BUYER,
    CHAIN,
    PARTICIPANTS,
    SELLER,
    PlanCase,
    address_of,
    delivery_versus_payment,
    registry_of,
    token_terms,
)
from lockstep_testkit.participants import ROOMY

STATE = settlement_pb2.PlanState
CLIENT = "spiffe://lockstep.local/client/test"
ASSETS = {token_terms().amount.asset: 6, "EUR": 2}
SERVICE_KEY, RECOVERY_KEY = PrivateKey(bytes(range(32))), PrivateKey(bytes(range(1, 33)))
#: Longer than a replica works on a plan.
HELD_SECONDS_MAX = 120.0
DEADLINE_SECONDS = 60.0


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
