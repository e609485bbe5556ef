"""What the facts of a plan say: which cause they give, which legs are done, held, unknown or soft. Pure; read by the protocol alone."""

from __future__ import annotations

from datetime import datetime

from coordinator.model import (
    Cause,
    CheckFailed,
    Event,
    GateRecord,
    LegNews,
    LegState,
    Limits,
    OperatorsAnswered,
    OperatorsRedrove,
    OperatorsSettled,
    Order,
    Plan,
    State,
)
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Phase
from lockstep_kit.ids import Digest, LegId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import Gate, OutcomeKind, Refusal, SignedOutcome, SignedVote, Verdict, evidence_digest, votes_digest
from lockstep_kit.values import replace

#: States before the decision.
UNDECIDED = (State.DRAFT, State.INITIATED, State.PRECONDITIONS_PENDING, State.READY_FOR_PREPARE, State.PREPARED)


def leg(plan: Plan, leg_id: str) -> LegState:
    """One leg."""
    for each in plan.legs:
        if each.leg_id == leg_id:
            return each
    raise AssertionError(f"plan {plan.plan_id} has no leg {leg_id}")


def with_leg(plan: Plan, changed: LegState) -> Plan:
    """The plan with one leg changed."""
    return replace(plan, legs=tuple([changed if each.leg_id == changed.leg_id else each for each in plan.legs]))


def settling(plan: Plan) -> tuple[LegState, ...]:
    """Legs that move value."""
    return tuple([each for each in plan.legs if each.kind.settling])


def notarisations(plan: Plan) -> tuple[LegState, ...]:
    """Evidence legs that come before the journal."""
    return tuple(each for each in plan.legs if each.kind is LegKind.NOTARISATION)


def journal(plan: Plan) -> LegState:
    """The journal's leg."""
    return next(each for each in plan.legs if each.kind is LegKind.JOURNAL)


def executed(each: LegState) -> bool:
    """Whether the leg took effect, and still does."""
    if each.reversed:
        return False
    return told_executed(each) or (each.operators_evidence is not None and each.operators_evidence.executed)


def told_executed(each: LegState) -> bool:
    """Whether the leg's participant says that it took effect, and does not say that it was undone."""
    return each.phase is not None and each.phase.executed


def barred(each: LegState) -> bool:
    """Whether the leg can never take effect, and nothing is held for it. What its participant executed is not barred, whoever says so."""
    if each.operators_evidence is not None:
        return not each.operators_evidence.executed and not told_executed(each) and not each.reversed
    return each.phase in (Phase.REFUSED, Phase.RELEASED)


def denied(each: LegState) -> bool:
    """Whether nothing but two operators' word says that the leg took no effect: they may take it back."""
    return each.operators_evidence is not None and barred(each) and each.phase not in (Phase.REFUSED, Phase.RELEASED)


def gainsaid(each: LegState) -> bool:
    """Whether the leg's participant says otherwise than two operators did."""
    if each.reversed and irreversible(each):
        return True
    if each.operators_evidence is None or each.reversed:
        return False
    return each.phase in (Phase.REFUSED, Phase.RELEASED) if each.operators_evidence.executed else told_executed(each)


def refused_at_once(plan: Plan, leg_id: LegId) -> SignedVote | None:
    """The NO of a settling leg of a plan that was given up: nothing was ever ordered to be released there, since nothing was held."""
    each = leg(plan, leg_id)
    given_up = plan.decision is Decision.ABORT and each.kind.settling and each.order is Order.PREPARE
    return each.vote if given_up and each.promise is None else None


def untouched(each: LegState) -> bool:
    """Whether nobody was ever asked about the leg."""
    return each.order is Order.NONE and each.phase is None


def unknown_legs(plan: Plan) -> tuple[LegState, ...]:
    """Settling legs of which nobody can say now whether they took effect, or still do: commanded, not answered."""
    return tuple(each for each in settling(plan) if _undecided(each) or reversing(each))


def _undecided(each: LegState) -> bool:
    return each.order in (Order.COMMIT, Order.ABORT) and not executed(each) and not barred(each) and not each.reversed


