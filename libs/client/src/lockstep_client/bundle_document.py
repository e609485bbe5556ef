"""A plan's bundle of evidence (docs/bundle.md) out of what journal, notary and coordinator show. Pure.

Nothing is judged here: whoever reads the bundle checks it with his own trust. What is not there yet is named.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep.journal.v1.journal_reader_service_pb2 import ExportBundleResponse
from lockstep.journal.v1.key_history_pb2 import SignedKey
from lockstep.notary.v1 import anchor_pb2
from lockstep.notary.v1.notary_service_pb2 import GetNotarisationResponse
from lockstep.type.v1.outcome_pb2 import ChainEvidence
from lockstep_kit.canonical import canonical
from lockstep_kit.convert import gate_from_pb, header_from_pb, leg_from_pb, outcome_from_pb, signature_from_pb, vote_from_pb
from lockstep_kit.fields import within
from lockstep_kit.foreign_json import read_json
from lockstep_kit.plan import header_document, leg_document
from lockstep_kit.signing import Signature
from lockstep_kit.values import dataclass

BUNDLE_FORMAT: Final = "lockstep/bundle/v1"
_CLOSED: Final = "plan.closed"
_KINDS: Final[Mapping[int, str]] = {
    anchor_pb2.ANCHOR_KIND_CHECKPOINT: "checkpoint",
    anchor_pb2.ANCHOR_KIND_REGISTRATIONS: "registrations",
    anchor_pb2.ANCHOR_KIND_OUTCOMES: "outcomes",
}


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What the notary shows of the journal's log."""

    #: The checkpoint that it cosigned.
    checkpoint: anchor_pb2.WitnessedCheckpoint
    #: From the bundle's checkpoint to that one.
    consistency_path: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that was shown of one plan; None or empty where there is none (yet)."""

    #: By the coordinator.
    plan: Plan
    #: By the journal.
    journal: ExportBundleResponse
    #: By the journal.
    keys: Sequence[SignedKey]
    #: By the notary.
    witnessed: Witnessed | None
    #: By the notary.
    notarisation: GetNotarisationResponse | None
    #: By the coordinator, of a plan that did not settle.
    audit_log: bytes
    #: Why the notary refuses the journal's log, where it does.
    alarm: str = ""


def sealed_as(journal: ExportBundleResponse) -> tuple[str, bytes] | None:
    """Outcome and evidence digest that the chain's seal names; None where the chain is not sealed, or the seal's payload was erased."""
    last = journal.entries[-1] if journal.entries else None
    if last is None or last.type != _CLOSED or not last.payload:
        return None
    try:
        document = read_json(last.payload)
        return str(document["outcome"]), bytes.fromhex(document["evidence_digest"])
    except (ValueError, KeyError, TypeError):
        return None


def bundle_document(gathered: Gathered) -> dict[str, Any]:
    """The bundle.

    Raises:
        FieldInvalid: what was shown is not of its form.
    """
    document: dict[str, Any] = {
        "format": BUNDLE_FORMAT,
        **_plan(gathered.plan),
        "entries": _entries(gathered.journal),
        "checkpoint": _text(gathered.journal.checkpoint.signed_note),
    }
    if gathered.keys:
        document["journal_keys"] = [
            {"statement": _text(each.statement), "signatures": [_mark(signature_from_pb(mark)) for mark in each.signatures]}
            for each in gathered.keys
        ]
    if gathered.witnessed is not None:
        shown = gathered.witnessed
        document["witnessed"] = {
            "note": _text(shown.checkpoint.signed_note),
            "consistency_path": [_text(each) for each in shown.consistency_path],
            **_anchored(shown.checkpoint),
        }
    if gathered.notarisation is not None:
        document |= _notarised(gathered.notarisation)
    if gathered.audit_log:
        document["audit_log"] = _text(gathered.audit_log)
    return document


def _plan(message: Plan) -> dict[str, Any]:
    """The plan, and what persons and participants have signed about it."""
    with within("plan"):
        header = header_from_pb(message.header)
        legs = [leg_from_pb(each.leg, header) for each in message.legs]
        gates = [gate_from_pb(each.signature) for each in message.gates]
        votes = [vote_from_pb(each.vote) for each in message.legs if each.HasField("vote")]
        outcomes = [outcome_from_pb(each.outcome) for each in message.legs if each.HasField("outcome")]
        reversals = [outcome_from_pb(each.reversal) for each in message.legs if each.HasField("reversal")]
    return {
        "plan": {
            "header": _text(canonical(header_document(header))),
            "legs": [_text(canonical(leg_document(each))) for each in legs],
        },
        "gates": [_signed(each.statement.signed_bytes(), each.signature) for each in gates],
        "votes": [_signed(each.vote.signed_bytes(), each.signature) for each in votes],
        "outcomes": [_signed(each.outcome.signed_bytes(), each.signature) for each in (*outcomes, *reversals)],
    }


def _entries(journal: ExportBundleResponse) -> list[dict[str, Any]]:
    return [
        {
            "canonical_bytes": _text(entry.canonical_bytes),
            **({"payload": _text(entry.payload)} if entry.payload else {}),
            "signature": _mark(signature_from_pb(entry.signature)),
            "leaf_index": str(proof.leaf_index),
            "inclusion_path": [_text(each) for each in proof.path],
        }
        for entry, proof in zip(journal.entries, journal.proofs, strict=True)
    ]


def _notarised(shown: GetNotarisationResponse) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, record, proof in (
        ("registration", "registration", "registration_proof"),
        ("outcome", "finalisation", "outcome_proof"),
    ):
        part = {
            **({"record": _record(getattr(shown, record))} if shown.HasField(record) else {}),  # type: ignore[arg-type]  # both are fields
            **({"proof": _proof(getattr(shown, proof))} if shown.HasField(proof) else {}),  # type: ignore[arg-type]  # both are fields
        }
        if part:
            found[name] = part
    return found


def _record(shown: ChainEvidence) -> dict[str, Any]:
    return {
        "chain": shown.chain,
        "registry": shown.contract,
        "entry_key": _text(shown.entry_key),
        "entry_status": shown.entry_status,
        **({"transaction_hash": _text(shown.transaction_hash)} if shown.transaction_hash else {}),
        "block_number": str(shown.block_number),
        "block_hash": _text(shown.block_hash),
    }


def _proof(shown: anchor_pb2.PlanProof) -> dict[str, Any]:
    return {
        "leaf_data": _text(shown.leaf_data),
        "leaf_index": str(shown.leaf_index),
        "tree_size": str(shown.tree_size),
        "path": [_text(each) for each in shown.path],
        "root": _text(shown.root_hash),
        **_anchored(shown),
    }


def _anchored(shown: anchor_pb2.PlanProof | anchor_pb2.WitnessedCheckpoint) -> dict[str, Any]:
    if not shown.HasField("anchor"):
        return {}
    anchor = shown.anchor
    return {
        "anchor": {
            "kind": _KINDS.get(anchor.kind, ""),
            "root": _text(anchor.root_hash),
            "size": str(anchor.tree_size),
            "chain": anchor.chain,
            "registry": anchor.registry,
            **({"raw_transaction": _text(anchor.raw_transaction)} if anchor.raw_transaction else {}),
            "block_number": str(anchor.block_number),
            "block_hash": _text(anchor.block_hash),
        }
    }


def missing(gathered: Gathered) -> list[str]:
    """What the bundle does not hold, in words."""
    found = []
    last = gathered.journal.entries[-1].type if gathered.journal.entries else ""
    sealed = last == _CLOSED
    if not sealed:
        found.append("the chain is not sealed yet: the plan has not ended")
    if any(not each.payload for each in gathered.journal.entries):
        found.append("payloads were erased")
    if gathered.alarm:
        found.append(f"the witness refuses the journal's log: {gathered.alarm}")
    elif gathered.witnessed is None:
        found.append("no witness has seen a log with all of these entries yet")
    elif not gathered.witnessed.checkpoint.HasField("anchor"):
        found.append("the checkpoint that the witness saw is not anchored on chain yet")
    found.extend(_missing_on_chain(gathered.notarisation, sealed=sealed))
    ended = sealed_as(gathered.journal)
    if ended is not None and ended[0] != "COMMITTED" and not gathered.audit_log:
        found.append("the coordinator does not show the abort audit log")
    return found


def _missing_on_chain(shown: GetNotarisationResponse | None, *, sealed: bool) -> list[str]:
    found = []
    if shown is None or not (shown.HasField("registration") or shown.registration_proof.HasField("anchor")):
        found.append("the plan's registration is not on chain")
    if sealed and (shown is None or not (shown.HasField("finalisation") or shown.outcome_proof.HasField("anchor"))):
        found.append("the plan's outcome is not on chain")
    return found


def _signed(octets: bytes, signature: Signature) -> dict[str, Any]:
    return {"statement": _text(octets), "signature": _mark(signature)}


def _mark(signature: Signature) -> dict[str, str]:
    return {"key_id": signature.key_id, "signature": _text(signature.octets)}


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
