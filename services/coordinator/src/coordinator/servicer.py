"""SettlementService: check, convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from coordinator.access import Client, may_read
from coordinator.admission import Admission
from coordinator.auditing import Auditing
from coordinator.convert import settlement as convert
from coordinator.convert.audit import audit_to_pb
from coordinator.dossier import Dossier
from coordinator.engine import Engine
from coordinator.pages import octets_of, plan_place, plan_token, request_of, transition_place, transition_token
from coordinator.settlement import Settlement
from coordinator.store import reading
from coordinator.traffic import PlanTraffic
from coordinator.waiting import waiting
from coordinator.watching import Seen, Watchers
from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2_grpc
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.convert import time_to_pb
from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, unavailable
from lockstep_kit.fields import require
from lockstep_kit.ids import PlanId
from lockstep_kit.opaque_tokens import no_token
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
        admission: Admission,
        *,
        traffic: PlanTraffic,
        plan_bytes_max: int,
        watchers_max: int,
        slow_client_seconds: float,
    ) -> None:
        self._engine = engine
        self._settlement = settlement
        self._watchers = watchers
        self._auditing = auditing
        self._traffic = traffic
        self._admission = admission
        self._plan_bytes_max = plan_bytes_max
        self._watchers_max = watchers_max
        self._slow_client_seconds = slow_client_seconds

    # -- Changing plans ----------------------------------------------------------------------------------------------

    async def CreatePlan(self, request: messages.CreatePlanRequest, context: Context) -> messages.CreatePlanResponse:  # noqa: N802
        """Accept a plan that its maker signed."""
        require(request.ByteSize() <= self._plan_bytes_max, "request", f"must have at most {self._plan_bytes_max} bytes")
        asked = convert.asked_from_pb(request)
        named = request_of("CreatePlan", request.request_id, request, self._admission.create(context, asked.header))

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.CreatePlanResponse(plan=self._plan(dossier)))

        octets = await self._settlement.create(named, asked.header, asked.legs, asked.make, respond)
        return messages.CreatePlanResponse.FromString(octets)

    async def ExecutePlan(self, request: messages.ExecutePlanRequest, context: Context) -> messages.ExecutePlanResponse:  # noqa: N802
        """Start a plan."""
        plan_id, payers = self._about(context, request.plan_id), convert.payers_from_pb(request)
        named = request_of("ExecutePlan", request.request_id, request, await self._admission.act(context, plan_id))

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.ExecutePlanResponse(plan=self._plan(dossier)))

        octets = await self._settlement.execute(named, plan_id, payers, respond)
        return messages.ExecutePlanResponse.FromString(octets)

    async def CancelPlan(self, request: messages.CancelPlanRequest, context: Context) -> messages.CancelPlanResponse:  # noqa: N802
        """Stop a plan before its decision."""
        plan_id = self._about(context, request.plan_id)
        require(request.HasField("cancel"), "cancel", "must be present")
        signed = convert.signed_from_pb(request.cancel, "cancel")
        require(signed.statement.gate is Gate.CANCEL, "cancel.gate", "must be the gate CANCEL")
        named = request_of("CancelPlan", request.request_id, request, await self._admission.act(context, plan_id))

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.CancelPlanResponse(plan=self._plan(dossier)))

        octets = await self._settlement.cancel(named, plan_id, signed, request.etag, respond)
        return messages.CancelPlanResponse.FromString(octets)

    async def SignGate(self, request: messages.SignGateRequest, context: Context) -> messages.SignGateResponse:  # noqa: N802
        """Open or refuse a gate."""
        plan_id = self._about(context, request.plan_id)
        require(request.HasField("signature"), "signature", "must be present")
        signed = convert.signed_from_pb(request.signature, "signature")
        require(signed.statement.gate in _SIGNED_HERE, "signature.gate", "must be the gate APPROVE, RELEASE or VALIDATE")
        named = request_of("SignGate", request.request_id, request, await self._admission.act(context, plan_id))

        def respond(dossier: Dossier) -> bytes:
            return octets_of(messages.SignGateResponse(plan=self._plan(dossier)))

        octets = await self._settlement.sign(named, plan_id, signed, respond)
        return messages.SignGateResponse.FromString(octets)

    # -- Reading plans -----------------------------------------------------------------------------------------------

    async def GetPlan(self, request: messages.GetPlanRequest, context: Context) -> messages.GetPlanResponse:  # noqa: N802
        """A plan as it stands."""
        plan_id = self._about(context, request.plan_id)
        await self._admission.read(context, plan_id)
        found = await self._engine.read([plan_id])
        return messages.GetPlanResponse(plan=self._plan(found[plan_id]))

    async def ListPlans(self, request: messages.ListPlansRequest, context: Context) -> messages.ListPlansResponse:  # noqa: N802
        """The plans that the caller may see, newest first."""
        client = self._admission.client(context)
        require(0 <= request.page_size <= PLANS_PAGE_MAX, "page_size", f"must be at most {PLANS_PAGE_MAX}")
        size = request.page_size or PLANS_PAGE_DEFAULT
        behind = plan_place(client, request.page_token) if request.page_token else None
        states = convert.states_from_pb(request.states)
        async with reading.snapshot(self._engine.db) as tx:
            before = None if behind is None else await _before(tx, client, behind)
            page = await reading.page_of(tx, client, before, states, size + 1)
            found = (await self._engine.dossiers.read(tx, [plan_id for plan_id, _ in page[:size]])).dossiers
        return messages.ListPlansResponse(
            plans=[self._plan(found[plan_id]) for plan_id, _ in page[:size]],
            next_page_token=plan_token(client, page[size - 1][0]) if len(page) > size else "",
        )

    async def ListTransitions(  # noqa: N802
        self, request: messages.ListTransitionsRequest, context: Context
    ) -> messages.ListTransitionsResponse:
        """The transitions of a plan."""
        plan_id = self._about(context, request.plan_id)
        require(0 <= request.page_size <= TRANSITIONS_PAGE_MAX, "page_size", f"must be at most {TRANSITIONS_PAGE_MAX}")
        size = request.page_size or TRANSITIONS_PAGE_DEFAULT
        client = await self._admission.read(context, plan_id)
        after = transition_place(client, plan_id, request.page_token) if request.page_token else 0
        async with self._engine.db.connection() as connection:
            rows = await reading.transitions(connection, plan_id, after, size + 1)
        return messages.ListTransitionsResponse(
            transitions=[convert.transition_to_pb(each.moved, each.at) for each in rows[:size]],
            next_page_token=transition_token(client, plan_id, rows[size - 1].moved.transition_no) if len(rows) > size else "",
        )

    async def GetAbortAuditLog(  # noqa: N802
        self, request: messages.GetAbortAuditLogRequest, context: Context
    ) -> messages.GetAbortAuditLogResponse:
        """How a plan that did not settle ended."""
        plan_id = self._about(context, request.plan_id)
        wanted = ids.digest(request.sha256, "sha256") if request.sha256 else b""
        await self._admission.read(context, plan_id)
        return audit_to_pb(await self._auditing.show(plan_id, wanted))

    async def WatchPlan(  # noqa: N802
        self, request: messages.WatchPlanRequest, context: Context
    ) -> AsyncIterator[messages.WatchPlanResponse]:
        """One plan: snapshot, events, heartbeats."""
        plan_id = self._about(context, request.plan_id)
        if self._watchers.draining:
            raise unavailable("DRAINING", "the server is stopping; resume at another one")
        if self._watchers.count >= self._watchers_max:
            raise LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHERS_TOO_MANY", "too many watches are open here")
        client = await self._admission.read(context, plan_id)
        clock = asyncio.get_running_loop()
        with self._traffic.watching(client.client_id, plan_id):
            async for seen in self._watchers.watch(plan_id, request.resume_token):
                given = clock.time()
                yield self._shown(seen)
                if clock.time() - given > self._slow_client_seconds:
                    raise unavailable("WATCHER_SLOW", "the watcher took too long for one message; resume when it can keep up")
        if self._watchers.draining:
            raise unavailable("DRAINING", "the server is stopping; resume at another one")

    def _about(self, context: Context, named: str) -> PlanId:
        """The plan that a call is about, which counts against what its client may ask about it."""
        return self._traffic.asked(self._admission.client(context).client_id, ids.plan_id(named))

    def _shown(self, seen: Seen) -> messages.WatchPlanResponse:
        token = seen.place.token()
        if seen.snapshot is not None:
            return messages.WatchPlanResponse(snapshot=self._plan(seen.snapshot), resume_token=token)
        if seen.change is not None:
            return messages.WatchPlanResponse(event=convert.event_of(seen.change.event, seen.change.number), resume_token=token)
        heartbeat = messages.Heartbeat()
        if seen.clock is not None:
            heartbeat.clock_time.CopyFrom(time_to_pb(seen.clock))
        return messages.WatchPlanResponse(heartbeat=heartbeat, resume_token=token)

    def _plan(self, dossier: Dossier) -> settlement_pb2.Plan:
        return convert.plan_to_pb(dossier, waiting(dossier, self._engine.registry, self._engine.limits))


async def _before(connection: Connection, client: Client, plan_id: PlanId) -> int:
    """Where the page that ended with a plan goes on.

    Raises:
        FieldInvalid: there is no such plan, or not for this client.
    """
    found = await reading.place(connection, plan_id)
    if found is None or not may_read(client, found[1]):
        raise no_token()
    return found[0]
