"""The people around a simulation: they make plans of varied shapes, sign gates with their own keys, sometimes refuse, cancel, are late, or never come.

They reach the coordinator over the same network as everybody, repeat what was not answered with the same request, and keep what they were told.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import grpc
from grpc.aio import AioRpcError

from dlt_gateway.operations import leg_terms
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.escrow import leg_signing_hash
from lockstep_kit.convert import gate_to_pb, header_to_pb, leg_to_pb, outcome_from_pb, vote_from_pb
from lockstep_kit.errors import LockstepError, from_status
from lockstep_kit.ids import Digest
from lockstep_kit.plan import Journal, Leg, LegKind, Notarisation, Policy, TokenTransfer
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_testkit.factories import CHAIN, PlanCase, address_of, credit_terms, leg_of, plan_of, token_terms
from lockstep_testkit.simulation.chain_contracts import payer_signature
from lockstep_testkit.simulation.chain_parties import CHAIN_ID
from lockstep_testkit.simulation.memory import Server
from lockstep_testkit.simulation.timeline import Timeline

CALL_SECONDS: Final = 3.0
#: How often people look whether they are waited for.
LOOK_SECONDS: Final = 0.4
#: States in which each gate is awaited.
AWAITED: Final = {Gate.APPROVE: "READY_FOR_PREPARE", Gate.RELEASE: "PREPARED", Gate.VALIDATE: "VALIDATING"}
#: Methods whose requests may come in batches.
_BATCHES: Final[Mapping[str, Any]] = {
    "CreatePlan": messages.CreatePlansRequest,
    "ExecutePlan": messages.ExecutePlansRequest,
    "SignGate": messages.SignGatesRequest,
}
_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED})
SIGNED_FOR: Final = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Habits:
    """How the people of one plan behave; seconds of virtual time."""

    #: When the plan is made.
    starts: float
    #: From creation to its deadline.
    deadline: float
    #: How long each signer takes; None: never comes.
    takes: dict[Gate, float | None]
    #: Gates that are refused.
    refuses: frozenset[Gate]
    #: When the plan is cancelled; None: never.
    cancels: float | None


def habits_of(chance: random.Random, span: float) -> Habits:
    """Some people."""

    def takes() -> float | None:
        kind = chance.random()
        return chance.uniform(0.0, 1.0) if kind < 0.75 else chance.uniform(1.0, 25.0) if kind < 0.95 else None

    return Habits(
        starts=chance.uniform(0.0, span / 3),
        deadline=chance.choice((6.0, 20.0, 40.0, 60.0, 60.0)),
        takes={gate: takes() for gate in AWAITED},
        refuses=frozenset(gate for gate in AWAITED if chance.random() < 0.04),
        cancels=chance.uniform(0.5, span) if chance.random() < 0.12 else None,
    )


def legs_of(chance: random.Random) -> list[Leg]:
    """One to three legs that move value, some behind others; a notarisation; the journal."""
    legs: list[Leg] = []
    for number in range(chance.choice((1, 2, 2, 2, 3))):
        earlier = [each.leg_id for each in legs]
        kind = chance.random() < 0.5 if number != 1 else legs[0].kind is LegKind.CREDIT_TRANSFER
        # Money whose hold can lapse goes first: a plan in which it waits for tokens is refused, and teaches little.
        before = [each for each in earlier if chance.random() < (0.3 if kind or each.startswith("cash") else 0.05)]
        terms = token_terms(chance.randint(1, 5_000_000)) if kind else credit_terms(chance.randint(1, 50_000))
        legs.append(leg_of(f"{'tokens' if kind else 'cash'}-{number}", terms, *before))
    return [*legs, leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))), leg_of("journal", Journal())]


@dataclass(slots=True)
class Case:
    """One plan and what its people know of it."""

    #: As they asked for it.
    plan: PlanCase
    #: How they behave.
    habits: Habits
    #: Whether the coordinator said that it has accepted the plan, and whether it refused it for good.
    created: bool = False
    refused: str = ""
    #: Every answer in which the coordinator told where the plan stands: state and outcome.
    told: list[tuple[str, str]] = field(default_factory=list)
    #: Locks of the legs, as the coordinator drew them.
    locks: dict[str, bytes] = field(default_factory=dict)


class People:
    """Everybody who deals with some plans."""

    def __init__(self, coordinators: Sequence[grpc.aio.Channel], book: Server, chance: random.Random, timeline: Timeline) -> None:
        self._stubs = [SettlementServiceStub(each) for each in coordinators]
        self._book = book
        self._chance = chance
        self._timeline = timeline
        self.cases: Final[list[Case]] = []
        #: Share of the payers who sign something else.
        self.missigns = 0.0

    def invited(self, count: int, span: float, *, soft: bool) -> list[Case]:
        """Make up some plans; where holds lapse, the policy may say that this is known."""
        for number in range(count):
            habits, legs = habits_of(self._chance, span), legs_of(self._chance)
            accepts = soft and self._chance.random() < 0.5
            deadline = self._book.now() + timedelta(seconds=habits.starts + habits.deadline)
            plan_id = str(uuid.UUID(bytes=self._chance.randbytes(15) + bytes([number]), version=4))
            plan = plan_of(
                legs,
                deadline=deadline,
                plan_id=plan_id,
                policy=Policy(accept_expiry_risk=accepts),
                plan_key=self._chance.randbytes(32),
            )
            self.cases.append(Case(plan, habits))
        return self.cases

    async def attend(self, case: Case) -> None:
        """Live through one plan."""
        await asyncio.sleep(case.habits.starts)
        plan = case.plan
        request = messages.CreatePlanRequest(
            request_id=self._request_id(),
            header=header_to_pb(plan.header),
            legs=[leg_to_pb(leg) for leg in plan.legs],
            make=gate_to_pb(self._gate(case, Gate.MAKE)),
        )
        if not await self._asked(case, "CreatePlan", request):
            return
        case.created = True
        payers = [leg.leg_id for leg in plan.legs if leg.kind is LegKind.TOKEN_TRANSFER]
        execute = messages.ExecutePlanRequest(
            request_id=self._request_id(),
            plan_id=plan.plan_id,
            payer_signatures=[messages.PayerSignature(leg_id=each, signature=self._payer(case, each)) for each in payers],
        )
        await asyncio.gather(
            self._asked(case, "ExecutePlan", execute), self._cancel(case), *(self._sign(case, each) for each in AWAITED)
        )

    def _payer(self, case: Case, leg_id: str) -> bytes:
        """What the payer of tokens signs: all terms, and the lock."""
        terms = leg_terms(replace(case.plan.binding(leg_id), lock=Digest(case.locks[leg_id])))
        token = case.plan.leg(leg_id).terms
        if not isinstance(token, TokenTransfer):
            raise AssertionError("only tokens have a payer who signs")
        if self._chance.random() < self.missigns:
            terms = replace(terms, amount=terms.amount + 1)
        return payer_signature(terms.payer, leg_signing_hash(CHAIN_ID, token.escrow, terms))

    async def _cancel(self, case: Case) -> None:
        if case.habits.cancels is None:
            return
        await asyncio.sleep(case.habits.cancels)
        request = messages.CancelPlanRequest(
            request_id=self._request_id(), plan_id=case.plan.plan_id, cancel=gate_to_pb(self._gate(case, Gate.CANCEL))
        )
        await self._asked(case, "CancelPlan", request)

    async def _sign(self, case: Case, gate: Gate) -> None:
        """Wait until the gate is awaited, take one's time, and sign what stands there then; again as long as it is still awaited."""
        takes = case.habits.takes[gate]
        if takes is None:
            return
        while True:
            while not self._awaits(case, gate):
                if self._closed(case):
                    return
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(takes)
            signed = await self._signature(case, gate)
            if signed is not None:
                request = messages.SignGateRequest(
                    request_id=self._request_id(), plan_id=case.plan.plan_id, signature=gate_to_pb(signed)
                )
                await self._asked(case, "SignGate", request)
            await asyncio.sleep(2 * LOOK_SECONDS)

    async def _signature(self, case: Case, gate: Gate) -> GateSignature | None:
        verdict = Verdict.REJECT if gate in case.habits.refuses else Verdict.APPROVE
        if gate is Gate.APPROVE:
            return self._gate(case, gate, verdict=verdict)
        found = await self._call(case, "GetPlan", messages.GetPlanRequest(plan_id=case.plan.plan_id))
        if found is None:
            return None
        if gate is Gate.RELEASE:
            if not all(leg.HasField("vote") for leg in found.plan.legs):
                return None
            return self._gate(case, gate, verdict=verdict, votes=[vote_from_pb(leg.vote) for leg in found.plan.legs])
        settling = [leg for leg in found.plan.legs if case.plan.leg(leg.leg.leg_id).settling]
        if not all(leg.HasField("outcome") for leg in settling):
            return None
        return self._gate(case, gate, verdict=verdict, outcomes=[outcome_from_pb(leg.outcome) for leg in settling])

    def _gate(self, case: Case, gate: Gate, **changes: Any) -> GateSignature:
        return case.plan.gate(gate, expires_at=self._book.now() + SIGNED_FOR + timedelta(seconds=600), **changes)

    def _row(self, case: Case) -> dict[str, Any] | None:
        return self._book.tables["plan"].get((case.plan.plan_id,))

    def _awaits(self, case: Case, gate: Gate) -> bool:
        row = self._row(case)
        return row is not None and row["state"] == AWAITED[gate]

    def _closed(self, case: Case) -> bool:
        row = self._row(case)
        return row is not None and row["state"] == "CLOSED"

    def _request_id(self) -> str:
        return str(uuid.UUID(bytes=self._chance.randbytes(16), version=4))

    async def _asked(self, case: Case, method: str, request: Any) -> bool:
        """Ask until there is an answer that says something; whether it was accepted."""
        for _ in range(200):
            try:
                plan = await self._answered(method, request)
            except LockstepError as error:
                if error.code in _AGAIN:
                    await asyncio.sleep(self._chance.uniform(0.1, 1.0))
                    continue
                self._timeline.tell("people", f"{method} refused", plan=case.plan.plan_id, why=error.message)
                if method == "CreatePlan":
                    case.refused = error.message
                return False
            self._heard(case, plan)
            return True
        return False

    async def _answered(self, method: str, request: Any) -> settlement.Plan:
        """What a request is answered. Half of them come in batches, in which each stands twice: a request is done once, and its answer is always the same.

        Raises:
            LockstepError: it is refused, or nothing is known.
        """
        stub = self._chance.choice(self._stubs)
        batch = _BATCHES.get(method) if int(request.request_id[-1], 16) % 2 else None
        try:
            if batch is None:
                plan: settlement.Plan = (await getattr(stub, method)(request, timeout=CALL_SECONDS)).plan
                return plan
            answers = (await getattr(stub, f"{method}s")(batch(requests=[request, request]), timeout=CALL_SECONDS)).answers
        except AioRpcError as error:
            raise LockstepError(error.code(), error.code().name, error.details() or "") from None
        done: list[settlement.Plan] = [each.plan for each in answers if each.HasField("plan")]
        if any(each != done[0] for each in done):
            raise AssertionError(f"{method} has two answers: {done}")
        if done:
            return done[0]
        raise from_status(answers[0].refusal.code, answers[0].refusal.message, answers[0].refusal.details)

    async def _call(self, case: Case, method: str, request: Any) -> Any:
        try:
            answer = await getattr(self._chance.choice(self._stubs), method)(request, timeout=CALL_SECONDS)
        except AioRpcError:
            return None
        self._heard(case, answer.plan)
        return answer

    def _heard(self, case: Case, plan: settlement.Plan) -> None:
        state = settlement.PlanState.Name(plan.state).removeprefix("PLAN_STATE_")
        outcome = leg_pb2.PlanOutcome.Name(plan.outcome).removeprefix("PLAN_OUTCOME_") if plan.outcome else ""
        case.told.append((state, outcome))
        case.locks = {leg.leg.leg_id: leg.lock for leg in plan.legs}
