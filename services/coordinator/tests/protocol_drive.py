"""One plan's history through the protocol alone: the tests' own module."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from coordinator import facts
from coordinator.dossier import new_plan
from coordinator.model import (
    Abort,
    AuditWritten,
    Cause,
    ChecksBegun,
    ChecksPassed,
    Commit,
    Created,
    Effect,
    Escalate,
    Event,
    ExecuteAsked,
    GateRecord,
    GateSigned,
    LegNews,
    Limits,
    Mandate,
    Moved,
    OperatorsAnswered,
    OperatorsEvidence,
    OperatorsUnwound,
    Prepare,
    Record,
    State,
    WriteAudit,
)
from coordinator.protocol import step
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, Digest, LegId, sha256
from lockstep_kit.reversals import order_digest
from lockstep_kit.statements import Gate, OutcomeKind, Promise, PromiseKind, Refusal, SignedOutcome, Verdict
from lockstep_testkit.factories import SIGNERS, PlanCase, delivery_versus_payment, evidence_of

NOW = datetime.now(UTC)
DEADLINE = NOW + timedelta(hours=1)
LIMITS = Limits()
SETTLING, EVIDENCE = ("tokens", "cash"), ("notarisation", "journal")
LEGS = (*SETTLING, *EVIDENCE)
SOFT = Promise(PromiseKind.GUARANTEED, DEADLINE + timedelta(hours=1))
BRIEF = Promise(PromiseKind.GUARANTEED, DEADLINE + timedelta(minutes=1))
NO = Refusal("BANK_PREPARE_FAILED", "AM04", "not enough money")


class Drive:
    """One plan's history. Abort audit logs are stored at once, unless `stores` is taken away."""

    def __init__(self, case: PlanCase | None = None) -> None:
        self.stores = True
        self.case = case or delivery_versus_payment(deadline=DEADLINE)
        self.plan = new_plan(self.case.header, self.case.legs)
        self.now = NOW
        self.effects: list[Effect] = []
        self.arcs: list[tuple[State, Decision | None, Cause]] = []
        self.give(Created(self.record(Gate.MAKE)))

    def record(self, gate: Gate, verdict: Verdict = Verdict.APPROVE, who: str = "") -> GateRecord:
        return GateRecord(self.case.gate(gate, who or None, verdict=verdict), ActorId(who or SIGNERS[gate]), self.now)

    def give(self, event: Event) -> tuple[Effect, ...]:
        decision = self.plan.decision
        stepped = step(self.plan, event, self.now, LIMITS)
        self.plan = stepped.plan
        self.effects.extend(stepped.effects)
        for each in stepped.effects:
            if isinstance(each, Moved) and each.left is not None:
                self.arcs.append((each.left, decision, each.cause))
                decision = each.decision
        if self.stores and any(isinstance(each, WriteAudit) for each in stepped.effects):
            self.stored()
        return stepped.effects

    def stored(self) -> tuple[Effect, ...]:
        """The abort audit log that was ordered last is durable."""
        return self.give(AuditWritten(sha256(f"log of {self.plan.transition_no} {self.plan.outcome}".encode())))

    def news(
        self,
        leg_id: str,
        phase: Phase,
        answer: Promise | Refusal | None = None,
        kind: OutcomeKind | None = None,
        trouble: str = "",
        reversal: SignedOutcome | None = None,
    ) -> tuple[Effect, ...]:
        leg = facts.leg(self.plan, leg_id)
        vote = self.case.vote(leg_id, answer) if answer is not None else leg.vote
        outcome = self.case.outcome(leg_id, kind) if kind is not None else leg.outcome
        return self.give(LegNews(LegId(leg_id), phase, leg.revision + 1, vote, outcome, trouble, reversal))

    def yes(self, *legs: str, promise: Promise | None = None) -> None:
        for leg_id in legs or LEGS:
            self.news(leg_id, Phase.PREPARED, promise or Promise(PromiseKind.GUARANTEED, None))

    def no(self, leg_id: str) -> None:
        self.news(leg_id, Phase.REFUSED, NO)

    def done(self, *legs: str) -> None:
        for leg_id in legs:
            self.news(leg_id, Phase.COMMITTED, kind=OutcomeKind.DONE)

    def refused(self, leg_id: str) -> None:
        self.news(leg_id, Phase.REFUSED, kind=OutcomeKind.REFUSED)

    def released(self, *legs: str) -> None:
        for leg_id in legs:
            self.news(leg_id, Phase.RELEASED, kind=OutcomeKind.RELEASED)

    def unwound(self) -> OperatorsUnwound:
        """A new order of two operators."""
        first, second = self.case.reversal().signatures
        return OperatorsUnwound(Mandate((first, second), (ActorId("erin"), ActorId("frank"))))

    def order(self) -> Digest:
        """The order to reverse that is in force."""
        assert self.plan.unwind_authority is not None
        return order_digest(self.plan.unwind_authority)

    def undone(self, leg_id: str) -> None:
        """The leg is reversed."""
        self.news(leg_id, Phase.REVERSED, reversal=self.case.outcome(leg_id, OutcomeKind.REVERSED, order=self.order()))

    def stays(self, leg_id: str, order: Digest | None = None) -> None:
        """The leg's reversal is refused."""
        refused = self.case.outcome(leg_id, OutcomeKind.REVERSAL_REFUSED, order=order or self.order())
        self.news(leg_id, Phase.COMMITTED, reversal=refused)

    def sign(self, gate: Gate, verdict: Verdict = Verdict.APPROVE) -> None:
        self.give(GateSigned(self.record(gate, verdict)))

    def answered(self, leg_id: str, *, executed: bool) -> OperatorsAnswered:
        return OperatorsAnswered(LegId(leg_id), OperatorsEvidence(executed, evidence_of(self.case.leg(leg_id))))

    # -- Histories ---------------------------------------------------------------------------------------------------

    def ready(self) -> Drive:
        for event in (ExecuteAsked(), ChecksBegun(), ChecksPassed()):
            self.give(event)
        assert self.plan.state is State.READY_FOR_PREPARE
        return self

    def prepared(self, *, soft: str = "") -> Drive:
        self.ready()
        self.yes(*(leg for leg in LEGS if leg != soft))
        if soft:
            self.yes(soft, promise=SOFT)
        self.sign(Gate.APPROVE)
        assert self.plan.state is State.PREPARED
        return self

    def executing(self, *, soft: str = "") -> Drive:
        self.prepared(soft=soft)
        self.sign(Gate.RELEASE)
        assert self.plan.state is State.EXECUTING
        return self

    def validating(self) -> Drive:
        self.executing()
        self.done(*SETTLING)
        assert self.plan.state is State.VALIDATING
        return self

    def committed(self) -> Drive:
        self.validating()
        self.sign(Gate.VALIDATE)
        assert self.plan.state is State.COMMITTED
        return self

    def partial(self) -> Drive:
        self.executing()
        self.done("tokens")
        self.refused("cash")
        assert self.plan.state is State.PARTIALLY_EXECUTED
        return self

    def aborted_holding(self) -> Drive:
        self.prepared()
        self.sign(Gate.CANCEL)
        assert self.plan.state is State.ABORTED
        return self

    def ordered(self, kind: type[Prepare | Commit | Abort]) -> list[str]:
        return [each.leg_id for each in self.effects if isinstance(each, kind)]

    def records(self) -> list[str]:
        return [each.type.value for each in self.effects if isinstance(each, Record)]

    def tickets(self) -> list[str]:
        return [each.ticket.reason for each in self.effects if isinstance(each, Escalate)]
