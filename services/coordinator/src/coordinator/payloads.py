"""What the journal is told of an event: a canonical document without secrets or personal data, bound to the plan by its digest. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier
from coordinator.model import EventType, GateRecord, LegState, Mandate, Record
from lockstep_kit.canonical import Document, canonical, time_text
from lockstep_kit.ids import sha256
from lockstep_kit.statements import Gate, Refusal, SignedOutcome, SignedVote, refusal_document

COORDINATOR: Final = "coordinator"

#: In which role somebody acted who signed a gate.
_ROLES: Final = {
    Gate.MAKE: "maker",
    Gate.APPROVE: "approver",
    Gate.RELEASE: "releaser",
    Gate.VALIDATE: "validator",
    Gate.CANCEL: "canceller",
}
#: Events that a participant's answer about a leg is recorded by.
_LEG_EVENTS: Final = (EventType.LEG_PREPARED, EventType.LEG_REFUSED, EventType.LEG_EXECUTED, EventType.LEG_REVERSED)


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """An event for the plan's chain."""

    #: Place in the chain.
    sequence: int
    #: What kind.
    type: EventType
    #: Who acted: a person, a participant, or the coordinator.
    actor: str
    #: In which role.
    actor_role: str
    #: RFC 8785 bytes.
    payload: bytes


def journal_event(dossier: Dossier, record: Record) -> JournalEvent:
    """The event that a record of the protocol becomes, given the plan as it is after the step."""
    actor, role = _actor(dossier, record)
    return JournalEvent(record.sequence, record.type, actor, role, canonical(_document(dossier, record)))


def _actor(dossier: Dossier, record: Record) -> tuple[str, str]:
    if record.gate is not None:
        return record.gate.actor, _ROLES[record.gate.signed.statement.gate]
    if record.mandate is not None:
        # The one whose signature made it take effect; the document names both.
        return record.mandate.actors[1], "operator"
    file = dossier.file(record.leg_id)
    if record.type in _LEG_EVENTS and file is not None:
        return file.participant, "participant"
    return COORDINATOR, "coordinator"


def _document(dossier: Dossier, record: Record) -> dict[str, Document]:
    plan = dossier.plan
    document: dict[str, Document] = {"plan_digest": plan.digest.hex()}
    if record.moved is not None:
        document["transition"] = {
            "transition_no": record.moved.transition_no,
            "from": record.moved.left.value if record.moved.left else "",
            "to": record.moved.entered.value,
            "decision": record.moved.decision.value if record.moved.decision else "",
            "cause": record.moved.cause.value,
        }
    if record.leg_id:
        document["leg"] = _leg_document(dossier, record)
    if record.gate is not None:
        document["gate"] = _gate_document(record.gate)
    if record.mandate is not None:
        document["resolution"] = _mandate_document(record.mandate)
    if record.reason:
        document["reason"] = {"reason": record.reason, "detail": record.detail}
    if record.type is EventType.PLAN_RELEASED:
        document["decision"] = _decision_document(dossier)
    if record.type in (EventType.PLAN_COMMITTED, EventType.EVIDENCE_VALIDATED):
        document["evidence_digest"] = facts.evidence(plan).hex()
    return document


def _decision_document(dossier: Dossier) -> Document:
    """All that is needed to find the decision again should the coordinator's own database be lost."""
    plan = dossier.plan
    gates = [_gate_document(each) for each in plan.gates if each.signed.statement.gate in (Gate.MAKE, Gate.APPROVE, Gate.RELEASE)]
    votes = facts.votes(plan)
    return {
        "delegate": plan.delegate,
        "decided_at": time_text(plan.decided_at) if plan.decided_at else "",
        "votes_digest": votes.hex() if votes else "",
        "gates": gates,
    }


def _leg_document(dossier: Dossier, record: Record) -> Document:
    return leg_document(facts.leg(dossier.plan, record.leg_id))


def leg_document(leg: LegState) -> dict[str, Document]:
    """A leg with everything that its participant has signed about it."""
    document: dict[str, Document] = {"leg_id": leg.leg_id, "kind": leg.kind.value}
    if leg.vote is not None:
        document["vote"] = vote_document(leg.vote)
    if leg.outcome is not None:
        document["outcome"] = outcome_document(leg.outcome)
    if leg.reversal is not None:
        document["reversal"] = outcome_document(leg.reversal)
    return document


def vote_document(signed: SignedVote) -> Document:
    """A participant's vote, by the hash of what it signed and its signature."""
    document: dict[str, Document] = {
        "statement_sha256": sha256(signed.vote.signed_bytes()).hex(),
        "key_id": signed.signature.key_id,
        "signature": signed.signature.octets.hex(),
        "vote": "YES" if signed.vote.promise is not None else "NO",
    }
    if isinstance(signed.vote.answer, Refusal):
        document["refusal"] = refusal_document(signed.vote.answer)
    return document


def outcome_document(signed: SignedOutcome) -> Document:
    """A participant's outcome, by the hash of what it signed and its signature."""
    document: dict[str, Document] = {
        "statement_sha256": sha256(signed.outcome.signed_bytes()).hex(),
        "key_id": signed.signature.key_id,
        "signature": signed.signature.octets.hex(),
        "kind": signed.outcome.kind.value,
    }
    if signed.outcome.refusal is not None:
        document["refusal"] = refusal_document(signed.outcome.refusal)
    return document


def _mandate_document(mandate: Mandate) -> Document:
    signatures: list[Document] = [
        {
            "actor": actor,
            "nonce": signed.statement.nonce.hex(),
            "expires_at": time_text(signed.statement.expires_at),
            "key_id": signed.signature.key_id,
            "signature": signed.signature.octets.hex(),
        }
        for actor, signed in zip(mandate.actors, mandate.signatures, strict=True)
    ]
    return {"resolution": mandate.resolution.document(), "digest": mandate.resolution.digest.hex(), "signatures": signatures}


def _gate_document(record: GateRecord) -> Document:
    statement = record.signed.statement
    document: dict[str, Document] = {
        "gate": statement.gate.value,
        "verdict": statement.verdict.value,
        "actor": record.actor,
        "nonce": statement.nonce.hex(),
        "expires_at": time_text(statement.expires_at),
        "key_id": record.signed.signature.key_id,
        "signature": record.signed.signature.octets.hex(),
    }
    if statement.votes_digest is not None:
        document["votes_digest"] = statement.votes_digest.hex()
    if statement.evidence_digest is not None:
        document["evidence_digest"] = statement.evidence_digest.hex()
    return document
