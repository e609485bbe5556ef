"""SettlementService: check, convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from coordinator.auditing import Auditing
from coordinator.convert import settlement as convert
from coordinator.convert.audit import audit_to_pb
from coordinator.dossier import Dossier
from coordinator.engine import Engine
from coordinator.pages import number_place, number_token, octets_of, request_of
from coordinator.settlement import Settlement
from coordinator.store import plans, reading
from coordinator.waiting import waiting
from coordinator.watching import Seen, Watchers
from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2_grpc
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.convert import time_to_pb
from lockstep_kit.errors import LockstepError, not_found, unavailable
from lockstep_kit.fields import require
from lockstep_kit.statements import Gate

Context = grpc.aio.ServicerContext[Any, Any]

PLANS_PAGE_MAX: Final = 200
PLANS_PAGE_DEFAULT: Final = 50
TRANSITIONS_PAGE_MAX: Final = 500
TRANSITIONS_PAGE_DEFAULT: Final = 100
_SIGNED_HERE: Final = (Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE)


class SettlementServicer(settlement_service_pb2_grpc.SettlementServiceServicer):
    """What internal services call to settle plans."""

    def __init__(
        self,
        engine: Engine,
        settlement: Settlement,
        watchers: Watchers,
        auditing: Auditing,
        *,
        plan_bytes_max: int,
        watchers_max: int,
        slow_client_seconds: float,
    ) -> None:
        self._engine = engine
        self._settlement = settlement
        self._watchers = watchers
        self._auditing = auditing
        self._plan_bytes_max = plan_bytes_max
        self._watchers_max = watchers_max
        self._slow_client_seconds = slow_client_seconds

    # -- Changing plans ----------------------------------------------------------------------------------------------

    async def CreatePlan(self, request: messages.CreatePlanRequest, context: Context) -> messages.CreatePlanResponse:  # noqa: N802
        """Accept a plan that its maker signed."""
        del context
        require(request.ByteSize() <= self._plan_bytes_max, "request", f"must have at most {self._plan_bytes_max} bytes")
        named = request_of("CreatePlan", request.request_id, request)
        asked = convert.asked_from_pb(request)

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.CreatePlanResponse(plan=self._plan(dossier)))

        octets = await self._settlement.create(named, asked.header, asked.legs, asked.make, respond)
        return messages.CreatePlanResponse.FromString(octets)

    async def ExecutePlan(self, request: messages.ExecutePlanRequest, context: Context) -> messages.ExecutePlanResponse:  # noqa: N802
        """Start a plan."""
        del context
        named, plan_id = request_of("ExecutePlan", request.request_id, request), ids.plan_id(request.plan_id)
        payers = convert.payers_from_pb(request)

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.ExecutePlanResponse(plan=self._plan(dossier)))

        octets = await self._settlement.execute(named, plan_id, payers, respond)
        return messages.ExecutePlanResponse.FromString(octets)

    async def CancelPlan(self, request: messages.CancelPlanRequest, context: Context) -> messages.CancelPlanResponse:  # noqa: N802
        """Stop a plan before its decision."""
        del context
        named, plan_id = request_of("CancelPlan", request.request_id, request), ids.plan_id(request.plan_id)
        require(request.HasField("cancel"), "cancel", "must be present")
        signed = convert.signed_from_pb(request.cancel, "cancel")
        require(signed.statement.gate is Gate.CANCEL, "cancel.gate", "must be the gate CANCEL")

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.CancelPlanResponse(plan=self._plan(dossier)))

        octets = await self._settlement.cancel(named, plan_id, signed, request.etag, respond)
        return messages.CancelPlanResponse.FromString(octets)

    async def SignGate(self, request: messages.SignGateRequest, context: Context) -> messages.SignGateResponse:  # noqa: N802
        """Open or refuse a gate."""
        del context
        named, plan_id = request_of("SignGate", request.request_id, request), ids.plan_id(request.plan_id)
        require(request.HasField("signature"), "signature", "must be present")
        signed = convert.signed_from_pb(request.signature, "signature")
        require(signed.statement.gate in _SIGNED_HERE, "signature.gate", "must be the gate APPROVE, RELEASE or VALIDATE")

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.SignGateResponse(plan=self._plan(dossier)))

        octets = await self._settlement.sign(named, plan_id, signed, respond)
        return messages.SignGateResponse.FromString(octets)

    # -- Reading plans -----------------------------------------------------------------------------------------------

    async def GetPlan(self, request: messages.GetPlanRequest, context: Context) -> messages.GetPlanResponse:  # noqa: N802
        """A plan as it stands."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        found = await self._engine.read([plan_id])
        if plan_id not in found:
            raise not_found("plan", plan_id)
        return messages.GetPlanResponse(plan=self._plan(found[plan_id]))

    async def ListPlans(self, request: messages.ListPlansRequest, context: Context) -> messages.ListPlansResponse:  # noqa: N802
        """Plans, newest first."""
        del context
        require(0 <= request.page_size <= PLANS_PAGE_MAX, "page_size", f"must be at most {PLANS_PAGE_MAX}")
        size = request.page_size or PLANS_PAGE_DEFAULT
        before = number_place("plans", request.page_token) if request.page_token else None
        states = convert.states_from_pb(request.states)
        async with self._engine.db.connection() as connection:
            page = await reading.page(connection, before, states, size + 1)
            found = (await plans.read(connection, [plan_id for plan_id, _ in page[:size]])).dossiers
        return messages.ListPlansResponse(
            plans=[self._plan(found[plan_id]) for plan_id, _ in page[:size]],
            next_page_token=number_token("plans", page[size - 1][1]) if len(page) > size else "",
        )

    async def ListTransitions(  # noqa: N802
        self, request: messages.ListTransitionsRequest, context: Context
    ) -> messages.ListTransitionsResponse:
        """The transitions of a plan."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        require(0 <= request.page_size <= TRANSITIONS_PAGE_MAX, "page_size", f"must be at most {TRANSITIONS_PAGE_MAX}")
        size = request.page_size or TRANSITIONS_PAGE_DEFAULT
        after = number_place("transitions", request.page_token) if request.page_token else 0
        async with self._engine.db.connection() as connection:
            if not await reading.exists(connection, plan_id):
                raise not_found("plan", plan_id)
            rows = await reading.transitions(connection, plan_id, after, size + 1)
        return messages.ListTransitionsResponse(
            transitions=[convert.transition_to_pb(each.moved, each.at) for each in rows[:size]],
            next_page_token=number_token("transitions", rows[size - 1].moved.transition_no) if len(rows) > size else "",
        )

    async def GetAbortAuditLog(  # noqa: N802
        self, request: messages.GetAbortAuditLogRequest, context: Context
    ) -> messages.GetAbortAuditLogResponse:
        """How a plan that did not settle ended."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        wanted = ids.digest(request.sha256, "sha256") if request.sha256 else b""
        return audit_to_pb(await self._auditing.show(plan_id, wanted))

    async def WatchPlan(  # noqa: N802
        self, request: messages.WatchPlanRequest, context: Context
    ) -> AsyncIterator[messages.WatchPlanResponse]:
        """One plan: snapshot, events, heartbeats."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        if self._watchers.draining:
            raise unavailable("DRAINING", "the server is stopping; resume at another one")
        if self._watchers.count >= self._watchers_max:
            raise LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHERS_TOO_MANY", "too many watches are open here")
        clock = asyncio.get_running_loop()
        async for seen in self._watchers.watch(plan_id, request.resume_token):
            given = clock.time()
            yield self._shown(seen)
            if clock.time() - given > self._slow_client_seconds:
                raise unavailable("WATCHER_SLOW", "the watcher took too long for one message; resume when it can keep up")
        if self._watchers.draining:
            raise unavailable("DRAINING", "the server is stopping; resume at another one")

    def _shown(self, seen: Seen) -> messages.WatchPlanResponse:
        token = seen.place.token()
        if seen.snapshot is not None:
            return messages.WatchPlanResponse(snapshot=self._plan(seen.snapshot), resume_token=token)
        if seen.change is not None:
            return messages.WatchPlanResponse(event=convert.event_of(seen.change.event, seen.change.sequence), resume_token=token)
        heartbeat = messages.Heartbeat()
        if seen.clock is not None:
            heartbeat.clock_time.CopyFrom(time_to_pb(seen.clock))
        return messages.WatchPlanResponse(heartbeat=heartbeat, resume_token=token)

    def _plan(self, dossier: Dossier) -> settlement_pb2.Plan:
        return convert.plan_to_pb(dossier, waiting(dossier, self._engine.registry, self._engine.limits))
