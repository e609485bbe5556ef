"""Plans that are driven to their end by people who are never put off: whatever dies or is cut, they send the very same request again until it is answered.

What each of them was told at the end, by asking and by watching, is kept for the checker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import grpc

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1.settlement_service_pb2 import CreatePlanRequest, ExecutePlanRequest, SignGateRequest
from lockstep.participant.v1 import leg_pb2
from lockstep_client.client import creation, draw_request_id, execution, signing
from lockstep_client.convert import plan_from_pb, state_name
from lockstep_client.making import consent, sign_make
from lockstep_client.watching import Change, Snapshot
from lockstep_kit.errors import LockstepError
from lockstep_kit.ids import PlanId
from lockstep_testkit.checker import Told
from lockstep_testkit.crew import SIGNERS, Crew, awaited

LOOK_SECONDS: Final = 0.05
#: Longest that people go on.
PATIENCE_SECONDS: Final = 300.0
#: Longest that a client waits to hear of an end that somebody else has seen.
TOLD_SECONDS_MAX: Final = 180.0
#: What says nothing about a request: it is sent again as it is.
AGAIN: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
T = TypeVar("T")


async def until_answered(call: Callable[[], Awaitable[T]], seconds_max: float = PATIENCE_SECONDS) -> T:
    """The answer of a request that may be sent again as it is.

    Raises:
        LockstepError: a definite refusal, or nothing was heard in time.
    """
    give_up = time.monotonic() + seconds_max
    while True:
        try:
            return await call()
        except LockstepError as error:
            if error.code not in AGAIN or time.monotonic() > give_up:
                raise
        await asyncio.sleep(LOOK_SECONDS)


class Desk(Protocol):
    """Where people hand in their requests, each of which may be handed in again as it is."""

    async def send_creation(self, request: CreatePlanRequest) -> settlement.Plan:
        """The accepted plan."""

    async def send_execution(self, request: ExecutePlanRequest) -> settlement.Plan:
        """The started plan."""

    async def send_gate(self, request: SignGateRequest) -> settlement.Plan:
        """The plan after the signature."""


@dataclass
class Journey:
    """One plan on its way."""

    #: The people.
    crew: Crew
    #: What the plan file would hold.
    document: Mapping[str, Any]
    #: Gates that are signed when they are awaited.
    gates: Collection[str] = tuple(SIGNERS)
    #: Whether the maker stops the plan once it waits for its release.
    cancels: bool = False
    #: Where its people hand in their requests; None: each by itself.
    desk: Desk | None = None
    #: The plan, once drawn.
    plan_id: PlanId | str = ""
    #: When it was seen at its end, by the monotonic clock; 0 before.
    ended_at: float = 0.0
    #: What clients were told of its end.
    told: list[Told] = field(default_factory=list)
    _sent: set[str] = field(default_factory=set)

    @property
    def plan_ids(self) -> list[str]:
        """The plan's id."""
        return [self.plan_id]

    async def begin(self) -> None:
        """Create the plan and have it executed."""
        draft = self.crew.draft(self.document)
        self.plan_id = draft.header.plan_id
        make = sign_make(draft, self.crew.key("maker"))
        desk, created = self._desk, creation(draft, make)
        view = plan_from_pb(await until_answered(lambda: desk.send_creation(created)))
        accounts = {str(account.address): account for account in self.crew.sandbox.chain.accounts.values()}
        executed = execution(self.plan_id, consent(view, accounts))
        # A plan whose deadline passed while nobody answered is stopped already.
        with suppress(LockstepError):
            await until_answered(lambda: desk.send_execution(executed))

    @property
    def _desk(self) -> Desk:
        return self.desk or self.crew.client

    async def drive(self, until: Callable[[settlement.Plan], bool] | None = None) -> settlement.Plan:
        """Sign whatever is awaited until the plan is at its end (or as `until` says); the plan as it is then.

        Raises:
            TimeoutError: it does not get there.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up:
            plan = await until_answered(lambda: self.crew.client.get_plan(self.plan_id))
            if until(plan) if until is not None else at_end(plan):
                return plan
            waiting = awaited(plan)
            for gate in sorted(waiting & set(self.gates)):
                await self._sign(plan, gate)
            if self.cancels and "release" in waiting and "release" not in self.gates:
                await self._cancel(plan)
            await asyncio.sleep(LOOK_SECONDS)
        raise TimeoutError(f"plan {self.plan_id} does not come to its end")

    async def travel(self) -> settlement.Plan:
        """The whole way, with a watcher beside it."""
        await self.begin()
        return await self.go_on()

    async def go_on(self, until: Callable[[settlement.Plan], bool] | None = None) -> settlement.Plan:
        """The rest of the way of a plan that was begun."""
        watching = asyncio.create_task(self._watch(), name=f"watch:{self.plan_id}")
        try:
            plan = await self.drive(until)
            self.ended_at = time.monotonic()
            self._hear("get", plan)
            if plan.state == settlement.PLAN_STATE_CLOSED:
                async with asyncio.timeout(TOLD_SECONDS_MAX):
                    await asyncio.shield(watching)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return plan

    async def _sign(self, plan: settlement.Plan, gate: str) -> None:
        # A gate is signed once for each time that it is asked; the votes that are signed over may still be coming.
        if gate in self._sent:
            return
        self._sent.add(gate)
        request = signing(self.plan_id, self.crew.signature(plan, gate))
        try:
            await until_answered(lambda: self._desk.send_gate(request))
        except LockstepError:
            # The plan has gone on without this signature, or wants another: the next look says so.
            self._sent.discard(gate)

    async def _cancel(self, plan: settlement.Plan) -> None:
        if "cancel" in self._sent:
            return
        self._sent.add("cancel")
        signed, request_id = self.crew.signature(plan, "cancel", person="maker"), draw_request_id()
        with suppress(LockstepError):
            await until_answered(lambda: self.crew.client.cancel_plan(self.plan_id, signed, request_id=request_id))

    async def _watch(self) -> None:
        """Follow the plan to its last change, over lost connections."""
        plan: settlement.Plan | None = None
        token = ""
        while True:
            try:
                async for news in self.crew.client.watch_plan(self.plan_id, resume_token=token):
                    token = news.resume_token
                    match news:
                        case Snapshot():
                            plan = news.plan
                        case Change() if news.event.WhichOneof("event") == "transition":
                            if news.event.transition.to_state == settlement.PLAN_STATE_CLOSED:
                                plan = await until_answered(lambda: self.crew.client.get_plan(self.plan_id))
                break
            except LockstepError as error:
                if error.code not in AGAIN:
                    raise
                await asyncio.sleep(LOOK_SECONDS)
        if plan is not None:
            self._hear("watch", plan)

    def _hear(self, how: str, plan: settlement.Plan) -> None:
        outcome = leg_pb2.PlanOutcome.Name(plan.outcome).removeprefix("PLAN_OUTCOME_")
        self.told.append(Told(PlanId(self.plan_id), how, state_name(plan.state), "" if outcome == "UNSPECIFIED" else outcome))


def closed(plan: settlement.Plan) -> bool:
    """Whether a plan is closed."""
    return plan.state == settlement.PLAN_STATE_CLOSED


def at_end(plan: settlement.Plan) -> bool:
    """Whether nothing more happens by itself: the plan is closed, or stuck with a person called."""
    stuck = plan.state == settlement.PLAN_STATE_PARTIALLY_EXECUTED
    called = any(not each.HasField("resolve_time") for each in plan.escalations)
    return closed(plan) or (stuck and called)
