"""What stands on chain of an escalation, held against what the coordinator shows of it, what the notary keeps, and what a node says. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.notary.v1 import escalation_record_pb2 as records
from lockstep_client.documents import time_text
from lockstep_client.evidence import Finding, Findings
from lockstep_contracts.notary import EscalationKind as ChainKind
from lockstep_contracts.notary import KnownEscalation
from lockstep_kit.escalations import EscalationKind
from lockstep_kit.ids import sha256
from lockstep_kit.values import dataclass

_KINDS: Final = {
    EscalationKind.OPENED: (records.ESCALATION_RECORD_KIND_OPENED, ChainKind.OPENED),
    EscalationKind.RESOLVED: (records.ESCALATION_RECORD_KIND_RESOLVED, ChainKind.RESOLVED),
}


class Stands(StrEnum):
    """How far a record has come, by who says so."""

    #: The coordinator has not told the notary yet.
    UNTOLD = "UNTOLD"
    #: The notary refused it, since it holds something else.
    REFUSED = "REFUSED"
    #: The notary has it, as the coordinator says; or it does not answer.
    TOLD = "TOLD"
    #: The notary keeps it, and it stands in no final block yet.
    KEPT = "KEPT"
    #: The notary shows the final block in which it stands.
    RECORDED = "RECORDED"
    #: A node that this client trusts says that it stands there.
    ON_CHAIN = "ON_CHAIN"


@dataclass(frozen=True, slots=True)
class RecordView:
    """What is said of an escalation, and where it stands."""

    #: OPENED or RESOLVED.
    kind: EscalationKind
    #: SHA-256 of the document: what stands on chain.
    document_hash: bytes
    #: How far it has come.
    stands: Stands
    #: The final block that the notary names, or 0.
    block_number: int


def check_records(
    file: messages.EscalationFile, kept: Iterable[records.EscalationRecord] | None, known: KnownEscalation | None
) -> tuple[list[RecordView], list[Finding]]:
    """The records of an escalation, and what does not hold; `kept`: the notary's, `known`: a node's, None where it was not asked or does not answer."""
    ticket, found = file.escalation, Findings()
    theirs = None
    if kept is not None:
        theirs = {
            each.statement.kind: each
            for each in kept
            if each.statement.escalation_id == ticket.escalation_id and each.statement.plan_digest == file.plan_digest
        }
    views: list[RecordView] = []
    said: set[EscalationKind] = set()
    for each in file.documents:
        kind = _kind(each.document, file)
        if kind is None or kind in said:
            found.note("ESCALATION_DOCUMENT", "a document of the record does not say what the coordinator shows")
            continue
        said.add(kind)
        found.expect(not each.refusal, "ESCALATION_RECORD_REFUSED", f"the notary refused {kind}: {each.refusal}")
        told = Stands.REFUSED if each.refusal else Stands.TOLD if each.HasField("tell_time") else Stands.UNTOLD
        views.append(_view(kind, sha256(each.document), told, theirs, known, found))
    for kind, (number, chain_kind) in _KINDS.items():
        if kind in said:
            continue
        elsewhere = theirs is not None and number in theirs
        on_chain = known is not None and bool(known.hash_of(chain_kind))
        found.expect(
            not elsewhere and not on_chain, "ESCALATION_UNSHOWN", f"{kind} is recorded, and the coordinator does not show it"
        )
    if known is not None and known.opened:
        found.expect(known.plan_digest == file.plan_digest, "ESCALATION_CHAIN_DIFFERS", "the registry knows it as of another plan")
    return views, found


def _view(
    kind: EscalationKind,
    digest: bytes,
    told: Stands,
    theirs: dict[records.EscalationRecordKind.ValueType, records.EscalationRecord] | None,
    known: KnownEscalation | None,
    found: Findings,
) -> RecordView:
    number, chain_kind = _KINDS[kind]
    stands, block = told, 0
    record = None if theirs is None else theirs.get(number)
    if record is not None and record.statement.document_hash == digest:
        found.expect(not record.trouble, "ESCALATION_RECORD_REFUSED", f"{kind} cannot stand on chain: {record.trouble}")
        stands = Stands.RECORDED if record.HasField("entry") else Stands.KEPT
        block = record.entry.block_number
    elif record is not None:
        other = record.statement.document_hash.hex()
        found.note("ESCALATION_RECORD_DIFFERS", f"the notary keeps {kind} with the document {other}")
    elif theirs is not None:
        found.expect(
            told is not Stands.TOLD, "ESCALATION_RECORD_DIFFERS", f"the notary does not know of {kind}, of which it was told"
        )
    if known is not None:
        hashed = known.hash_of(chain_kind)
        found.expect(
            hashed in (b"", digest), "ESCALATION_CHAIN_DIFFERS", f"the registry holds {kind} with the document {hashed.hex()}"
        )
        missing = stands is Stands.RECORDED and not hashed
        found.expect(
            not missing, "ESCALATION_CHAIN_DIFFERS", f"the notary names a block for {kind}, and the registry does not hold it"
        )
        stands = Stands.ON_CHAIN if hashed == digest else stands
    return RecordView(kind, digest, stands, block)


def _kind(document: bytes, file: messages.EscalationFile) -> EscalationKind | None:
    """What a document says of the escalation that is shown; None where it does not say what is shown."""
    ticket = file.escalation
    try:
        told: dict[str, Any] = json.loads(document)
        kind = EscalationKind(told["kind"])
        about = told["plan_id"], told["plan_digest"], told["escalation_id"]
    except (ValueError, KeyError, TypeError):
        return None
    if about != (file.plan_id, file.plan_digest.hex(), ticket.escalation_id):
        return None
    if kind is EscalationKind.OPENED:
        shown = {"reason": ticket.reason, "leg_id": ticket.leg_id, "opened_at": time_text(ticket.raise_time)}
    else:
        closing = [each.digest.hex() for each in file.resolutions if each.HasField("effect_time")]
        shown = {"resolved_at": time_text(ticket.resolve_time)}
        if told.get("resolution") not in closing:
            return None
    return kind if all(told.get(name) == value for name, value in shown.items()) else None
