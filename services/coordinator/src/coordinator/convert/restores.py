"""What participants and the journal answer after a restore, as `restoring` and `orphans` take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coordinator.convert.participant import report_from_pb
from coordinator.model import EventType, GateRecord
from coordinator.reports import LegReport
from coordinator.restoring import Heard, PayloadsErased, Written
from lockstep.journal.v1 import entry_pb2
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.canonical import time_from_text
from lockstep_kit.certificate import Binding
from lockstep_kit.convert import binding_from_pb, certificate_from_pb, time_from_pb
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.foreign_json import read_json
from lockstep_kit.ids import ActorId, Digest, KeyId
from lockstep_kit.signing import Signature
from lockstep_kit.statements import Gate, GateSignature, GateStatement, Verdict
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Everything:
    """All that a participant knows of a leg."""

    #: What it reports.
    report: LegReport
    #: The leg, bound to its plan.
    binding: Binding
    #: What told it to execute, with the report.
    heard: Heard


def everything_from_pb(message: messages.GetLegResponse) -> Everything | None:
    """A participant's answer; None where it does not know the leg.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    if not message.HasField("report"):
        return None
    certificate = certificate_from_pb(message.certificate) if message.HasField("certificate") else None
    report = report_from_pb(message.report)
    return Everything(report, binding_from_pb(message.binding), Heard(report, certificate))


def written_from_pb(message: entry_pb2.Entry) -> Written:
    """An entry of a plan's chain, its payload held against its hash.

    Raises:
        FieldInvalid: it is no entry of this protocol.
        PayloadsErased: its payload was erased.
    """
    if message.erased:
        raise PayloadsErased
    require(ids.sha256(message.payload) == message.payload_hash, "payload", "must have the hash that the entry names")
    try:
        document = read_json(message.payload)
        event_type = EventType(message.type)
        at = time_from_pb(message.event_time, "event_time")
        gates = tuple(_gates(document, at))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FieldInvalid("payload", f"must be an event of this protocol: {type(error).__name__}") from error
    return Written(message.sequence, event_type, message.actor, message.actor_role, at, message.payload, document, gates)


def _gates(document: Mapping[str, Any], at: Any) -> Iterator[GateRecord]:
    """The gates' signatures that an event carries; the maker's stands in the database already."""
    told = [document["gate"]] if "gate" in document else []
    told.extend(document.get("further_gates", ()))
    told.extend(document.get("decision", {}).get("gates", ()))
    for each in told:
        if each["gate"] == Gate.MAKE.value:
            continue
        statement = GateStatement(
            gate=Gate(each["gate"]),
            verdict=Verdict(each["verdict"]),
            plan_digest=Digest(bytes.fromhex(document["plan_digest"])),
            nonce=bytes.fromhex(each["nonce"]),
            expires_at=time_from_text(each["expires_at"]),
            votes_digest=_digest(each, "votes_digest"),
            evidence_digest=_digest(each, "evidence_digest"),
        )
        signature = Signature(KeyId(each["key_id"]), bytes.fromhex(each["signature"]))
        yield GateRecord(GateSignature(statement, signature), ActorId(each["actor"]), at)


def _digest(document: Mapping[str, Any], name: str) -> Digest | None:
    return Digest(bytes.fromhex(document[name])) if name in document else None