def reversing(each: LegState) -> bool:
    """Whether the leg was ordered to be reversed, and its participant has not answered."""
    return each.order is Order.REVERSE and not each.reversed and each.reversal is None


def irreversible(each: LegState) -> bool:
    """Whether the leg's participant refused the last order to reverse it."""
    return each.reversal is not None and each.reversal.outcome.kind is OutcomeKind.REVERSAL_REFUSED


def undone(plan: Plan) -> SignedOutcome | None:
    """The first leg's signed word that it was reversed; None where there is none."""
    given = (each.reversal for each in settling(plan) if each.reversal is not None)
    return next((each for each in given if each.outcome.kind is OutcomeKind.REVERSED), None)


def refusal(plan: Plan) -> SignedOutcome | None:
    """The first leg's signed word that it will never execute, on which the plan's policy may go; None where there is none."""
    given = (each.outcome for each in settling(plan) if each.phase is Phase.REFUSED and each.outcome is not None)
    return next((each for each in given if each.outcome.kind is OutcomeKind.REFUSED), None)


def all_prepared(plan: Plan) -> bool:
    """Whether every leg's promise stands."""
    return all(each.phase is Phase.PREPARED and each.promise is not None for each in plan.legs)


def soft_legs(plan: Plan) -> tuple[str, ...]:
    """Settling legs whose promise may fail to be kept, in plan order."""
    return tuple(each.leg_id for each in settling(plan) if each.promise is not None and each.promise.soft)


def gate(plan: Plan, which: Gate, verdict: Verdict = Verdict.APPROVE) -> GateRecord | None:
    """The last signature of that kind that counts: an approval that has run out may be given again, and operators may send evidence back."""
    counting = plan.gates[plan.validated_from :] if which is Gate.VALIDATE else plan.gates
    for record in reversed(counting):
        if record.signed.statement.gate is which and record.signed.statement.verdict is verdict:
            return record
    return None


def standing(plan: Plan, which: Gate, now: datetime) -> tuple[GateRecord, ...]:
    """The approvals that count at that moment: the last one of each person that has not run out, in the order of signing."""
    counting = plan.gates[plan.validated_from :] if which is Gate.VALIDATE else plan.gates
    last = {record.actor: record for record in counting if _approves(record, which) and now < record.signed.statement.expires_at}
    return tuple(sorted(last.values(), key=plan.gates.index))


def _approves(record: GateRecord, which: Gate) -> bool:
    statement = record.signed.statement
    return statement.gate is which and statement.verdict is Verdict.APPROVE


def needed(plan: Plan, which: Gate) -> int:
    """How many persons the gate takes."""
    told = {Gate.APPROVE: plan.quorum.approve, Gate.RELEASE: plan.quorum.release, Gate.VALIDATE: plan.quorum.validate}
    return told.get(which, 1)


def opened(plan: Plan, which: Gate, now: datetime) -> bool:
    """Whether as many persons' approvals stand as the gate takes."""
    return len(standing(plan, which, now)) >= needed(plan, which)


def stopping_gate(plan: Plan, cause: Cause) -> GateRecord | None:
    """The signature that stopped the plan, or refused its evidence."""
    if cause is Cause.CANCELLED:
        return gate(plan, Gate.CANCEL)
    if cause is Cause.GATE_REJECTED:
        return gate(plan, Gate.APPROVE, Verdict.REJECT) or gate(plan, Gate.RELEASE, Verdict.REJECT)
    if cause is Cause.EVIDENCE_REJECTED:
        return gate(plan, Gate.VALIDATE, Verdict.REJECT)
    return None


def votes(plan: Plan) -> Digest | None:
    """What the releaser signs; None as long as a YES is missing."""
    given = [each.vote for each in plan.legs if each.vote is not None and each.promise is not None]
    return votes_digest(given) if len(given) == len(plan.legs) else None


def evidence(plan: Plan) -> Digest:
    """What the validator signs, and what is put on chain: the settling legs' signed outcomes, as far as there are any."""
    return evidence_digest([each.outcome for each in settling(plan) if each.outcome is not None])


