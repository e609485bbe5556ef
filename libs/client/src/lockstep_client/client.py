"""Async client of the coordinator.

Every logical request has one request id, however often it is sent. Refusals arrive as `LockstepError` with the service's reason; UNAVAILABLE means that
nothing is known, and the same request may be sent again with the same id.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_pb2 import Plan, PlanState, Transition
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep_client.batching import batched
from lockstep_client.calls import CallSettings, ServiceClient, pages, unary
from lockstep_client.following import PlansNews, PlansWish, watch_plans
from lockstep_client.planfile import DraftPlan
from lockstep_client.watching import PlanNews, watch_plan
from lockstep_kit.convert import gate_to_pb, header_to_pb, leg_to_pb, permit_to_pb
from lockstep_kit.errors import LockstepError
from lockstep_kit.ids import TIMELY_BYTES, LegId, timely
from lockstep_kit.permits import Permit
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.statements import GateSignature


def draw_request_id() -> str:
    """A fresh request id, which begins with the time."""
    return timely(time.time_ns() // 1_000_000, secrets.token_bytes(TIMELY_BYTES))


def creation(draft: DraftPlan, make: GateSignature, *, request_id: str | None = None) -> messages.CreatePlanRequest:
    """The request to accept a plan."""
    return messages.CreatePlanRequest(
        request_id=request_id or draw_request_id(),
        header=header_to_pb(draft.header),
        legs=[leg_to_pb(leg) for leg in draft.legs],
        make=gate_to_pb(make),
    )


def execution(
    plan_id: str,
    payer_signatures: Mapping[LegId, bytes],
    permits: Mapping[LegId, Permit] | None = None,
    *,
    request_id: str | None = None,
) -> messages.ExecutePlanRequest:
    """The request to start a plan."""
    allowed = {leg_id: permit_to_pb(permit) for leg_id, permit in (permits or {}).items()}
    return messages.ExecutePlanRequest(
        request_id=request_id or draw_request_id(),
        plan_id=plan_id,
        payer_signatures=[
            messages.PayerSignature(leg_id=leg_id, signature=signature, permit=allowed.get(leg_id))
            for leg_id, signature in payer_signatures.items()
        ],
    )


def signing(plan_id: str, signature: GateSignature, *, request_id: str | None = None) -> messages.SignGateRequest:
    """The request to take a person's signature."""
    return messages.SignGateRequest(request_id=request_id or draw_request_id(), plan_id=plan_id, signature=gate_to_pb(signature))


