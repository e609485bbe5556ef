"""What two operators may decide about an escalation, and what their decision becomes. Pure.

A resolution counts when two operators, neither of whom has signed one of the plan's gates, signed the same (`lockstep_kit.resolutions`). It takes
effect once: whoever wants the same done again says why, in another sentence, and it is another resolution. Whatever they decide, a ticket stays open
until they close it (FORGET), and they can close it only when its matter is over: a plan that is not whole is never without an open ticket.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from coordinator import calls, facts
from coordinator.commands import answered
from coordinator.dossier import Dossier, FiledTicket, signers
from coordinator.model import (
    Event,
    Limits,
    Mandate,
    OperatorsAnswered,
    OperatorsEvidence,
    OperatorsForgot,
    OperatorsRedrove,
    OperatorsSettled,
    OperatorsUnwound,
    Plan,
    State,
    Ticket,
)
from lockstep_kit.certificate import Decision, NotAuthorised
from lockstep_kit.ids import ActorId, LegId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.resolutions import Resolution, ResolutionSignature, Verb, check_operator, check_resolution
from lockstep_kit.statements import BankEvidence, ChainEvidence, InstrumentEvidence
from lockstep_kit.values import dataclass

#: Refusals that are about the escalation's state rather than about the person: FAILED_PRECONDITION, not PERMISSION_DENIED.
STATE_REASONS: Final = frozenset({"RESOLUTION_CLOSED", "RESOLUTION_NOT_ALLOWED", "RESOLUTION_LEG", "RESOLUTION_EVIDENCE"})


class Standing(StrEnum):
    """How an escalation's plan stands, as far as it matters to what may be done."""

    #: Nothing that was ordered about a settling leg is unanswered.
    KNOWN = "KNOWN"
    #: Nobody can say what became of the ticket's leg.
    UNKNOWN = "UNKNOWN"
    #: Nobody can say what became of another leg.
    UNKNOWN_ELSEWHERE = "UNKNOWN_ELSEWHERE"
    #: Of nothing but orders to reverse it is unknown what became of them, the ticket's leg's among them.
    REVERSING = "REVERSING"
    #: The same, and the ticket is not about such a leg.
    REVERSING_ELSEWHERE = "REVERSING_ELSEWHERE"
    #: Nothing but operators' own word says that the ticket's leg took no effect.
    DENIED = "DENIED"
    #: Operators said that the plan was settled outside.
    SETTLED_OUTSIDE = "SETTLED_OUTSIDE"


class Move(StrEnum):
    """A verb, with or without a leg."""

    RETRY = "RETRY"
    RETRY_LEG = "RETRY_LEG"
    REVERSE = "REVERSE"
    RESOLVE_LEG = "RESOLVE_LEG"
    RESOLVE_PLAN = "RESOLVE_PLAN"
    FORGET = "FORGET"

    @property
    def verb(self) -> Verb:
        """The verb."""
        return Verb(self.value.partition("_")[0])

    @property
    def names_leg(self) -> bool:
        """Whether the ticket's leg must be named."""
        return self in (Move.RETRY_LEG, Move.RESOLVE_LEG)


#: In these states a missing answer can be given by operators.
_ANSWERED_BY_OPERATORS: Final = frozenset({State.EXECUTING, State.ABORTED, State.PARTIALLY_EXECUTED, State.UNWIND_PENDING})


def moves(state: State, decision: Decision | None, standing: Standing) -> frozenset[Move]:
    """What may be done about an open ticket; FORGET comes on top where the ticket's matter is over (`over`). Total."""
    if state is State.CLOSED:
        return frozenset()
    found = {Move.RETRY}
    if standing is Standing.SETTLED_OUTSIDE:
        return frozenset(found)
    if standing in (Standing.UNKNOWN, Standing.REVERSING) and state in _ANSWERED_BY_OPERATORS:
        found.add(Move.RESOLVE_LEG)
    if state is State.UNWIND_PENDING and standing not in (Standing.UNKNOWN, Standing.UNKNOWN_ELSEWHERE):
        # A new order takes the place of one that ran out, or was lost, before its participant obeyed it.
        found.add(Move.REVERSE)
    if state is State.PARTIALLY_EXECUTED:
        found.add(Move.RESOLVE_PLAN)
        if standing not in (Standing.UNKNOWN, Standing.UNKNOWN_ELSEWHERE):
            found.add(Move.REVERSE)
        if standing is Standing.DENIED and decision is Decision.COMMIT:
            found.add(Move.RETRY_LEG)
    if state is State.ABORTED and standing in (Standing.UNKNOWN, Standing.UNKNOWN_ELSEWHERE):
        found.add(Move.RESOLVE_PLAN)
    return frozenset(found)


