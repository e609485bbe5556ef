"""What the journal is told of an event: a canonical document without secrets or personal data, bound to the plan by its digest. Pure."""

from __future__ import annotations

from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier
from coordinator.model import EventType, GateRecord, LegState, Mandate, Plan, Record
from lockstep_kit.canonical import Document, canonical, time_text
from lockstep_kit.ids import sha256
from lockstep_kit.journal_payloads import VERSION
from lockstep_kit.statements import Gate, Refusal, SignedOutcome, SignedVote, refusal_document
from lockstep_kit.values import dataclass

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


def journal_event(dossier: Dossier, record: Record, escalation: Document | None = None) -> JournalEvent:
    """The event that a record of the protocol becomes, given the plan as it is after the step, and what is told of the escalation that it raises."""
    actor, role = _actor(dossier, record)
    document = _document(dossier, record)
    if escalation is not None:
        document["escalation"] = escalation
    return JournalEvent(record.sequence, record.type, actor, role, canonical(document))


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
    document: dict[str, Document] = {"version": VERSION, "plan_digest": plan.digest.hex()}
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
    further = _further_gates(plan, record)
    if further:
        document["further_gates"] = [_gate_document(each) for each in further]
    if record.mandate is not None:
        document["resolution"] = _mandate_document(record.mandate)
    if record.reason:
        document["reason"] = {"reason": record.reason, "detail": record.detail}
    if record.type is EventType.PLAN_RELEASED:
        document["decision"] = _decision_document(dossier)
    if record.type in (EventType.PLAN_COMMITTED, EventType.EVIDENCE_VALIDATED):
        document["evidence_digest"] = facts.evidence(plan).hex()
    return document


def _further_gates(plan: Plan, record: Record) -> tuple[GateRecord, ...]:
    """What else persons have signed: a gate's other signatures, those that ran out included, and of a plan that is stopped those that opened none."""
    told: tuple[GateRecord | None, ...] = (record.gate,)
    match record.type:
        case EventType.PLAN_APPROVED:
            gates: tuple[Gate, ...] = (Gate.APPROVE,)
        case EventType.PLAN_RELEASED:
            gates, told = (Gate.APPROVE, Gate.RELEASE), (record.gate, *_decisive(plan))
        case EventType.PLAN_ABORTED if record.moved is not None and record.moved.left in facts.UNDECIDED:
            gates = (Gate.APPROVE, Gate.RELEASE, Gate.CANCEL)
        case _:
            return ()
    return tuple(each for each in plan.gates if each.signed.statement.gate in gates and each not in told)


def _decisive(plan: Plan) -> tuple[GateRecord, ...]:
    """The signatures that the decision rests on."""
    at = plan.decided_at
    made = tuple(each for each in plan.gates if each.signed.statement.gate is Gate.MAKE)
    return () if at is None else (*made, *facts.standing(plan, Gate.APPROVE, at), *facts.standing(plan, Gate.RELEASE, at))


def _decision_document(dossier: Dossier) -> Document:
    """All that is needed to find the decision again should the coordinator's own database be lost."""
    plan = dossier.plan
    gates = [_gate_document(each) for each in _decisive(plan)]
    votes = facts.votes(plan)
    return {
        "delegate": plan.delegate,
        "decided_at": time_text(plan.decided_at) if plan.decided_at else "",
        "votes_digest": votes.hex() if votes else "",
        "gates": gates,
        "legs": [leg.leg_id for leg in plan.legs],
    }


def _leg_document(dossier: Dossier, record: Record) -> Document:
    # With the statements themselves, whoever reads the journal alone can tell who signed them, and what they were told.
    return leg_document(facts.leg(dossier.plan, record.leg_id), statements=True)


def leg_document(leg: LegState, *, statements: bool = False) -> dict[str, Document]:
    """A leg with everything that its participant has signed about it; with `statements`, also the signed bytes themselves."""
    document: dict[str, Document] = {"leg_id": leg.leg_id, "kind": leg.kind.value}
    if leg.vote is not None:
        document["vote"] = vote_document(leg.vote) | (_statement(leg.vote.vote.signed_bytes()) if statements else {})
    if leg.outcome is not None:
        document["outcome"] = outcome_document(leg.outcome) | (_statement(leg.outcome.outcome.signed_bytes()) if statements else {})
    if leg.reversal is not None:
        document["reversal"] = outcome_document(leg.reversal) | (
            _statement(leg.reversal.outcome.signed_bytes()) if statements else {}
        )
    return document


def _statement(octets: bytes) -> dict[str, Document]:
    return {"statement": octets.decode()}


def vote_document(signed: SignedVote) -> dict[str, Document]:
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


def outcome_document(signed: SignedOutcome) -> dict[str, Document]:
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
