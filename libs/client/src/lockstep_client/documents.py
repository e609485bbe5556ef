"""What the command prints for programs: plain JSON documents of messages. Hashes and signatures in hex, times in RFC 3339, enums without their prefix."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.journal.v1.entry_pb2 import Entry
from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import certificate_pb2, outcome_pb2, plan_pb2, resolution_pb2, signature_pb2
from lockstep_client.convert import state_name
from lockstep_kit.convert import amount_from_pb

Document = dict[str, Any]


def name_of(enum: Any, number: int, prefix: str) -> str:
    """A value's name without its prefix; "" for the unspecified one."""
    if number not in enum.values():
        return str(number)
    name = str(enum.Name(number)).removeprefix(prefix)
    return "" if name == "UNSPECIFIED" else name


def decision_name(plan: settlement.Plan | settlement.Transition) -> str:
    """COMMIT, ABORT, DELEGATED, or ""."""
    return name_of(certificate_pb2.Decision, plan.decision, "DECISION_")


def outcome_name(plan: settlement.Plan) -> str:
    """COMMITTED, ABORTED, REVERSED, MIXED, or ""."""
    return name_of(leg_pb2.PlanOutcome, plan.outcome, "PLAN_OUTCOME_")


def phase_name(leg: settlement.PlanLeg) -> str:
    """A leg's phase, or ""."""
    return name_of(leg_pb2.LegPhase, leg.phase, "LEG_PHASE_")


def gate_name(gate: int) -> str:
    """A gate's name."""
    return name_of(signature_pb2.Gate, gate, "GATE_")


def time_text(message: Timestamp) -> str:
    """RFC 3339 in UTC with microseconds."""
    return message.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plan_document(plan: settlement.Plan) -> Document:
    """A plan as it stands."""
    return present(
        {
            "plan_id": plan.header.plan_id,
            "reference": plan.header.reference,
            "state": state_name(plan.state),
            "decision": decision_name(plan),
            "delegated_leg_id": plan.delegated_leg_id,
            "outcome": outcome_name(plan),
            "reason": plan.reason,
            "reason_leg_id": plan.reason_leg_id,
            "reason_detail": plan.reason_detail,
            "deadline": time_text(plan.header.deadline),
            "plan_digest": plan.plan_digest.hex(),
            "votes_digest": plan.votes_digest.hex(),
            "evidence_digest": plan.evidence_digest.hex(),
            "transition_no": plan.transition_no,
            "journal_sequence": plan.journal_sequence,
            "create_time": time_text(plan.create_time) if plan.HasField("create_time") else "",
            "update_time": time_text(plan.update_time) if plan.HasField("update_time") else "",
            "decide_time": time_text(plan.decide_time) if plan.HasField("decide_time") else "",
            "etag": plan.etag,
            "trace_id": plan.trace_id,
        }
    ) | {
        "legs": [leg_document(leg) for leg in plan.legs],
        "gates": [gate_document(gate) for gate in plan.gates],
        "waiting": [waiting_document(waiting) for waiting in plan.waiting],
        "escalations": [escalation_document(escalation) for escalation in plan.escalations],
    }


def leg_document(leg: settlement.PlanLeg) -> Document:
    """A leg as it stands."""
    kind = leg.leg.WhichOneof("terms") or ""
    document: Document = {
        "leg_id": leg.leg.leg_id,
        "kind": kind,
        "participant": leg.participant,
        "phase": phase_name(leg),
        "lock": leg.lock.hex(),
        "trouble": leg.trouble,
    } | _terms_document(leg.leg)
    if leg.HasField("vote"):
        document["vote"] = _vote_document(leg.vote)
    if leg.HasField("outcome"):
        document["outcome"] = _outcome_document(leg.outcome)
    if leg.HasField("reversal"):
        document["reversal"] = _outcome_document(leg.reversal)
    if leg.HasField("operators_executed"):
        document["operators"] = {"executed": leg.operators_executed, "evidence": evidence_document(leg.operators_evidence)}
    return present(document)


def _terms_document(leg: plan_pb2.Leg) -> Document:
    match leg.WhichOneof("terms"):
        case "token_transfer":
            token = leg.token_transfer
            return {
                "amount": amount_from_pb(token.amount).text(),
                "asset": token.amount.asset,
                "from": token.payer,
                "to": token.payee,
            }
        case "credit_transfer":
            credit = leg.credit_transfer
            amount = amount_from_pb(credit.amount).text()
            return {"amount": amount, "asset": credit.amount.asset, "from": credit.debtor.iban, "to": credit.creditor.iban}
        case "issue_instrument":
            instrument = leg.issue_instrument
            amount = amount_from_pb(instrument.amount).text()
            parties = {"from": instrument.applicant.party_id, "to": instrument.beneficiary.party_id}
            return {"amount": amount, "asset": instrument.amount.asset, **parties, "expiry_date": instrument.expiry_date}
        case _:
            return {}


def _vote_document(vote: outcome_pb2.SignedVote) -> Document:
    if vote.WhichOneof("vote") == "refusal":
        return {"answer": "NO"} | _refusal_document(vote.refusal)
    promise = vote.promise
    return {"answer": "YES", "promise": name_of(outcome_pb2.PromiseKind, promise.kind, "PROMISE_KIND_")} | present(
        {
            "expire_time": time_text(promise.expire_time) if promise.HasField("expire_time") else "",
            "evidence": evidence_document(promise.evidence) if promise.HasField("evidence") else None,
        }
    )


