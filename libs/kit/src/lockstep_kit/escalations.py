"""What is recorded on chain of an escalation: the canonical documents of its opening and of its resolution, and their hashes. Pure.

The chain holds the hashes alone. Whoever may read the plan's chain in the journal makes the documents again from its entries (`said_in`), and finds out
whether what the operators were shown is what was recorded, and since when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from lockstep_kit.amounts import Amount, amount_of
from lockstep_kit.canonical import Document, canonical, time_text
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.plan import amount_document
from lockstep_kit.resolutions import Verb
from lockstep_kit.values import dataclass

#: Version of every document that is made.
VERSION: Final = 1


class EscalationKind(StrEnum):
    """What is said of an escalation; each once."""

    OPENED = "OPENED"
    RESOLVED = "RESOLVED"


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that is said of an escalation."""

    #: Plan that it is about.
    plan_id: PlanId
    #: SHA-256 of the plan's canonical bytes.
    plan_digest: Digest
    #: The escalation.
    escalation_id: str
    #: OPENED or RESOLVED.
    kind: EscalationKind
    #: RFC 8785 bytes of the document.
    document: bytes

    @property
    def digest(self) -> Digest:
        """SHA-256 of the document: what stands on chain."""
        return sha256(self.document)


def escalation_hash(escalation_id: str) -> Digest:
    """What names an escalation on chain: SHA-256 of its id."""
    return sha256(escalation_id.encode("utf-8"))


def opened(
    plan_id: PlanId,
    plan_digest: Digest,
    escalation_id: str,
    *,
    reason: str,
    leg_id: str,
    at_risk: Sequence[Amount],
    at: datetime,
) -> Said:
    """That an escalation was opened: why, about which leg ("" for none), with what at risk in the plan by asset, and when."""
    return _said(
        plan_id,
        plan_digest,
        escalation_id,
        EscalationKind.OPENED,
        {"reason": reason, "leg_id": leg_id, "at_risk": at_risk_document(at_risk), "opened_at": time_text(at)},
    )


def resolved(plan_id: PlanId, plan_digest: Digest, escalation_id: str, *, resolution: Digest, at: datetime) -> Said:
    """That two operators closed an escalation: by which resolution, and when."""
    return _said(
        plan_id,
        plan_digest,
        escalation_id,
        EscalationKind.RESOLVED,
        {"resolution": resolution.hex(), "resolved_at": time_text(at)},
    )


def said_in(event_type: str, plan_id: PlanId, at: datetime, payload: Mapping[str, Any]) -> Said | None:
    """What a journal entry of this type, plan and event time says of an escalation; None where it neither opens nor closes one.

    `payload` is one that `check_payload` takes.
    """
    if event_type == "exception.raised" and "escalation" in payload:
        told, leg = payload["escalation"], payload.get("leg")
        return opened(
            plan_id,
            Digest(bytes.fromhex(payload["plan_digest"])),
            told["escalation_id"],
            reason=payload["reason"]["reason"],
            leg_id=leg["leg_id"] if leg is not None else "",
            at_risk=[amount_of(each["asset"], each["minor_units"], each["scale"]) for each in told["at_risk"]],
            at=at,
        )
    if event_type == "exception.resolved" and "resolution" in payload:
        told = payload["resolution"]
        if told["resolution"]["verb"] == Verb.FORGET:
            digest = Digest(bytes.fromhex(told["digest"]))
            plan_digest = Digest(bytes.fromhex(payload["plan_digest"]))
            return resolved(plan_id, plan_digest, told["resolution"]["escalation_id"], resolution=digest, at=at)
    return None


def escalation_document(escalation_id: str, at_risk: Sequence[Amount]) -> Document:
    """What the payload of the journal's event holds of an escalation, beside what every such event holds."""
    return {"escalation_id": escalation_id, "at_risk": at_risk_document(at_risk)}


def at_risk_document(amounts: Sequence[Amount]) -> list[Document]:
    """Amounts by asset, in the order of the assets' names."""
    return [amount_document(each) for each in sorted(amounts, key=lambda each: each.asset)]


def _said(plan_id: PlanId, plan_digest: Digest, escalation_id: str, kind: EscalationKind, told: Mapping[str, Document]) -> Said:
    document: dict[str, Document] = {
        "version": VERSION,
        "kind": kind.value,
        "plan_id": plan_id,
        "plan_digest": plan_digest.hex(),
        "escalation_id": escalation_id,
        **told,
    }
    return Said(plan_id, plan_digest, escalation_id, kind, canonical(document))