def outcome(plan: Plan, state: State) -> PlanOutcome | None:
    """How the plan ends, as far as the state says that it enters."""
    if plan.outcome is PlanOutcome.MIXED:
        return PlanOutcome.MIXED
    if state is State.COMMITTED:
        return PlanOutcome.COMMITTED
    if state is State.ABORTED:
        return PlanOutcome.REVERSED if any(each.reversed for each in plan.legs) else PlanOutcome.ABORTED
    return plan.outcome if state is State.CLOSED else None


def cause(plan: Plan, now: datetime, limits: Limits) -> Cause | None:
    """The cause that the facts give, or None where the plan rests."""
    match plan.state:
        case State.READY_FOR_PREPARE if all_prepared(plan) and opened(plan, Gate.APPROVE, now):
            return _stop(plan, now, limits) or Cause.PREPARED_AND_APPROVED
        case State.PREPARED if opened(plan, Gate.RELEASE, now):
            return _stop(plan, now, limits) or _release(plan)
        case state if state in UNDECIDED:
            return _stop(plan, now, limits)
        case State.EXECUTING:
            return _executing(plan)
        case State.VALIDATING:
            return _validating(plan, now)
        case State.COMMITTED:
            return _closing(plan, Phase.COMMITTED) or (Cause.CONTRADICTION if not plan.sealing and contradicted(plan) else None)
        case State.ABORTED:
            found = any(executed(each) for each in settling(plan)) and not plan.sealing and plan.outcome is not PlanOutcome.MIXED
            return _closing(plan, Phase.RELEASED) or (Cause.FOUND_EXECUTED if found else None)
        case State.PARTIALLY_EXECUTED:
            return _partial(plan)
        case State.UNWIND_PENDING if any(irreversible(each) and not each.reversed for each in settling(plan)):
            return Cause.REVERSAL_REFUSED
        case State.UNWIND_PENDING if all(barred(each) or each.reversed or untouched(each) for each in settling(plan)):
            return Cause.UNWOUND
        case _:
            return None


def _stop(plan: Plan, now: datetime, limits: Limits) -> Cause | None:
    """Why a plan must not go on to its decision."""
    if gate(plan, Gate.CANCEL):
        return Cause.CANCELLED
    if stopping_gate(plan, Cause.GATE_REJECTED):
        return Cause.GATE_REJECTED
    if any(each.vote is not None and each.promise is None for each in plan.legs):
        return Cause.VOTED_NO
    if any(barred(each) for each in plan.legs):
        return Cause.PROMISE_WITHDRAWN
    if now > plan.deadline:
        return Cause.DEADLINE_PASSED
    return Cause.CHECK_FAILED if promise_finding(plan, limits) else None


def promise_finding(plan: Plan, limits: Limits) -> tuple[str, str, str] | None:
    """Reason, leg and sentence where the promises given cannot carry the decision; None where they can."""
    if not any(promise.soft for each in plan.legs if (promise := each.promise) is not None):
        # What stands whatever comes carries everything.
        return None
    for each in plan.legs:
        lapses = each.promise.expires_at if each.promise else None
        if lapses is not None and lapses < plan.deadline + limits.delivery_margin:
            return "PROMISE_TOO_SHORT", each.leg_id, "the promise ends before the plan's deadline and the delivery margin"
    soft = soft_legs(plan)
    if len(soft) > 1 and not plan.policy.accept_expiry_risk:
        return "TWO_SOFT_LEGS", soft[1], "more than one promise can lapse, and the plan does not accept that risk"
    early = next((each for each in settling(plan) if each.kind.irrevocable and each.leg_id in soft), None)
    if early is not None and len(settling(plan)) > 1:
        return (
            "STEP_DEPENDENCY_FAILED",
            early.leg_id,
            "its promise can lapse, so that it would go first, and it is irrevocable, so that it goes last",
        )
    firm = {each.leg_id for each in settling(plan) if each.promise is not None and not each.promise.soft}
    for each in settling(plan):
        if each.leg_id in soft and not firm.isdisjoint(each.depends_on):
            return (
                "STEP_DEPENDENCY_FAILED",
                each.leg_id,
                "its promise can lapse, so that it goes before the legs that it depends on",
            )
    return None


