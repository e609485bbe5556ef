"""What the operators' commands print for programs: plain JSON documents of messages."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.type.v1 import amount_pb2, certificate_pb2, resolution_pb2
from lockstep_client.convert import state_name
from lockstep_client.documents import (
    Document,
    escalation_document,
    evidence_document,
    name_of,
    plan_document,
    present,
    time_text,
)
from lockstep_client.escalation_record import RecordView
from lockstep_client.evidence import Finding
from lockstep_kit.convert import amount_from_pb


def verb_name(verb: int) -> str:
    """RETRY, REVERSE, RESOLVE or FORGET."""
    return name_of(resolution_pb2.Verb, verb, "VERB_")


def doubt_name(kind: int) -> str:
    """Why a leg's amount is at risk."""
    return name_of(messages.DoubtKind, kind, "DOUBT_KIND_")


def seconds(age: Duration) -> float:
    """An age."""
    return age.ToTimedelta().total_seconds()


def amount_document(message: amount_pb2.Amount) -> Document:
    """An amount: for people, and exactly."""
    amount = amount_from_pb(message)
    return {"asset": amount.asset, "amount": amount.text(), "minor_units": message.minor_units, "scale": amount.scale}


def file_document(file: messages.EscalationFile) -> Document:
    """An escalation with what is at risk, what may be done, and who signed what."""
    return escalation_document(file.escalation) | present(
        {
            "plan_id": file.plan_id,
            "plan_digest": file.plan_digest.hex(),
            "state": state_name(file.state),
            "decision": name_of(certificate_pb2.Decision, file.decision, "DECISION_"),
            "age_seconds": seconds(file.age),
            "at_risk": [amount_document(each) for each in file.at_risk],
            "options": [present({"verb": verb_name(each.verb), "leg_id": each.leg_id}) for each in file.options],
            "resolutions": [resolution_document(each) for each in file.resolutions],
            "who": list(file.who),
        }
    )


def resolution_document(record: messages.ResolutionRecord) -> Document:
    """A resolution, and who signed it."""
    told = record.resolution
    return (
        present(
            {
                "verb": verb_name(told.verb),
                "leg_id": told.leg_id,
                "detail": told.detail,
                "evidence": evidence_document(told.evidence) if told.HasField("evidence") else None,
                "digest": record.digest.hex(),
                "signatures": [
                    {
                        "actor_id": each.actor_id,
                        "key_id": each.signature.signature.key_id,
                        "sign_time": time_text(each.sign_time),
                        "expire_time": time_text(each.signature.expire_time),
                    }
                    for each in record.signatures
                ],
                "effect_time": time_text(record.effect_time) if record.HasField("effect_time") else "",
            }
        )
        | ({"executed": told.executed} if told.HasField("executed") else {})
        | {"missing": record.missing_count}
    )


def escalation_file_document(answer: messages.GetEscalationResponse) -> Document:
    """An escalation, its plan, and what is at risk leg by leg."""
    return file_document(answer.escalation) | {
        "legs": [doubt_document(each) for each in answer.legs],
        "plan": plan_document(answer.plan),
    }


def record_document(views: Sequence[RecordView], findings: Sequence[Finding]) -> Document:
    """What stands on chain of an escalation, and what does not hold."""
    return {
        "records": [
            {"kind": each.kind.value, "sha256": each.document_hash.hex(), "stands": each.stands.value}
            | ({"block_number": each.block_number} if each.block_number else {})
            for each in views
        ],
        "record_findings": [{"rule": each.rule, "message": each.message} for each in findings],
    }


def total_document(total: messages.AssetAtRisk) -> Document:
    """What is at risk of one asset."""
    return amount_document(total.amount) | {"legs": total.leg_count, "oldest_age_seconds": seconds(total.oldest_age)}


def doubt_document(leg: messages.InDoubtLeg) -> Document:
    """A leg whose amount is at risk."""
    return {
        "plan_id": leg.plan_id,
        "state": state_name(leg.state),
        "leg_id": leg.leg_id,
        "participant": leg.participant,
        **amount_document(leg.amount),
        "doubt": doubt_name(leg.kind),
        "since": time_text(leg.since_time),
        "age_seconds": seconds(leg.age),
        "escalation_ids": list(leg.escalation_ids),
    }


def letter_document(letter: messages.DeadLetter) -> Document:
    """A dead letter."""
    return present(
        {
            "dead_letter_id": letter.dead_letter_id,
            "plan_id": letter.plan_id,
            "leg_id": letter.leg_id,
            "command": letter.command,
            "participant": letter.participant,
            "reason": letter.reason,
            "detail": letter.detail,
            "attempts": letter.attempt_count,
            "dead_time": time_text(letter.dead_time),
            "replay_time": time_text(letter.replay_time) if letter.HasField("replay_time") else "",
            "replayed_by": letter.replayed_by,
        }
    )
