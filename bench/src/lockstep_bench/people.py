"""Everybody who takes part in a settlement, in this process: maker, payer, approver, releaser, and the validator agent with its own checks."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from lockstep.coordinator.v1.settlement_pb2 import PLAN_STATE_ABORTED, PLAN_STATE_CLOSED, PLAN_STATE_COMMITTED, Plan
from lockstep.type.v1 import signature_pb2
from lockstep_client.agent import GateAgent
from lockstep_client.client import LockstepClient
from lockstep_client.commands.signatures import statement
from lockstep_client.configuration import read_configuration
from lockstep_client.convert import plan_from_pb
from lockstep_client.inspection import Inspector
from lockstep_client.making import consent, create, draw_plan, token_payers, unlock
from lockstep_client.planfile import PlanFile
from lockstep_client.watching import Snapshot
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.registry_file import load_registry
from lockstep_kit.statements import Gate, Verdict
from lockstep_sandbox import scene
from lockstep_sandbox.stack import Sandbox

SIGNERS: Final = {signature_pb2.GATE_APPROVE: (Gate.APPROVE, "approver"), signature_pb2.GATE_RELEASE: (Gate.RELEASE, "releaser")}


@dataclass(frozen=True, slots=True)
class Settled:
    """One settlement, timed by this process' monotonic clock from before ExecutePlan was sent."""

    #: Until the watcher saw COMMITTED.
    committed_seconds: float
    #: Until the watcher saw CLOSED.
    closed_seconds: float


class SettlementFailed(Exception):
    """A plan did not settle."""


class People:
    """Settles plans over one sandbox. An async context manager; the agent runs while it is entered."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._configuration = read_configuration(sandbox.client_configuration)
        self._registry = load_registry(self._configuration.registry_file)
        self._keys = {name: read_signing_key(file.private_file) for name, file in sandbox.keys.items()}
        self._accounts = unlock(self._configuration.payers, set(self._configuration.payers))
        self._stack = AsyncExitStack()
        self._agent: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(
            LockstepClient(self._configuration.coordinator, self._configuration.tls)
        )
        inspector = await self._stack.enter_async_context(Inspector.configured(self._configuration))
        agent = GateAgent(self._client, inspector, self._keys["validator"], self._configuration.state_directory)
        self._agent = asyncio.create_task(agent.run(), name="validator-agent")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._agent is not None:
            self._agent.cancel()
            with suppress(asyncio.CancelledError):
                await self._agent
        await self._stack.aclose()

    async def settle(self, reference: str) -> Settled:
        """Settle one delivery-versus-payment plan.

        Raises:
            SettlementFailed: it was aborted, or its watch ended before CLOSED.
            LockstepError: a request was refused.
        """
        plan = await self._create(reference)
        view = plan_from_pb(plan)
        plan_id = view.header.plan_id
        signatures = consent(view, {address: self._accounts[address] for address in token_payers(view).values()})
        began = time.monotonic()
        await self._client.execute_plan(plan_id, signatures)
        committed: float | None = None
        signed: set[int] = set()
        async for news in self._client.watch_plan(plan_id):
            if isinstance(news, Snapshot):
                plan = news.plan
            elif news.event.WhichOneof("event") in ("transition", "gate"):
                if len(signed) < len(SIGNERS) or news.event.transition.to_state in (PLAN_STATE_ABORTED, PLAN_STATE_CLOSED):
                    plan = await self._client.get_plan(plan_id)
                if news.event.transition.to_state == PLAN_STATE_COMMITTED:
                    committed = time.monotonic() - began
                if news.event.transition.to_state == PLAN_STATE_CLOSED and committed is not None:
                    return Settled(committed, time.monotonic() - began)
            else:
                continue
            if plan.state == PLAN_STATE_ABORTED:
                break
            await self._sign(plan, signed)
        raise SettlementFailed(f"plan {plan_id} did not settle: {plan.reason} {plan.reason_detail}")

    async def _create(self, reference: str) -> Plan:
        chain = self._sandbox.chain
        document = scene.delivery_versus_payment(
            chain.address("seller"), chain.address("buyer"), reference=reference, quantity="1.00", price="10.00"
        )
        draft = draw_plan(PlanFile.model_validate(document), self._configuration.venue, datetime.now(UTC))
        return await create(self._client, draft, self._keys["maker"])

    async def _sign(self, plan: Plan, signed: set[int]) -> None:
        for waiting in plan.waiting:
            if waiting.gate in SIGNERS and waiting.gate not in signed:
                gate, person = SIGNERS[waiting.gate]
                signed.add(waiting.gate)
                wanted = statement(gate, Verdict.APPROVE, plan_from_pb(plan), self._registry, None)
                await self._client.sign_gate(plan.header.plan_id, wanted.signed(self._keys[person]))