def _release(plan: Plan) -> Cause:
    """How the decision is written: by one soft leg, where there is one; else at once."""
    return Cause.RELEASED_DELEGATED if len(soft_legs(plan)) == 1 else Cause.RELEASED


def _executing(plan: Plan) -> Cause | None:
    if plan.decision is Decision.DELEGATED:
        delegate = leg(plan, plan.delegate)
        if executed(delegate):
            return Cause.DELEGATE_DONE
        # A refusal alone does not decide: only what was released outside can never execute.
        answered = delegate.operators_evidence is not None and not delegate.operators_evidence.executed
        return Cause.DELEGATE_RELEASED if delegate.phase is Phase.RELEASED or answered else None
    if contradicted(plan):
        return Cause.CONTRADICTION
    if any(barred(each) for each in settling(plan)):
        return Cause.LEG_REFUSED
    return Cause.ALL_DONE if all(executed(each) for each in settling(plan)) else None


def contradicted(plan: Plan) -> bool:
    """Whether a leg that counts as executed is said not to be."""
    return any(doubted(each) for each in settling(plan))


def doubted(each: LegState) -> bool:
    """Whether a participant complains about a leg that it had executed, or denies what operators showed of it."""
    return executed(each) and ((each.trouble != "" and each.phase is Phase.COMMITTED) or gainsaid(each))


def drivable(plan: Plan) -> bool:
    """Whether a plan that waits for operators could go on to its end: nothing refused for good, nothing contradicted, nothing undone.

    As long as an order to reverse is unanswered it may yet be carried out, and no plan goes on to its end beside it.
    """
    waits = plan.state is State.PARTIALLY_EXECUTED and plan.decision is Decision.COMMIT and plan.outcome is not PlanOutcome.MIXED
    stays = any(barred(each) or each.reversed or reversing(each) for each in settling(plan))
    return waits and not contradicted(plan) and not stays


def unwindable(plan: Plan) -> bool:
    """Whether operators can order the unwind: of every leg it is known whether it took effect. A new order takes an unanswered one's place."""
    waits = plan.state is State.PARTIALLY_EXECUTED and plan.outcome is not PlanOutcome.MIXED
    again = plan.state is State.UNWIND_PENDING and any(executed(each) for each in settling(plan))
    return (waits or again) and not any(_undecided(each) for each in settling(plan))


def reordered(plan: Plan) -> Plan:
    """The plan for a new order to reverse: whatever was said of the one before does not answer it."""
    legs = (
        replace(each, order=Order.NONE, ordered_at=None) if reversing(each) or irreversible(each) else each for each in plan.legs
    )
    return replace(plan, legs=tuple(each if each.reversed else replace(each, reversal=None) for each in legs))


def settleable(plan: Plan) -> bool:
    """Whether operators can still say that the plan was settled outside. What is held and can be let go is let go before: after MIXED nobody would."""
    kept = any(each.order is Order.PREPARE and not (executed(each) or barred(each) or each.reversed) for each in settling(plan))
    stands = plan.state in (State.PARTIALLY_EXECUTED, State.ABORTED) and not plan.sealing
    return stands and not kept and plan.outcome is not PlanOutcome.MIXED


def unsettled(plan: Plan) -> bool:
    """Whether the plan ends without having settled as it was signed: its end is told in an abort audit log."""
    return plan.state is State.ABORTED or plan.outcome is PlanOutcome.MIXED


def _validating(plan: Plan, now: datetime) -> Cause | None:
    if contradicted(plan):
        return Cause.CONTRADICTION
    if gate(plan, Gate.VALIDATE, Verdict.REJECT):
        return Cause.EVIDENCE_REJECTED
    return Cause.EVIDENCE_VALIDATED if opened(plan, Gate.VALIDATE, now) else None


def _closing(plan: Plan, sealed: Phase) -> Cause | None:
    if journal(plan).phase is not sealed or not plan.sealing:
        return None
    return Cause.SETTLED_OUTSIDE if plan.outcome is PlanOutcome.MIXED else Cause.SEALED


