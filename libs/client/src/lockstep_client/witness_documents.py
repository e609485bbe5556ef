"""How the notary stands to the journal's log, as `lockstep witness status` shows it. Pure.

The notary's word that it has cosigned is not taken: the signatures on its note are checked here, with the client's own registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from lockstep.notary.v1 import anchor_pb2, notary_service_pb2
from lockstep_client.documents import Document, present, time_text
from lockstep_kit.notes import NoteInvalid, SignedCheckpoint, parse
from lockstep_kit.registry import RegisteredKey, Registry

JOURNAL: Final = "event-journal"
NOTARY: Final = "notary"


def status_document(status: notary_service_pb2.GetWitnessStatusResponse, registry: Registry, now: datetime) -> Document:
    """What was witnessed last and how long ago, the alarm, and every alarm that a person has looked at."""
    return present(
        {
            "last": _checkpoint(status.last, registry, now) if status.HasField("last") else None,
            "looked_at": time_text(status.looked_at) if status.HasField("looked_at") else None,
            "looked_age_seconds": _age(status.looked_at.ToDatetime(UTC), now) if status.HasField("looked_at") else None,
            "alarm": _alarm(status.alarm) if status.HasField("alarm") else None,
            "acknowledged": [_alarm(each) for each in status.acknowledged],
        }
    )


def _checkpoint(message: anchor_pb2.WitnessedCheckpoint, registry: Registry, now: datetime) -> Document:
    at = message.witnessed_at.ToDatetime(UTC)
    return {
        "tree_size": message.tree_size,
        "root_hash": message.root_hash.hex(),
        "witnessed_at": time_text(message.witnessed_at),
        "age_seconds": _age(at, now),
        "findings": list(findings(message, registry)),
        "anchored": message.HasField("anchor"),
    }


def _alarm(message: notary_service_pb2.WitnessAlarm) -> Document:
    acknowledged = message.HasField("acknowledged_at")
    return present(
        {
            "rule": message.rule,
            "message": message.message,
            "raised_at": time_text(message.raised_at),
            "cosigned_note": message.cosigned_note.decode("utf-8", "replace"),
            "refused_note": message.refused_note.decode("utf-8", "replace"),
            "finding": message.finding if acknowledged else None,
            "acknowledged_at": time_text(message.acknowledged_at) if acknowledged else None,
            "followed": message.followed if acknowledged else None,
        }
    )


def findings(message: anchor_pb2.WitnessedCheckpoint, registry: Registry) -> Iterable[str]:
    """What does not hold of a checkpoint that is said to be witnessed, a sentence each."""
    try:
        signed = parse(message.signed_note)
    except NoteInvalid as error:
        yield f"the note is no signed checkpoint: {error}"
        return
    if (signed.checkpoint.size, signed.checkpoint.root) != (message.tree_size, message.root_hash):
        yield "the note is about another tree than the notary says"
    if not any(signed.signed_by(signed.checkpoint.origin, key.public) for key in _keys(registry, JOURNAL)):
        yield "no registered key of the journal has signed the note"
    if not any(_cosigned(signed, key) for key in _keys(registry, NOTARY)):
        yield "no key of the notary that was valid then has cosigned the note"


def _keys(registry: Registry, name: str) -> list[RegisteredKey]:
    return [key for each in registry.participants if each.name == name for key in each.keys]


def _cosigned(signed: SignedCheckpoint, key: RegisteredKey) -> bool:
    moments = (signed.cosigned_at(each.name, key.public) for each in signed.signatures)
    return any(moment is not None and key.valid_at(moment) for moment in moments)


def _age(at: datetime, now: datetime) -> int:
    return max(0, int((now - at).total_seconds()))