def _outcome_document(outcome: outcome_pb2.SignedOutcome) -> Document:
    document: Document = {
        "kind": name_of(outcome_pb2.OutcomeKind, outcome.kind, "OUTCOME_KIND_"),
        "outcome_time": time_text(outcome.outcome_time),
    }
    if outcome.HasField("evidence"):
        document["evidence"] = evidence_document(outcome.evidence)
    if outcome.HasField("refusal"):
        document |= _refusal_document(outcome.refusal)
    return document


def _refusal_document(refusal: outcome_pb2.Refusal) -> Document:
    return present({"reason": refusal.reason, "outside_code": refusal.outside_code, "detail": refusal.detail})


def evidence_document(evidence: outcome_pb2.Evidence) -> Document:
    """Evidence, by its fields' names."""
    kind = evidence.WhichOneof("evidence")
    if kind is None:
        return {}
    return {"kind": kind} | _fields(getattr(evidence, kind))


def _fields(message: Message) -> Document:
    """What is present in a message, by its fields' names; zero counts stay."""
    document: Document = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if isinstance(value, Message):
            document[field.name] = _fields(value) if message.HasField(field.name) else None
        else:
            document[field.name] = value.hex() if isinstance(value, bytes) else value
    return present(document)


def gate_document(gate: settlement.GateRecord) -> Document:
    """A gate that was signed."""
    return {
        "gate": gate_name(gate.signature.gate),
        "verdict": name_of(signature_pb2.Verdict, gate.signature.verdict, "VERDICT_"),
        "actor_id": gate.actor_id,
        "key_id": gate.signature.signature.key_id,
        "sign_time": time_text(gate.sign_time),
    }


def waiting_document(waiting: settlement.Waiting) -> Document:
    """Something that the plan waits for."""
    return present(
        {
            "kind": name_of(settlement.WaitingKind, waiting.kind, "WAITING_KIND_"),
            "gate": gate_name(waiting.gate),
            "leg_id": waiting.leg_id,
            "who": list(waiting.who),
            "signatures_missing": waiting.signatures_missing or None,
            "until": time_text(waiting.until) if waiting.HasField("until") else "",
        }
    )


def escalation_document(escalation: settlement.Escalation) -> Document:
    """A ticket."""
    return present(
        {
            "escalation_id": escalation.escalation_id,
            "reason": escalation.reason,
            "leg_id": escalation.leg_id,
            "detail": escalation.detail,
            "raise_time": time_text(escalation.raise_time),
            "resolve_time": time_text(escalation.resolve_time) if escalation.HasField("resolve_time") else "",
        }
    )


def transition_document(transition: settlement.Transition) -> Document:
    """A transition."""
    return present(
        {
            "transition_no": transition.transition_no,
            "from_state": state_name(transition.from_state) if transition.from_state else "",
            "to_state": state_name(transition.to_state),
            "decision": decision_name(transition),
            "cause": transition.cause,
            "transition_time": time_text(transition.transition_time),
            "journal_sequence": transition.journal_sequence,
        }
    )


def event_document(event: settlement.PlanEvent) -> Document:
    """A change that a watcher sees."""
    document: Document = {"plan_id": event.plan_id, "sequence": event.sequence, "event_time": time_text(event.event_time)}
    match event.WhichOneof("event"):
        case "transition":
            document["transition"] = transition_document(event.transition)
        case "leg":
            document["leg"] = leg_document(event.leg)
        case "gate":
            document["gate"] = gate_document(event.gate)
        case "escalation":
            document["escalation"] = escalation_document(event.escalation)
        case "resolution":
            told = event.resolution.resolution
            document["resolution"] = present(
                {
                    "verb": name_of(resolution_pb2.Verb, told.verb, "VERB_"),
                    "leg_id": told.leg_id,
                    "detail": told.detail,
                    "escalation_id": told.escalation_id,
                    "actor_ids": list(event.resolution.actor_ids),
                }
            )
        case "notice":
            document["notice"] = notice_document(event.notice)
        case None:
            pass
    return document


def notice_document(notice: settlement.Notice) -> Document:
    """What people and other systems are told of a plan."""
    return present(
        {
            "notice_id": notice.notice_id,
            "kind": name_of(settlement.NoticeKind, notice.kind, "NOTICE_KIND_"),
            "reason": notice.reason,
            "leg_id": notice.leg_id,
            "state": state_name(notice.state),
            "escalation_id": notice.escalation_id,
            "what_happened": notice.what_happened,
            "what_to_do": notice.what_to_do,
        }
    ) | {"action_required": notice.action_required}


def entry_document(entry: Entry) -> Document:
    """An entry of the journal."""
    return {
        "sequence": entry.sequence,
        "type": entry.type,
        "actor": entry.actor,
        "actor_role": entry.actor_role,
        "event_time": time_text(entry.event_time),
        "entry_hash": entry.entry_hash.hex(),
        **({"erased": True} if entry.erased else {}),
    }


def present(document: Document) -> Document:
    """Without fields that are absent; zero counts stay."""
    return {name: value for name, value in document.items() if value not in ("", None, {}, [])}
