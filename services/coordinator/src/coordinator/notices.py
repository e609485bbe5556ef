"""Notices: what people and other systems are told of a plan without asking. Pure.

A notice says what happened, what to do, and whether somebody must. It is a CloudEvent (CloudEvents 1.0, JSON format) whose id is drawn from what it is
about, so that the same news never becomes two notices, and a receiver can drop what it has seen. It names registered reasons, legs and tickets, and no
participant's or person's own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from coordinator.dossier import FiledTicket
from coordinator.model import Cause, Effect, Moved, Plan, Resolved, State
from lockstep_kit.canonical import Document, canonical, time_text
from lockstep_kit.ids import PlanId, derived
from lockstep_kit.values import dataclass

TYPE_PREFIX: Final = "lockstep.plan."
#: Reason of the notice that another replica goes on with a plan.
TAKEN_OVER: Final = "TAKEN_OVER"


class NoticeKind(StrEnum):
    """What a notice is about."""

    EXECUTION_FAILED = "execution_failed"
    ABORTED = "aborted"
    RECOVERY_IN_PROGRESS = "recovery_in_progress"
    INTERVENTION_REQUIRED = "intervention_required"
    INTERVENTION_RESOLVED = "intervention_resolved"


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice."""

    #: Drawn from what it is about.
    notice_id: str
    #: The plan.
    plan_id: PlanId
    #: What it is about.
    kind: NoticeKind
    #: When it happened.
    at: datetime
    #: UPPER_SNAKE reason of docs/errors.md, or the cause.
    reason: str
    #: Leg that it is about, or "".
    leg_id: str
    #: Where the plan stands.
    state: State
    #: What was decided, or "".
    decision: str
    #: Transitions so far.
    transition_no: int
    #: Ticket that it is about, or "".
    escalation_id: str
    #: One sentence.
    happened: str
    #: One sentence.
    to_do: str
    #: Whether a person must act.
    action_required: bool


_SIGN: Final = (
    "Read the ticket (`lockstep escalations show`), find out what happened outside, and sign a resolution with a second operator."
)
#: What to do about a ticket, where it is not that two operators resolve it.
_TO_DO: Final = {
    "VALIDATION_OVERDUE": "Another validator may compare the evidence and sign; the plan goes on by itself then.",
    "EVIDENCE_LEG_OVERDUE": "See that the notary and the journal are running; the plan closes by itself once they answer.",
    "AUDIT_LOG_OVERDUE": "Make the audit store writable again; the plan closes by itself then.",
    "AUDIT_LOG_CORRUPT": "Keep the file as evidence, find out who changed it, and restore the store from its backup.",
    "JOURNAL_CONFLICT": "Compare the journal's entries of the plan with the coordinator's: one of the two was changed.",
    "PARTICIPANT_SIGNATURE": "Find out who answers in the participant's place, or register its new key.",
    "UNKNOWN_TOO_OLD": "Ask at the participant's outside world what became of the leg; two operators can put evidence in place of its answer.",
}


def notices(
    plan: Plan, effects: Sequence[Effect], raised: Sequence[FiledTicket], closed: Sequence[FiledTicket], now: datetime
) -> tuple[Notice, ...]:
    """What is told of the effects of one transaction, given the plan after them and the tickets that it raised and closed."""
    told = [
        *_moves(plan, effects, now),
        *_retries(plan, effects, now),
        *(_ticket(plan, each, now) for each in raised),
        *(_closing(plan, each, now) for each in closed),
    ]
    return tuple(told)


def taken_over(plan: Plan, now: datetime) -> Notice:
    """Another replica goes on with a plan in flight: told once of each state, however often it happens."""
    return _notice(
        plan,
        NoticeKind.RECOVERY_IN_PROGRESS,
        now,
        f"take-over:{plan.transition_no}",
        reason=TAKEN_OVER,
        happened="The replica that worked on the plan stopped, and another goes on from what is stored.",
        to_do="Nothing. If it goes on happening, look after the coordinator's replicas.",
    )