def standing(plan: Plan, ticket: Ticket) -> Standing:
    """How a ticket's plan stands."""
    if plan.outcome is PlanOutcome.MIXED:
        return Standing.SETTLED_OUTSIDE
    unknown = {each.leg_id for each in facts.unknown_legs(plan)}
    reversing = {each.leg_id for each in facts.settling(plan) if facts.reversing(each)}
    if unknown and unknown == reversing:
        return Standing.REVERSING if ticket.leg_id in reversing else Standing.REVERSING_ELSEWHERE
    if ticket.leg_id in unknown:
        return Standing.UNKNOWN
    if unknown:
        return Standing.UNKNOWN_ELSEWHERE
    denied = any(each.leg_id == ticket.leg_id and facts.denied(each) for each in facts.settling(plan))
    return Standing.DENIED if denied else Standing.KNOWN


class Ends(StrEnum):
    """When a ticket's matter is over."""

    #: What was found does not hold any more: the answer came, the gate was signed, the complaint was taken back.
    FINDING_GONE = "FINDING_GONE"
    #: The plan has got past it: every leg took effect, or none has.
    PLAN_WHOLE = "PLAN_WHOLE"
    #: The command has its answer, or another command took its place.
    COMMAND_ANSWERED = "COMMAND_ANSWERED"
    #: The plan is closed.
    PLAN_CLOSED = "PLAN_CLOSED"
    #: Operators judge it; it is raised anew when it happens again.
    BY_JUDGEMENT = "BY_JUDGEMENT"


#: Reason of a ticket -> when its matter is over. Reasons that are not here come with the transition that stopped the plan: PLAN_WHOLE.
ENDS: Final = {
    "UNKNOWN_TOO_OLD": Ends.FINDING_GONE,
    "LEG_TROUBLE": Ends.FINDING_GONE,
    "VALIDATION_OVERDUE": Ends.FINDING_GONE,
    "EVIDENCE_LEG_OVERDUE": Ends.FINDING_GONE,
    "EVIDENCE_LEG_REFUSED": Ends.FINDING_GONE,
    "RESOLUTION_CONTRADICTED": Ends.FINDING_GONE,
    "REVERSAL_UNORDERED": Ends.FINDING_GONE,
    "COMMAND_REJECTED": Ends.COMMAND_ANSWERED,
    "COMMAND_DEAD": Ends.COMMAND_ANSWERED,
    "PLAN_KEY_SEALED": Ends.BY_JUDGEMENT,
    "PARTICIPANT_REPORT": Ends.BY_JUDGEMENT,
    "PARTICIPANT_SIGNATURE": Ends.BY_JUDGEMENT,
    "PARTICIPANT_CONTRADICTS": Ends.BY_JUDGEMENT,
    "JOURNAL_CONFLICT": Ends.PLAN_CLOSED,
}

#: States of a plan that is whole: everything took effect, or nothing has that is not undone.
_WHOLE: Final = frozenset({State.VALIDATING, State.COMMITTED, State.ABORTED, State.CLOSED})


def over(plan: Plan, ticket: Ticket, now: datetime, limits: Limits) -> bool:
    """Whether a ticket's matter is over, so that operators may close it. After CLOSED it is."""
    if plan.state is State.CLOSED:
        return True
    found = calls.findings(plan, now, limits)
    if any((reason, leg_id) == (ticket.reason, ticket.leg_id) for reason, leg_id, _ in found):
        return False
    match ENDS.get(ticket.reason, Ends.PLAN_WHOLE):
        case Ends.FINDING_GONE | Ends.BY_JUDGEMENT:
            return True
        case Ends.PLAN_WHOLE:
            return plan.state in _WHOLE
        case Ends.COMMAND_ANSWERED:
            return all(answered(each) for each in plan.legs if each.leg_id == ticket.leg_id)
        case Ends.PLAN_CLOSED:
            return False
        case unreachable:
            assert_never(unreachable)


def options(plan: Plan, filed: FiledTicket, now: datetime, limits: Limits) -> frozenset[Move]:
    """Everything that may be done about an escalation now; nothing once it is closed."""
    if filed.resolved_at is not None:
        return frozenset()
    found = set(moves(plan.state, plan.decision, standing(plan, filed.ticket)))
    # What is being sealed is told its outcome already.
    found -= set() if facts.settleable(plan) else {Move.RESOLVE_PLAN}
    found |= {Move.FORGET} if over(plan, filed.ticket, now, limits) else set()
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class OperatorRecord:
    """One operator's signature, as it was accepted."""

    #: What was signed.
    signed: ResolutionSignature
    #: Whose it is.
    actor: ActorId
    #: When it was accepted.
    at: datetime


