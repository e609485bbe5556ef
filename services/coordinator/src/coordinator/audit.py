"""The abort audit log: why a plan did not settle, what was undone, by whom, when and with what result, and whether recovery was tried. Pure.

One log of each end: a plan that is found executed after it was aborted, and is unwound, is aborted a second time and has a second log, which names the
first. A log is RFC 8785 bytes, addressed by their SHA-256; the evidence legs are told that hash, so that it stands on the chain and in the journal's seal.
It holds registered ids and participants' sentences, and no keys, names, accounts or amounts.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier
from coordinator.model import Cause, LegState, Moved, Order, State
from coordinator.payloads import leg_document, outcome_document
from lockstep_kit.canonical import Document, canonical, time_text
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, Digest, PlanId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.resolutions import Verb
from lockstep_kit.statements import SignedOutcome, evidence_document
from lockstep_kit.values import dataclass

FORMAT: Final = "lockstep/abort-audit-log/v1"

#: Phases that end a release, and a reversal.
_RELEASE_ENDS: Final = (Phase.RELEASED, Phase.REFUSED, Phase.COMMITTED)
_REVERSAL_ENDS: Final = (Phase.REVERSED, Phase.COMMITTED)


class Ending(StrEnum):
    """How recovery ended."""

    #: No person and no other replica had to do anything.
    NOT_NEEDED = "NOT_NEEDED"
    #: Every hold was released, and nothing had taken effect.
    RELEASED = "RELEASED"
    #: Everything that had taken effect was reversed.
    REVERSED = "REVERSED"
    #: Two operators settled the plan outside.
    SETTLED_OUTSIDE = "SETTLED_OUTSIDE"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of a plan's history."""

    #: What happened.
    moved: Moved
    #: When.
    at: datetime


@dataclass(frozen=True, slots=True)
class Given:
    """A command as it was given."""

    #: The leg.
    leg_id: str
    #: What was ordered.
    order: Order
    #: When it was last given.
    at: datetime
    #: How often it was sent.
    attempts: int
    #: How often it was rejected in a row.
    rejections: int
    #: Why, at the last time, or "".
    last_rejection: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What a participant said of a leg, and when."""

    #: The leg.
    leg_id: str
    #: Where it stood.
    phase: Phase
    #: When the coordinator took it.
    at: datetime


@dataclass(frozen=True, slots=True)
class Decided:
    """What two operators decided."""

    #: Ticket that it was decided about.
    escalation_id: str
    #: What.
    verb: Verb
    #: Leg that it is about, or "".
    leg_id: str
    #: Who.
    actors: tuple[ActorId, ActorId]
    #: SHA-256 of what they signed.
    digest: Digest
    #: When it took effect.
    at: datetime


@dataclass(frozen=True, slots=True)
class Papers:
    """Everything that the log is written from; all of it is rows."""

    #: The plan as it stands.
    dossier: Dossier
    #: Digests of the plan's logs before this one, in order.
    earlier: tuple[Digest, ...]
    #: Its history, in order.
    transitions: tuple[Transition, ...]
    #: Its commands.
    commands: tuple[Given, ...]
    #: What its participants said, in order.
    reports: tuple[Heard, ...]
    #: What operators decided, in order.
    resolutions: tuple[Decided, ...]
    #: States in which a replica took the plan over from another while something was on its way.
    take_overs: int
    #: The database's clock.
    now: datetime


@dataclass(frozen=True, slots=True)
class AuditLog:
    """A log as it is kept."""

    #: Its plan.
    plan_id: PlanId
    #: Dense from 1 within the plan.
    ordinal: int
    #: SHA-256 of its bytes.
    digest: Digest
    #: RFC 8785 bytes.
    octets: bytes
    #: When it was written.
    written_at: datetime
    #: When it was ordered, as long as it is being stored.
    ordered_at: datetime | None = None
    #: W3C trace context of its plan.
    traceparent: str | None = None


class CopyState(StrEnum):
    """Where the copy of a log in the store stands."""

    INTACT = "INTACT"
    MISSING = "MISSING"
    CORRUPT = "CORRUPT"


@dataclass(frozen=True, slots=True)
class Shown:
    """A log as a client is shown it."""

    #: The log.
    log: AuditLog
    #: Digests of the plan's logs before it.
    earlier: tuple[Digest, ...]
    #: Where its copy stands.
    copy: CopyState
    #: The notary's signed outcomes, as far as there are any.
    notarisations: tuple[SignedOutcome, ...]


def audit_log(papers: Papers) -> bytes:
    """The log's bytes."""
    plan, header = papers.dossier.plan, papers.dossier.header
    settling = facts.settling(plan)
    document: dict[str, Document] = {
        "format": FORMAT,
        "plan_id": plan.plan_id,
        "plan_digest": plan.digest.hex(),
        "deadline": time_text(header.deadline),
        "created_at": time_text(papers.dossier.created_at),
        "written_at": time_text(papers.now),
        "ordinal": len(papers.earlier) + 1,
        "earlier": [each.hex() for each in papers.earlier],
        "outcome": plan.outcome.value if plan.outcome else "",
        "decision": plan.decision.value if plan.decision else "",
        "abort": _abort_document(papers),
        "legs_done": {"done": sum(1 for each in settling if _took_effect(each, papers)), "of": len(settling)},
        "legs": [_leg_document(each, papers.dossier) for each in plan.legs],
        "rollback": [_action_document(each, papers) for each in _actions(papers)],
        "recovery": _recovery_document(papers),
        "transitions": [_transition_document(each) for each in papers.transitions],
    }
    return canonical(document)