def _moves(plan: Plan, effects: Sequence[Effect], now: datetime) -> Iterator[Notice]:
    for each in effects:
        if not isinstance(each, Moved):
            continue
        key = f"transition:{each.transition_no}"
        if each.entered is State.PARTIALLY_EXECUTED:
            waits = plan.state is State.PARTIALLY_EXECUTED
            yield _notice(
                plan,
                NoticeKind.EXECUTION_FAILED,
                now,
                key,
                reason=plan.reason or each.cause.value,
                leg_id=plan.reason_leg,
                happened="The plan's legs do not stand alike: some took effect, and one did not, or its evidence is contradicted.",
                to_do=_SIGN if waits else "Nothing yet: the plan is being unwound, as its signers allowed.",
                action_required=waits,
            )
        elif each.entered is State.ABORTED:
            unwound = each.cause is Cause.UNWOUND
            yield _notice(
                plan,
                NoticeKind.ABORTED,
                now,
                key,
                reason=plan.reason or each.cause.value,
                leg_id=plan.reason_leg,
                happened="What had taken effect was reversed; the plan has failed."
                if unwound
                else "The plan will not be settled; everything that is held for it is being released.",
                to_do="Nothing. What is still wanted is asked for with a new plan.",
            )
        elif each.cause in (Cause.REDRIVEN, Cause.UNWIND_ORDERED):
            driven = each.cause is Cause.REDRIVEN
            yield _notice(
                plan,
                NoticeKind.RECOVERY_IN_PROGRESS,
                now,
                key,
                reason=each.cause.value,
                happened="The plan's open legs are being executed again."
                if driven
                else "What took effect is being reversed, the rest released.",
                to_do="Nothing. A ticket is raised if it fails.",
            )


def _retries(plan: Plan, effects: Sequence[Effect], now: datetime) -> Iterator[Notice]:
    """Two operators had everything that waits sent again, where that is no transition."""
    if any(isinstance(each, Moved) for each in effects):
        return
    for each in effects:
        if isinstance(each, Resolved) and each.hastens and each.mandate is not None:
            yield _notice(
                plan,
                NoticeKind.RECOVERY_IN_PROGRESS,
                now,
                f"retry:{each.mandate.resolution.digest.hex()}",
                reason=each.mandate.resolution.verb.value,
                leg_id=each.mandate.resolution.leg_id,
                happened="Two operators had everything sent again that is not answered.",
                to_do="Nothing. The tickets stay open until their matter is over.",
            )


def _ticket(plan: Plan, filed: FiledTicket, now: datetime) -> Notice:
    return _notice(
        plan,
        NoticeKind.INTERVENTION_REQUIRED,
        now,
        f"raised:{filed.escalation_id}",
        reason=filed.ticket.reason,
        leg_id=filed.ticket.leg_id,
        escalation_id=filed.escalation_id,
        happened="A ticket was raised that only people can close.",
        to_do=_TO_DO.get(filed.ticket.reason, _SIGN),
        action_required=True,
    )


def _closing(plan: Plan, filed: FiledTicket, now: datetime) -> Notice:
    return _notice(
        plan,
        NoticeKind.INTERVENTION_RESOLVED,
        now,
        f"closed:{filed.escalation_id}",
        reason=filed.ticket.reason,
        leg_id=filed.ticket.leg_id,
        escalation_id=filed.escalation_id,
        happened="Two operators closed the ticket: its matter is over.",
        to_do="Nothing.",
    )


def _notice(
    plan: Plan,
    kind: NoticeKind,
    now: datetime,
    key: str,
    *,
    reason: str,
    happened: str,
    to_do: str,
    leg_id: str = "",
    escalation_id: str = "",
    action_required: bool = False,
) -> Notice:
    return Notice(
        notice_id=derived("notice", plan.plan_id, key),
        plan_id=plan.plan_id,
        kind=kind,
        at=now,
        reason=reason,
        leg_id=leg_id,
        state=plan.state,
        decision=plan.decision.value if plan.decision else "",
        transition_no=plan.transition_no,
        escalation_id=escalation_id,
        happened=happened,
        to_do=to_do,
        action_required=action_required,
    )


def cloud_event(notice: Notice, source: str, traceparent: str | None) -> bytes:
    """The notice as a CloudEvent in structured mode; the same notice gives the same bytes."""
    document: dict[str, Document] = {
        "specversion": "1.0",
        "id": notice.notice_id,
        "source": source,
        "type": f"{TYPE_PREFIX}{notice.kind}",
        "subject": notice.plan_id,
        "time": time_text(notice.at),
        "datacontenttype": "application/json",
        "data": {
            "plan_id": notice.plan_id,
            "state": notice.state.value,
            "decision": notice.decision,
            "transition_no": notice.transition_no,
            "reason": notice.reason,
            "leg_id": notice.leg_id,
            "escalation_id": notice.escalation_id,
            "what_happened": notice.happened,
            "what_to_do": notice.to_do,
            "action_required": notice.action_required,
        },
    }
    if traceparent is not None:
        document["traceparent"] = traceparent
    return canonical(document)
