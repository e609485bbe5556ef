"""The people around a real sandbox: they make plans, sign gates as soon as they are asked, and validate evidence with their own eyes.

What is looked at afterwards is the outside world: the chain by JSON-RPC, the bank's book, the databases as their owners, the journal.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import asyncpg
import grpc
from eth_account import Account
from eth_utils.crypto import keccak

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1.settlement_service_pb2 import CreatePlanRequest, SignGateRequest
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep.participant.v1 import leg_pb2
from lockstep_client.agent import GateAgent
from lockstep_client.calls import CallSettings
from lockstep_client.client import LockstepClient, draw_request_id
from lockstep_client.configuration import read_configuration
from lockstep_client.convert import entry_from_pb, plan_from_pb, state_name
from lockstep_client.inspection import Inspector
from lockstep_client.journal_chain import Entry
from lockstep_client.making import consent, create, draw_plan, sign_make
from lockstep_client.planfile import DraftPlan, PlanFile
from lockstep_client.readers import JournalClient
from lockstep_client.signing import gate_signature
from lockstep_kit import ids
from lockstep_kit.convert import GATES, enum_from_pb, gate_to_pb, header_to_pb, leg_to_pb
from lockstep_kit.errors import LockstepError
from lockstep_kit.failpoints import ENVIRONMENT
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.rpc import TlsSettings, channel
from lockstep_kit.spans import span
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_kit.telemetry import configure
from lockstep_sandbox import outside, scene
from lockstep_sandbox.processes import ProgramFailed
from lockstep_sandbox.stack import CLIENT, SERVICES, Sandbox
from lockstep_testkit.ownership import as_owner

LOOK_SECONDS: Final = 0.1
PLAN_SECONDS_MAX: Final = 300.0
#: People who wait for as long as a machine takes that has other things to do; a coordinator that was killed just now is back within their tries.
PATIENT: Final = CallSettings(deadline_seconds=60.0, attempts_max=30, silence_seconds_max=120.0, unreachable_seconds_max=600.0)
#: Of a deadline that has to pass, how many times what a plan takes until it waits for its release.
UNHURRIED: Final = 5
SIGNED_FOR: Final = timedelta(minutes=20)
TRANSFER_TOPIC: Final = "0x" + keccak(text="Transfer(address,address,uint256)").hex().removeprefix("0x")
#: Who signs which gate, when it is awaited.
SIGNERS: Final = {"approve": "approver", "release": "releaser"}


class Crew:
    """Everybody whom a settlement needs. An async context manager, inside the sandbox's."""

    def __init__(self, sandbox: Sandbox, settings: CallSettings | None = None, *, traced: bool = False) -> None:
        """A crew; only one in a process can be `traced`, with its spans sent to its sandbox's store."""
        self.sandbox = sandbox
        self._traced = traced
        self.configuration = read_configuration(sandbox.client_configuration)
        self._stack = AsyncExitStack()
        self.client = LockstepClient(sandbox.address("coordinator"), sandbox.tls(CLIENT), settings or PATIENT)
        self.journal = JournalClient(sandbox.address("event-journal"), sandbox.tls(CLIENT), PATIENT)

    async def __aenter__(self) -> Self:
        for each in (self.client, self.journal):
            await self._stack.enter_async_context(each)
        inspector = await self._stack.enter_async_context(Inspector.configured(self.configuration))
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        if self._traced and self.configuration.telemetry is not None:
            telemetry = configure("lockstep-client", self.configuration.telemetry)
            self._stack.callback(telemetry.shutdown)
        self._agent = GateAgent(self.client, inspector, self.key("validator"), folder)
        self._validator = self._validating()
        self._stack.push_async_callback(lambda: _stopped(self._validator))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    def _validating(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._validate(), name="validator")

    async def _validate(self) -> None:
        """The agent ends when it is refused; a coordinator that was killed just now must not end it for good."""
        while True:
            with suppress(LockstepError):
                await self._agent.run()
            await asyncio.sleep(LOOK_SECONDS)

    @asynccontextmanager
    async def paused_validator(self) -> AsyncIterator[None]:
        """The validator is away meanwhile."""
        await _stopped(self._validator)
        try:
            yield
        finally:
            self._validator = self._validating()

    # -- plans -------------------------------------------------------------------------------------------------------

    def key(self, person: str) -> Any:
        """A person's key."""
        return read_signing_key(self.sandbox.keys[person].private_file)

    def draft(self, document: Mapping[str, Any]) -> DraftPlan:
        """The plan that a plan file's content asks for."""
        return draw_plan(PlanFile.model_validate(document), self.configuration.venue, datetime.now(UTC))

    def payments(
        self, *, payee: str | None = None, payer: str = "seller", buyer: scene.Holder = scene.BUYER, price: str = "100.00"
    ) -> dict[str, Any]:
        """A delivery of 10.00 bonds against money; a payee of its own tells its transfers from all others."""
        seller = self.sandbox.chain.address(payer)
        return scene.delivery_versus_payment(
            seller, payee or draw_address(), reference="e2e", quantity="10.00", price=price, payer=buyer
        )

    async def started(self, document: Mapping[str, Any], *, maker: str = "maker") -> settlement.Plan:
        """A plan, created and executed with its payers' consent, under one root span."""
        draft = self.draft(document)
        with span("settle", attributes={"lockstep.plan_id": draft.header.plan_id}):
            plan = await create(self.client, draft, self.key(maker))
            return await self.executed(plan)

    def create_request(self, document: Mapping[str, Any]) -> CreatePlanRequest:
        """A request to create a plan, which may be sent again as it is."""
        draft = self.draft(document)
        return CreatePlanRequest(
            request_id=draw_request_id(),
            header=header_to_pb(draft.header),
            legs=[leg_to_pb(leg) for leg in draft.legs],
            make=gate_to_pb(sign_make(draft, self.key("maker"))),
        )

    async def executed(self, plan: settlement.Plan, *, request_id: str | None = None) -> settlement.Plan:
        """A created plan, started."""
        view = plan_from_pb(plan)
        accounts = {str(account.address): account for account in self.sandbox.chain.accounts.values()}
        return await self.client.execute_plan(view.header.plan_id, consent(view, accounts), request_id=request_id)

    async def settled(self, document: Mapping[str, Any]) -> settlement.Plan:
        """A plan, driven to its end with every gate signed when it is awaited."""
        plan = await self.started(document)
        return await self.driven(plan.header.plan_id)

    async def driven(
        self, plan_id: str, *, until: Collection[str] = ("CLOSED",), gates: Collection[str] = tuple(SIGNERS)
    ) -> settlement.Plan:
        """Sign each of `gates` as soon as it is awaited, until the plan is in one of the states `until`.

        Raises:
            AssertionError: it did not get there in time; says where it stands and what the services said last.
        """
        give_up = time.monotonic() + PLAN_SECONDS_MAX
        plan: settlement.Plan | None = None
        while time.monotonic() < give_up:
            with suppress(LockstepError):
                plan = await self.client.get_plan(plan_id)
                if state_name(plan.state) in until:
                    return plan
                for gate in awaited(plan) & set(gates):
                    await self.client.sign_gate(plan_id, self.signature(plan, gate))
            await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError(self.told(plan_id, plan, until))

    async def awaiting(self, plan_id: str, gate: str) -> settlement.Plan:
        """The plan, once it waits for a gate; gates before it are signed."""
        give_up = time.monotonic() + PLAN_SECONDS_MAX
        plan: settlement.Plan | None = None
        while time.monotonic() < give_up:
            # Between the look and the signature the plan may have gone on: the next look says so.
            with suppress(LockstepError):
                plan = await self.client.get_plan(plan_id)
                waiting = awaited(plan)
                if gate in waiting:
                    return plan
                for other in waiting & set(SIGNERS):
                    await self.client.sign_gate(plan_id, self.signature(plan, other))
            await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError(self.told(plan_id, plan, (f"waiting for {gate}",)))

    async def voted(self, plan: settlement.Plan) -> settlement.Plan:
        """The plan, once every leg has voted: from then on it changes by signatures alone."""
        give_up = time.monotonic() + PLAN_SECONDS_MAX
        while any(leg.phase != leg_pb2.LEG_PHASE_PREPARED for leg in plan.legs):
            assert time.monotonic() < give_up, plan
            await asyncio.sleep(LOOK_SECONDS)
            plan = await self.client.get_plan(plan.header.plan_id)
        return plan

    async def unhurried_seconds(self, least: int) -> int:
        """A deadline by which a plan surely waits for its release on this machine, as it is now; `least` on one that has nothing else to do."""
        began = time.monotonic()
        waiting = await self.awaiting((await self.started(self.payments())).header.plan_id, "release")
        seconds = time.monotonic() - began
        await self.client.cancel_plan(waiting.header.plan_id, self.signature(waiting, "cancel", person="maker"))
        await self.driven(waiting.header.plan_id)
        return max(least, ceil(UNHURRIED * seconds))

    def signature(
        self,
        plan: settlement.Plan,
        gate: str,
        *,
        person: str = "",
        verdict: Verdict = Verdict.APPROVE,
        digest: bytes | None = None,
        votes: bytes | None = None,
        evidence: bytes | None = None,
        nonce: bytes | None = None,
        expires_at: datetime | None = None,
    ) -> GateSignature:
        """A gate's signature; what is not named is as it should be."""
        shown_votes = plan.votes_digest if gate == "release" else b""
        shown_evidence = plan.evidence_digest if gate == "validate" else b""
        return gate_signature(
            self.key(person or SIGNERS.get(gate, "maker")),
            Gate[gate.upper()],
            Digest(digest or plan.plan_digest),
            nonce=nonce or secrets.token_bytes(NONCE_BYTES),
            expires_at=expires_at or datetime.now(UTC).replace(microsecond=0) + SIGNED_FOR,
            verdict=verdict,
            votes_digest=Digest(votes or shown_votes) or None,
            evidence_digest=Digest(evidence or shown_evidence) or None,
        )

    def gate_request(self, plan: settlement.Plan, gate: str) -> SignGateRequest:
        """A request to sign a gate, which may be sent again as it is."""
        return SignGateRequest(
            request_id=draw_request_id(), plan_id=plan.header.plan_id, signature=gate_to_pb(self.signature(plan, gate))
        )

    def sent_until_told(self, request: SignGateRequest) -> asyncio.Task[None]:
        """Send a request, over the coordinator's death, until it is answered."""

        async def send() -> None:
            async with asyncio.timeout(PLAN_SECONDS_MAX):
                while True:
                    try:
                        await self.client.send_gate(request)
                    except LockstepError as error:
                        if error.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                            raise
                        await asyncio.sleep(LOOK_SECONDS)
                    else:
                        return

        return asyncio.create_task(send())

    def driving(self, plan_id: str) -> asyncio.Task[settlement.Plan]:
        """`driven`, beside whatever else happens."""
        return asyncio.create_task(self.driven(plan_id))

    def told(self, plan_id: str, plan: settlement.Plan | None, wanted: Collection[str]) -> str:
        """Where a plan stands, and what the services said last."""
        logs = "\n".join(f"-- {name}\n{self.sandbox.supervisor.log_tail(name)[-1500:]}" for name in SERVICES)
        return f"plan {plan_id} does not reach {', '.join(wanted)}; it stands at:\n{plan}\n{logs}"

    # -- services ----------------------------------------------------------------------------------------------------

    def stub(self, tls: TlsSettings | None = None) -> tuple[Any, SettlementServiceStub]:
        """A bare channel to the coordinator, to be closed, and its stub: for calls that the client would not make."""
        bare = channel(self.sandbox.address("coordinator"), tls or self.sandbox.tls(CLIENT))
        return bare, SettlementServiceStub(bare)

    async def arm(self, service: str, failpoints: str) -> None:
        """Start a service anew with armed failpoints."""
        supervisor = self.sandbox.supervisor
        program = supervisor.program(service)
        await supervisor.stop(service)
        # One that dies before it was seen to be ready did what it was told.
        with suppress(ProgramFailed):
            await supervisor.start(replace(program, environ={**program.environ, ENVIRONMENT: failpoints}))

    async def disarm(self, service: str) -> None:
        """Start a service anew, without failpoints."""
        supervisor = self.sandbox.supervisor
        program = supervisor.program(service)
        await supervisor.stop(service)
        environ = {name: value for name, value in program.environ.items() if name != ENVIRONMENT}
        await supervisor.start(replace(program, environ=environ))

    def database(self, service: str) -> AbstractAsyncContextManager[asyncpg.Connection[asyncpg.Record]]:
        """A service's database, as its owner sees it."""
        return as_owner(self.sandbox, service)

    # -- the outside -------------------------------------------------------------------------------------------------

    async def transfers_to(self, address: str, symbol: str = scene.BOND.symbol) -> list[tuple[str, int]]:
        """Every transfer of a token to an address, from the chain's own events: sender (lower case) and minor units."""
        chain = self.sandbox.chain
        topic = "0x" + address.removeprefix("0x").lower().rjust(64, "0")
        asked = {"address": chain.tokens[symbol], "fromBlock": "0x0", "toBlock": "latest", "topics": [TRANSFER_TOPIC, None, topic]}
        events = await chain.node.call("eth_getLogs", asked)
        return [("0x" + event["topics"][1][-40:], int(event["data"], 16)) for event in events]

    async def bookings(self, plan_id: str, account: str, leg_id: str = "cash") -> list[int]:
        """What a plan's payment booked on an account, from the bank's book, in minor units."""
        found = await outside.bank(self.sandbox, "/entries", uetr=str(ids.uetr(ids.plan_id(plan_id), ids.leg_id(leg_id))))
        return [entry["amount"] for entry in found["entries"] if entry["account_id"] == account]

    async def entries(self, plan_id: str) -> list[Entry]:
        """A plan's chain in the journal."""
        return [entry_from_pb(entry) async for entry in self.journal.list_entries(plan_id)]

    async def assert_settled_once(self, plan_id: str, payee: str, *, price: int = 100_00) -> None:
        """The tokens went from the escrow to the payee once, and the money from the buyer to the seller once."""
        escrow = self.sandbox.chain.contracts["SettlementEscrow"].lower()
        assert await self.transfers_to(payee) == [(escrow, 10_00)]
        assert await self.bookings(plan_id, scene.BUYER.iban) == [-price]
        assert await self.bookings(plan_id, scene.SELLER.iban) == [price]

    async def assert_nothing_moved(self, plan_id: str, payee: str, payer: scene.Holder = scene.BUYER) -> None:
        """No token reached the payee; whatever the payer's account gave it got back."""
        assert await self.transfers_to(payee) == []
        assert sum(await self.bookings(plan_id, payer.iban)) == 0
        assert await self.bookings(plan_id, scene.SELLER.iban) == []


def awaited(plan: settlement.Plan) -> set[str]:
    """The gates that a plan waits for."""
    waiting = (each for each in plan.waiting if each.kind == settlement.WAITING_KIND_GATE)
    return {str(enum_from_pb(GATES, each.gate, "gate").name).lower() for each in waiting}


def draw_address() -> str:
    """An address that nobody has used."""
    return str(Account.create().address)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