class LockstepClient(ServiceClient):
    """The coordinator."""

    def __init__(self, target: str, tls: TlsSettings, settings: CallSettings | None = None) -> None:
        super().__init__(target, tls, settings)
        self._stub = SettlementServiceStub(self._channel)

    async def create_plan(self, draft: DraftPlan, make: GateSignature, *, request_id: str | None = None) -> Plan:
        """The accepted plan, with its legs' locks. Nothing is asked of anyone yet.

        Raises:
            LockstepError: the plan breaks a rule, the maker may not, or the request id was used for something else.
        """
        return await self.send_creation(creation(draft, make, request_id=request_id))

    async def send_creation(self, request: messages.CreatePlanRequest) -> Plan:
        """The accepted plan of a request that was put together before."""
        answer = await unary(lambda seconds: self._stub.CreatePlan(request, timeout=seconds), self._settings)
        return answer.plan

    async def execute_plan(
        self,
        plan_id: str,
        payer_signatures: Mapping[LegId, bytes],
        permits: Mapping[LegId, Permit] | None = None,
        *,
        request_id: str | None = None,
    ) -> Plan:
        """The started plan; it returns at once. A payer without a permit has allowed the escrow to take the tokens before.

        Raises:
            LockstepError: the plan is in another state, a payer's signature is missing, or a permit cannot do what it is for.
        """
        return await self.send_execution(execution(plan_id, payer_signatures, permits, request_id=request_id))

    async def send_execution(self, request: messages.ExecutePlanRequest) -> Plan:
        """The started plan of a request that was put together before."""
        answer = await unary(lambda seconds: self._stub.ExecutePlan(request, timeout=seconds), self._settings)
        return answer.plan

    async def get_plan(self, plan_id: str) -> Plan:
        """The plan as it stands.

        Raises:
            LockstepError: there is no such plan.
        """
        request = messages.GetPlanRequest(plan_id=plan_id)
        answer = await unary(lambda seconds: self._stub.GetPlan(request, timeout=seconds), self._settings)
        return answer.plan

    async def list_plans(self, *, states: Collection[PlanState.ValueType] = (), page_size: int = 50) -> AsyncIterator[Plan]:
        """Plans, newest first, fetched page by page as they are asked for."""
        request = messages.ListPlansRequest(page_size=page_size, states=list(states))
        async for page in pages(self._stub.ListPlans, request, self._settings):
            for plan in page.plans:
                yield plan

    async def cancel_plan(self, plan_id: str, cancel: GateSignature, *, etag: str = "", request_id: str | None = None) -> Plan:
        """The plan, stopped before its decision.

        Raises:
            LockstepError: it is decided already, has changed since the etag, or the signer may not.
        """
        request = messages.CancelPlanRequest(
            request_id=request_id or draw_request_id(), plan_id=plan_id, cancel=gate_to_pb(cancel), etag=etag
        )
        answer = await unary(lambda seconds: self._stub.CancelPlan(request, timeout=seconds), self._settings)
        return answer.plan

    async def sign_gate(self, plan_id: str, signature: GateSignature, *, request_id: str | None = None) -> Plan:
        """The plan after the signature.

        Raises:
            LockstepError: the gate is not open, or the signer may not.
        """
        return await self.send_gate(signing(plan_id, signature, request_id=request_id))

    async def send_gate(self, request: messages.SignGateRequest) -> Plan:
        """The plan after a signature whose request was put together, and perhaps stored, before."""
        answer = await unary(lambda seconds: self._stub.SignGate(request, timeout=seconds), self._settings)
        return answer.plan

    async def create_plans(self, requests: Sequence[messages.CreatePlanRequest]) -> list[Plan | LockstepError]:
        """What became of each `creation`, in their order: the accepted plan, or why it was refused.

        Raises:
            LockstepError: a batch was refused as a whole, or nothing answered; the same requests may be sent again.
        """
        return await batched(
            requests,
            lambda batch, seconds: self._stub.CreatePlans(messages.CreatePlansRequest(requests=batch), timeout=seconds),
            self._settings,
        )

    async def execute_plans(self, requests: Sequence[messages.ExecutePlanRequest]) -> list[Plan | LockstepError]:
        """What became of each `execution`, in their order: the started plan, or why it was not.

        Raises:
            LockstepError: as `create_plans`.
        """
        return await batched(
            requests,
            lambda batch, seconds: self._stub.ExecutePlans(messages.ExecutePlansRequest(requests=batch), timeout=seconds),
            self._settings,
        )

    async def sign_gates(self, requests: Sequence[messages.SignGateRequest]) -> list[Plan | LockstepError]:
        """What became of each `signing`, in their order: the plan after the signature, or why it was refused.

        Raises:
            LockstepError: as `create_plans`.
        """
        return await batched(
            requests,
            lambda batch, seconds: self._stub.SignGates(messages.SignGatesRequest(requests=batch), timeout=seconds),
            self._settings,
        )

    async def list_transitions(self, plan_id: str, *, page_size: int = 100) -> AsyncIterator[Transition]:
        """The plan's transitions in order, fetched page by page."""
        request = messages.ListTransitionsRequest(plan_id=plan_id, page_size=page_size)
        async for page in pages(self._stub.ListTransitions, request, self._settings):
            for transition in page.transitions:
                yield transition

    async def get_abort_audit_log(self, plan_id: str, sha256: bytes = b"") -> messages.GetAbortAuditLogResponse:
        """The plan's last abort audit log, or the one with that hash.

        Raises:
            LockstepError: there is no such plan, or it has no such log.
        """
        request = messages.GetAbortAuditLogRequest(plan_id=plan_id, sha256=sha256)
        return await unary(lambda seconds: self._stub.GetAbortAuditLog(request, timeout=seconds), self._settings)

    def watch_plan(
        self, plan_id: str, *, resume_token: str = "", lost: Callable[[LockstepError | None], None] = lambda _: None
    ) -> AsyncIterator[PlanNews]:
        """The plan's snapshot, then its changes without gap or duplicate, until its last; reconnects by itself, and `lost` is told of it.

        Raises:
            LockstepError: there is no such plan, or no replica was reached for `unreachable_seconds_max`.
        """
        return watch_plan(self._stub, plan_id, self._settings, resume_token=resume_token, lost=lost)

    def watch_plans(
        self,
        wish: PlansWish | None = None,
        *,
        resume_token: str = "",
        lost: Callable[[LockstepError | None], None] = lambda _: None,
    ) -> AsyncIterator[PlansNews]:
        """All plans that one may see, or those that are wished for: what is open, then every change, each once, without end; reconnects by itself.

        Raises:
            LockstepError: it was refused, or no replica was reached for `unreachable_seconds_max`.
        """
        return watch_plans(self._stub, wish or PlansWish(), self._settings, resume_token=resume_token, lost=lost)