def _abort_document(papers: Papers) -> Document:
    """Why, and in which phase: what was first left for ABORTED or PARTIALLY_EXECUTED."""
    plan = papers.dossier.plan
    stopped = next(each for each in papers.transitions if each.moved.entered in (State.ABORTED, State.PARTIALLY_EXECUTED))
    return {
        "phase": stopped.moved.left.value if stopped.moved.left else "",
        "at": time_text(stopped.at),
        "transition_no": stopped.moved.transition_no,
        "cause": plan.cause.value if plan.cause else stopped.moved.cause.value,
        "reason": plan.reason,
        "leg_id": plan.reason_leg,
        "detail": plan.reason_detail,
    }


def _took_effect(leg: LegState, papers: Papers) -> bool:
    """Whether the leg ever took effect, reversed or not."""
    return (
        facts.executed(leg)
        or leg.reversed
        or any(each.leg_id == leg.leg_id and each.phase is Phase.COMMITTED for each in papers.reports)
    )


def _leg_document(leg: LegState, dossier: Dossier) -> Document:
    file = dossier.file(leg.leg_id)
    document = leg_document(leg) | {
        "participant": file.participant if file else "",
        "phase": leg.phase.value if leg.phase else "",
        "executed": facts.executed(leg),
        "reversed": leg.reversed,
    }
    if leg.operators_evidence is not None:
        document["operators"] = {
            "executed": leg.operators_evidence.executed,
            "evidence": evidence_document(leg.operators_evidence.evidence),
        }
    if leg.trouble:
        document["trouble"] = leg.trouble
    return document


def _actions(papers: Papers) -> list[Given]:
    """What was ordered to undo legs, in the order of the orders."""
    settling = {each.leg_id for each in facts.settling(papers.dossier.plan)}
    undoing = [each for each in papers.commands if each.leg_id in settling and each.order in (Order.ABORT, Order.REVERSE)]
    return sorted(undoing, key=lambda each: (each.at, each.leg_id, each.order.value))


def _action_document(given: Given, papers: Papers) -> Document:
    """One order to undo a leg, and what came of it."""
    leg = facts.leg(papers.dossier.plan, given.leg_id)
    ends = _RELEASE_ENDS if given.order is Order.ABORT else _REVERSAL_ENDS
    answer = next(
        (each for each in papers.reports if each.leg_id == leg.leg_id and each.at >= given.at and each.phase in ends), None
    )
    document: dict[str, Document] = {
        "leg_id": leg.leg_id,
        "action": "release" if given.order is Order.ABORT else "reverse",
        "participant": (file.participant if (file := papers.dossier.file(leg.leg_id)) else ""),
        "ordered_at": time_text(given.at),
        "attempts": given.attempts,
        "result": _result(given, leg, answer),
    }
    if answer is not None:
        document["answered_at"] = time_text(answer.at)
    if given.rejections:
        document["rejected"] = {"times": given.rejections, "reason": given.last_rejection}
    signed = leg.outcome if given.order is Order.ABORT else leg.reversal
    if answer is not None and signed is not None:
        document["outcome"] = outcome_document(signed)
        if signed.outcome.evidence is not None:
            document["evidence"] = evidence_document(signed.outcome.evidence)
    return document


def _result(given: Given, leg: LegState, answer: Heard | None) -> str:
    if answer is not None:
        refused = given.order is Order.REVERSE and answer.phase is Phase.COMMITTED
        return "REVERSAL_REFUSED" if refused else ("EXECUTED" if answer.phase is Phase.COMMITTED else answer.phase.value)
    if leg.operators_evidence is not None:
        return "EXECUTED_BY_OPERATORS_EVIDENCE" if leg.operators_evidence.executed else "RELEASED_BY_OPERATORS_EVIDENCE"
    return "UNANSWERED"


def _recovery_document(papers: Papers) -> Document:
    plan = papers.dossier.plan
    moves = [each.moved for each in papers.transitions]
    redrives = sum(1 for each in moves if each.cause is Cause.REDRIVEN)
    unwinds = sum(1 for each in moves if each.cause is Cause.UNWIND_ORDERED)
    tried = bool(redrives or unwinds or papers.resolutions or papers.take_overs)
    return {
        "tried": tried,
        "take_overs": papers.take_overs,
        "redrives": redrives,
        "unwinds": unwinds,
        "resolutions": [_decided_document(each) for each in papers.resolutions],
        "escalations": [
            {
                "escalation_id": each.escalation_id,
                "reason": each.ticket.reason,
                "leg_id": each.ticket.leg_id,
                "raised_at": time_text(each.ticket.at),
                "resolved_at": time_text(each.resolved_at) if each.resolved_at else "",
            }
            for each in papers.dossier.tickets
        ],
        "ended": _ending(plan.outcome, tried=tried).value,
    }


def _ending(outcome: PlanOutcome | None, *, tried: bool) -> Ending:
    if outcome is PlanOutcome.MIXED:
        return Ending.SETTLED_OUTSIDE
    if outcome is PlanOutcome.REVERSED:
        return Ending.REVERSED
    return Ending.RELEASED if tried else Ending.NOT_NEEDED


def _decided_document(decided: Decided) -> Document:
    return {
        "escalation_id": decided.escalation_id,
        "verb": decided.verb.value,
        "leg_id": decided.leg_id,
        "actors": list(decided.actors),
        "resolution_sha256": decided.digest.hex(),
        "at": time_text(decided.at),
    }


def _transition_document(each: Transition) -> Document:
    moved = each.moved
    return {
        "transition_no": moved.transition_no,
        "from": moved.left.value if moved.left else "",
        "to": moved.entered.value,
        "decision": moved.decision.value if moved.decision else "",
        "cause": moved.cause.value,
        "at": time_text(each.at),
    }