@dataclass(frozen=True, slots=True)
class Admitted:
    """A signature that counts, and what it brings about."""

    #: To be kept.
    record: OperatorRecord
    #: Present when it is the second like one: what two operators signed.
    mandate: Mandate | None
    #: Present with it: what the plan is to be given.
    event: Event | None


def counting(known: Sequence[OperatorRecord], now: datetime) -> list[OperatorRecord]:
    """The signatures among these that still count: one of each operator, none that ran out."""
    found: dict[ActorId, OperatorRecord] = {}
    for each in known:
        if now < each.signed.statement.expires_at:
            found.setdefault(each.actor, each)
    return list(found.values())


def admit(
    dossier: Dossier,
    filed: FiledTicket,
    signed: ResolutionSignature,
    like: Sequence[OperatorRecord],
    registry: Registry,
    limits: Limits,
    now: datetime,
) -> Admitted:
    """One operator's signature about an open escalation; `like` are those that others gave over the same. That the nonce is fresh is the store's to say.

    Raises:
        NotAuthorised: the first reason found; those of STATE_REASONS are about the escalation's state.
    """
    plan, resolution = dossier.plan, signed.statement.resolution
    barred = signers(plan)
    actor = check_operator(signed, plan.digest, registry, now).actor_id
    if actor in barred:
        raise NotAuthorised("RESOLUTION_SAME_PERSON", f"{actor} has signed one of the plan's gates")
    _check_allowed(dossier, filed, resolution, limits, now)
    others = counting(like, now)
    if any(each.actor == actor for each in others):
        raise NotAuthorised("RESOLUTION_SAME_PERSON", f"{actor} has signed this already; another operator must")
    record = OperatorRecord(signed, actor, now)
    if not others:
        return Admitted(record, None, None)
    first = others[0]
    check_resolution([first.signed, signed], plan.digest, resolution.verb, registry, now, barred)
    mandate = Mandate((first.signed, signed), (first.actor, actor))
    return Admitted(record, mandate, event_of(filed.ticket, mandate))


#: Evidence that a settling leg is shown by.
SHOWN_BY: Final = {
    LegKind.TOKEN_TRANSFER: ChainEvidence,
    LegKind.CREDIT_TRANSFER: BankEvidence,
    LegKind.ISSUE_INSTRUMENT: InstrumentEvidence,
}


def _check_allowed(dossier: Dossier, filed: FiledTicket, resolution: Resolution, limits: Limits, now: datetime) -> None:
    if filed.resolved_at is not None:
        raise NotAuthorised("RESOLUTION_CLOSED", "the escalation is closed")
    if resolution.leg_id not in ("", filed.ticket.leg_id):
        raise NotAuthorised("RESOLUTION_LEG", f"the escalation is about {filed.ticket.leg_id or 'no leg'}, not {resolution.leg_id}")
    wanted = {each for each in Move if each.verb is resolution.verb and each.names_leg == bool(resolution.leg_id)}
    if not wanted & options(dossier.plan, filed, now, limits):
        about = f" {resolution.leg_id}" if resolution.leg_id else ""
        raise NotAuthorised("RESOLUTION_NOT_ALLOWED", f"{resolution.verb}{about} cannot be done as the plan stands")
    if resolution.evidence is not None:
        kind = facts.leg(dossier.plan, resolution.leg_id).kind
        fits = SHOWN_BY[kind]
        if not isinstance(resolution.evidence, fits):
            raise NotAuthorised("RESOLUTION_EVIDENCE", f"a {kind} leg is shown by {fits.__name__}")


def event_of(ticket: Ticket, mandate: Mandate) -> Event:
    """What a complete resolution is to its plan."""
    resolution = mandate.resolution
    match resolution.verb:
        case Verb.RETRY:
            return OperatorsRedrove(resolution.leg_id, mandate)
        case Verb.REVERSE:
            return OperatorsUnwound(mandate)
        case Verb.RESOLVE if resolution.executed is not None and resolution.evidence is not None:
            answer = OperatorsEvidence(resolution.executed, resolution.evidence)
            return OperatorsAnswered(LegId(resolution.leg_id), answer, mandate)
        case Verb.RESOLVE:
            return OperatorsSettled(resolution.detail, mandate)
        case Verb.FORGET:
            return OperatorsForgot(ticket, mandate)
        case unreachable:
            assert_never(unreachable)
