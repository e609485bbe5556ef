"""What is said on chain of escalations, as a transaction opens and closes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coordinator import exposure
from coordinator.dossier import Dossier, FiledTicket
from coordinator.model import Effect, Escalate, EventType, Record
from lockstep_kit import escalations
from lockstep_kit.amounts import Amount
from lockstep_kit.canonical import Document
from lockstep_kit.escalations import Said
from lockstep_kit.ids import Digest


def at_risk(dossier: Dossier) -> list[Amount]:
    """What of a plan is at risk as it stands, by asset."""
    return [each.amount for each in exposure.by_asset(exposure.exposures(dossier))]


def opened(dossier: Dossier, filed: FiledTicket) -> Said:
    """What is said of an escalation that was opened, given its plan after that."""
    return escalations.opened(
        dossier.plan_id,
        dossier.plan.digest,
        filed.escalation_id,
        reason=filed.ticket.reason,
        leg_id=filed.ticket.leg_id,
        at_risk=at_risk(dossier),
        at=filed.ticket.at,
    )


def said(dossier: Dossier, new: Sequence[FiledTicket], closed: Mapping[str, Digest]) -> Iterator[Said]:
    """What is said of the escalations of a plan that are new, and of those that were closed, each with the resolution that did."""
    for each in new:
        yield opened(dossier, each)
    for each in dossier.tickets:
        if each.escalation_id in closed and each.resolved_at is not None:
            yield escalations.resolved(
                dossier.plan_id,
                dossier.plan.digest,
                each.escalation_id,
                resolution=closed[each.escalation_id],
                at=each.resolved_at,
            )


def raised(dossier: Dossier, effects: Sequence[Effect], new: Sequence[FiledTicket]) -> dict[int, Document]:
    """What the journal's events hold of the escalations that they raise, by the events' sequences. A ticket comes right after its event, if it has one."""
    found: dict[int, Document] = {}
    filed = iter(new)
    event: Record | None = None
    for each in effects:
        if isinstance(each, Escalate):
            ticket = next(filed)
            if event is not None:
                found[event.sequence] = escalations.escalation_document(ticket.escalation_id, at_risk(dossier))
        event = each if isinstance(each, Record) and each.type is EventType.EXCEPTION_RAISED else None
    return found
