"""SettlementService: check, convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

import grpc

from coordinator import batches
from coordinator.access import Client, may_read
from coordinator.admission import Admission
from coordinator.answering import Asked, Respond
from coordinator.auditing import Auditing
from coordinator.convert import settlement as convert
from coordinator.convert.audit import audit_to_pb
from coordinator.convert.watching import told_to_pb, wish_from_pb
from coordinator.dossier import Dossier
from coordinator.engine import Engine
from coordinator.pages import plan_place, plan_token, request_of, transition_place, transition_token
from coordinator.settlement import Creation, Execution, Settlement, Signing
from coordinator.store import reading
from coordinator.traffic import PlanTraffic
from coordinator.waiting import waiting
from coordinator.watching import Seen, Watchers
from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2_grpc
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.convert import time_to_pb
from lockstep_kit.convert.parts import part
from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, not_found, unavailable
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

_AskedT = TypeVar("_AskedT", bound=Asked)
#: How the plan is written into an answer.
_PLANS: Final = {
    each: part(each, "plan")
    for each in (
        messages.CreatePlanResponse,
        messages.ExecutePlanResponse,
        messages.CancelPlanResponse,
        messages.SignGateResponse,
    )
}
_WithPlan = messages.CreatePlanResponse | messages.ExecutePlanResponse | messages.CancelPlanResponse | messages.SignGateResponse


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
        asked = self._creation(self._admission.client(context), request)
        return messages.CreatePlanResponse.FromString(await self._settlement.create(asked))

    async def ExecutePlan(self, request: messages.ExecutePlanRequest, context: Context) -> messages.ExecutePlanResponse:  # noqa: N802
        """Start a plan."""
        client = self._admission.client(context)
        asked = await self._let(client, self._execution(client, request))
        return messages.ExecutePlanResponse.FromString(await self._settlement.execute(asked))

    async def CancelPlan(self, request: messages.CancelPlanRequest, context: Context) -> messages.CancelPlanResponse:  # noqa: N802
        """Stop a plan before its decision."""
        client = self._admission.client(context)
        plan_id = self._about(client, request.plan_id)
        require(request.HasField("cancel"), "cancel", "must be present")
        signed = convert.signed_from_pb(request.cancel, "cancel")
        require(signed.statement.gate is Gate.CANCEL, "cancel.gate", "must be the gate CANCEL")
        named = request_of("CancelPlan", request.request_id, request, client)
        respond = self._respond(messages.CancelPlanResponse)
        asked = await self._let(client, Signing(request=named, plan_id=plan_id, respond=respond, signed=signed, etag=request.etag))
        return messages.CancelPlanResponse.FromString(await self._settlement.signing.one(asked))

    async def SignGate(self, request: messages.SignGateRequest, context: Context) -> messages.SignGateResponse:  # noqa: N802
        """Open or refuse a gate."""
        client = self._admission.client(context)
        asked = await self._let(client, self._signing(client, request))
        return messages.SignGateResponse.FromString(await self._settlement.signing.one(asked))

    async def CreatePlans(self, request: messages.CreatePlansRequest, context: Context) -> messages.CreatePlansResponse:  # noqa: N802
        """CreatePlan for each request."""
        client = self._admission.client(context)
        asked = batches.tried(request.requests, lambda each: self._creation(client, each))
        return await batches.answered("CreatePlans", messages.CreatePlansResponse, asked, self._settlement.create_each)

    async def ExecutePlans(self, request: messages.ExecutePlansRequest, context: Context) -> messages.ExecutePlansResponse:  # noqa: N802
        """ExecutePlan for each request."""
        client = self._admission.client(context)
        asked = await self._let_each(client, batches.tried(request.requests, lambda each: self._execution(client, each)))
        return await batches.answered("ExecutePlans", messages.ExecutePlansResponse, asked, self._settlement.execute_each)

    async def SignGates(self, request: messages.SignGatesRequest, context: Context) -> messages.SignGatesResponse:  # noqa: N802
        """SignGate for each request."""
        client = self._admission.client(context)
        asked = await self._let_each(client, batches.tried(request.requests, lambda each: self._signing(client, each)))
        return await batches.answered("SignGates", messages.SignGatesResponse, asked, self._settlement.signing.each)

    def _creation(self, client: Client, request: messages.CreatePlanRequest) -> Creation:
        require(request.ByteSize() <= self._plan_bytes_max, "request", f"must have at most {self._plan_bytes_max} bytes")
        asked = convert.asked_from_pb(request)
        self._admission.create(client, asked.header)
        return Creation(
            request=request_of("CreatePlan", request.request_id, request, client),
            plan_id=asked.header.plan_id,
            respond=self._respond(messages.CreatePlanResponse),
            header=asked.header,
            legs=asked.legs,
            make=asked.make,
        )

    def _execution(self, client: Client, request: messages.ExecutePlanRequest) -> Execution:
        plan_id = self._about(client, request.plan_id)
        return Execution(
            request=request_of("ExecutePlan", request.request_id, request, client),
            plan_id=plan_id,
            respond=self._respond(messages.ExecutePlanResponse),
            payers=convert.payers_from_pb(request),
        )

    def _signing(self, client: Client, request: messages.SignGateRequest) -> Signing:
        plan_id = self._about(client, request.plan_id)
        require(request.HasField("signature"), "signature", "must be present")
        signed = convert.signed_from_pb(request.signature, "signature")
        require(signed.statement.gate in _SIGNED_HERE, "signature.gate", "must be the gate APPROVE, RELEASE or VALIDATE")
        named = request_of("SignGate", request.request_id, request, client)
        return Signing(request=named, plan_id=plan_id, respond=self._respond(messages.SignGateResponse), signed=signed)

    async def _let(self, client: Client, asked: _AskedT) -> _AskedT:
        """The request of a client that may act on its plan.

        Raises:
            LockstepError: PLAN_NOT_FOUND; there is no such plan, or not for this client.
        """
        (found,) = await self._let_each(client, [asked])
        if isinstance(found, Exception):
            raise found
        return found

    async def _let_each(self, client: Client, asked: Sequence[_AskedT | Exception]) -> list[_AskedT | Exception]:
        ids = {each.plan_id for each in asked if not isinstance(each, Exception)}
        own = await self._admission.act(client, ids) if ids else frozenset()
        return [each if isinstance(each, Exception) or each.plan_id in own else not_found("plan", each.plan_id) for each in asked]

    def _respond(self, answer: type[_WithPlan]) -> Respond:
        """Makes answers that hold the plan."""
        written = _PLANS[answer]
        return lambda dossier: written(self._plan_octets(dossier))

    # -- Reading plans -----------------------------------------------------------------------------------------------

    async def GetPlan(self, request: messages.GetPlanRequest, context: Context) -> messages.GetPlanResponse:  # noqa: N802
        """A plan as it stands."""
        plan_id = self._about(self._admission.client(context), request.plan_id)
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
        async with self._engine.db.snapshot() as tx:
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
        plan_id = self._about(self._admission.client(context), request.plan_id)
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
        plan_id = self._about(self._admission.client(context), request.plan_id)
        wanted = ids.digest(request.sha256, "sha256") if request.sha256 else b""
        await self._admission.read(context, plan_id)
        return audit_to_pb(await self._auditing.show(plan_id, wanted))

    async def WatchPlan(  # noqa: N802
        self, request: messages.WatchPlanRequest, context: Context
    ) -> AsyncIterator[messages.WatchPlanResponse]:
        """One plan: snapshot, events, heartbeats."""
        plan_id = self._about(self._admission.client(context), request.plan_id)
        self._let_watch()
        client = await self._admission.read(context, plan_id)
        with self._traffic.watching(client.client_id, plan_id):
            async for seen in self._watchers.watch(plan_id, request.resume_token):
                given = _time()
                yield self._shown(seen)
                self._check_pace(given)
        self._refuse_draining()

    async def WatchPlans(  # noqa: N802
        self, request: messages.WatchPlansRequest, context: Context
    ) -> AsyncIterator[messages.WatchPlansResponse]:
        """All plans that the caller may see: snapshot, events, heartbeats."""
        client = self._admission.client(context)
        wish = wish_from_pb(request, client)
        self._let_watch()
        with self._traffic.watching_all(client.client_id):
            async for told in self._watchers.watch_all(wish, request.resume_token):
                for message in told_to_pb(told, self._plan_octets):
                    given = _time()
                    yield message
                    self._check_pace(given)
        self._refuse_draining()

    def _let_watch(self) -> None:
        self._refuse_draining()
        if self._watchers.count >= self._watchers_max:
            raise LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHERS_TOO_MANY", "too many watches are open here")

    def _refuse_draining(self) -> None:
        if self._watchers.draining:
            raise unavailable("DRAINING", "the server is stopping; resume at another one")

    def _check_pace(self, given: float) -> None:
        """A watcher that took too long for what it was given then is cut."""
        if _time() - given > self._slow_client_seconds:
            raise unavailable("WATCHER_SLOW", "the watcher took too long for one message; resume when it can keep up")

    def _about(self, client: Client, named: str) -> PlanId:
        """The plan that a client asks about, which counts against what it may ask about it."""
        return self._traffic.asked(client.client_id, ids.plan_id(named))

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
        return settlement_pb2.Plan.FromString(self._plan_octets(dossier))

    def _plan_octets(self, dossier: Dossier) -> bytes:
        return convert.plan_octets(dossier, waiting(dossier, self._engine.registry, self._engine.limits))


def _time() -> float:
    return asyncio.get_running_loop().time()


async def _before(connection: Connection, client: Client, plan_id: PlanId) -> int:
    """Where the page that ended with a plan goes on.

    Raises:
        FieldInvalid: there is no such plan, or not for this client.
    """
    found = await reading.place(connection, plan_id)
    if found is None or not may_read(client, found[1]):
        raise no_token()
    return found[0]