def _partial(plan: Plan) -> Cause | None:
    if plan.outcome is PlanOutcome.MIXED:
        return _closing(plan, Phase.COMMITTED if plan.decision is Decision.COMMIT else Phase.RELEASED)
    unordered = not plan.unwound_by_policy and plan.unwind is None
    if plan.policy.unwind_automatically and unordered and refusal(plan) is not None and not unknown_legs(plan):
        return Cause.UNWIND_ORDERED
    return None


def explain(plan: Plan, why: Cause, event: Event, limits: Limits) -> tuple[str, str, str]:
    """Reason of docs/errors.md, leg and sentence for a cause; empty for those that need none."""
    match why:
        case Cause.CHECK_FAILED:
            if isinstance(event, CheckFailed):
                return event.reason, event.leg_id, event.detail
            return promise_finding(plan, limits) or ("CHECK_FAILED", "", "")
        case Cause.VOTED_NO:
            refused = next(each for each in plan.legs if each.vote is not None and each.promise is None)
            return _refusal(refused, refused.vote.vote.answer if refused.vote else None, "voted NO")
        case Cause.PROMISE_WITHDRAWN | Cause.LEG_REFUSED:
            return refusal_of(next(each for each in plan.legs if barred(each)))
        case Cause.DELEGATE_RELEASED:
            if plan.reason:
                return plan.reason, plan.reason_leg, plan.reason_detail
            return "LEG_REFUSED", plan.delegate, "was released without effect"
        case Cause.CONTRADICTION:
            about = next(each for each in settling(plan) if doubted(each))
            return "EVIDENCE_CONTRADICTED", about.leg_id, about.trouble or "its participant says otherwise than operators did"
        case Cause.FOUND_EXECUTED:
            about = next(each for each in settling(plan) if executed(each))
            return "ABORTED_LEG_EXECUTED", about.leg_id, "a leg of an aborted plan took effect"
        case Cause.REVERSAL_REFUSED:
            stays = next((each for each in settling(plan) if irreversible(each) and not each.reversed), None)
            if stays is None or stays.reversal is None:
                leg_id = event.leg_id if isinstance(event, OperatorsAnswered) else ""
                return "REVERSAL_REFUSED", leg_id, "two operators showed that the leg stays executed"
            _, leg_id, detail = _refusal(stays, stays.reversal.outcome.refusal, "it cannot be reversed")
            return "REVERSAL_REFUSED", leg_id, detail
        case Cause.GATE_REJECTED | Cause.EVIDENCE_REJECTED:
            record = stopping_gate(plan, why)
            return why.value, "", f"{record.actor} refused the gate {record.signed.statement.gate}" if record else ""
        case Cause.CANCELLED:
            record = gate(plan, Gate.CANCEL)
            return "CANCELLED", "", f"cancelled by {record.actor}" if record else ""
        case Cause.DEADLINE_PASSED:
            return "DEADLINE_PASSED", "", "the deadline passed before the decision"
        case Cause.RESTORED:
            return "RESTORED_UNDECIDED", "", "the coordinator's database was put back, and nobody knows of a decision"
        case Cause.SETTLED_OUTSIDE:
            return "SETTLED_OUTSIDE", "", event.detail if isinstance(event, OperatorsSettled) else ""
        case Cause.DELEGATE_DONE:
            return "", plan.delegate, ""
        case Cause.ALL_DONE:
            return "", event.leg_id if isinstance(event, LegNews | OperatorsAnswered) else settling(plan)[-1].leg_id, ""
        case Cause.REDRIVEN | Cause.UNWIND_ORDERED:
            return "", event.leg_id if isinstance(event, OperatorsAnswered | OperatorsRedrove) else "", ""
        case _:
            return "", "", ""


def refusal_of(each: LegState) -> tuple[str, str, str]:
    """Reason, leg and sentence of what a leg's participant said for good."""
    return _refusal(each, each.outcome.outcome.refusal if each.outcome else None, "will never execute")


def _refusal(each: LegState, refusal: object, otherwise: str) -> tuple[str, str, str]:
    if isinstance(refusal, Refusal):
        code = f" ({refusal.outside_code})" if refusal.outside_code else ""
        return refusal.reason, each.leg_id, f"{refusal.detail or otherwise}{code}"
    return "LEG_REFUSED", each.leg_id, otherwise
