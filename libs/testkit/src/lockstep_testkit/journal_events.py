"""Payloads of journal events that keep the rules, one for each type, for tests that need events and not what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lockstep_kit.canonical import Document, canonical
from lockstep_kit.journal_payloads import VERSION

_GATE: Final[Mapping[str, Document]] = {
    "verdict": "APPROVE",
    "actor": "alice",
    "nonce": "0f" * 16,
    "expires_at": "2026-11-21T12:00:00.000000Z",
    "key_id": "0011223344556677",
    "signature": "5a" * 64,
}


def _transition(left: str, entered: str, cause: str, decision: str = "") -> dict[str, Document]:
    return {"transition": {"transition_no": 1, "from": left, "to": entered, "decision": decision, "cause": cause}}


def _gate(gate: str) -> dict[str, Document]:
    return {"gate": {**_GATE, "gate": gate}}


def _leg(name: str, said: Mapping[str, Document]) -> dict[str, Document]:
    signed: dict[str, Document] = {"statement_sha256": "11" * 32, "key_id": "0011223344556677", "signature": "22" * 64}
    return {"leg": {"leg_id": "cash", "kind": "credit_transfer", name: {**signed, **said}}}


_REASON: Final[Mapping[str, Document]] = {"reason": {"reason": "LEG_REFUSED", "detail": "the account is closed"}}
_DIGEST: Final[Mapping[str, Document]] = {"evidence_digest": "33" * 32}
#: What each type's payload holds beside version and plan.
_OWN: Final[Mapping[str, Mapping[str, Document]]] = {
    "plan.created": {**_transition("", "DRAFT", "CREATED"), **_gate("MAKE")},
    "plan.initiated": _transition("DRAFT", "INITIATED", "EXECUTE_ASKED"),
    "plan.ready": _transition("PRECONDITIONS_PENDING", "READY_FOR_PREPARE", "CHECKS_PASSED"),
    "leg.prepared": _leg("vote", {"vote": "YES"}),
    "leg.refused": _leg("vote", {"vote": "NO", "refusal": {"reason": "LEG_REFUSED", "outside_code": "AC04", "detail": ""}}),
    "plan.approved": {**_transition("READY_FOR_PREPARE", "PREPARED", "PREPARED_AND_APPROVED"), **_gate("APPROVE")},
    "plan.released": {
        **_transition("PREPARED", "EXECUTING", "RELEASED", "COMMIT"),
        **_gate("RELEASE"),
        "decision": {"delegate": "", "decided_at": "2026-11-21T12:00:00.000000Z", "votes_digest": "44" * 32, "gates": []},
    },
    "leg.executed": _leg("outcome", {"kind": "DONE"}),
    "evidence.validated": {**_gate("VALIDATE"), **_DIGEST},
    "plan.committed": {**_transition("VALIDATING", "COMMITTED", "EVIDENCE_VALIDATED", "COMMIT"), **_DIGEST},
    "plan.aborted": {**_transition("PREPARED", "ABORTED", "DEADLINE_PASSED", "ABORT"), **_REASON},
    "exception.raised": _REASON,
    "exception.resolved": {},
    "leg.reversed": _leg("reversal", {"kind": "REVERSED"}),
    "plan.closed": {
        "outcome": "COMMITTED",
        **_DIGEST,
        "transition": {"transition_no": 9, "from": "COMMITTED", "to": "CLOSED"},
        "entry_count": 8,
        "head_hash": "55" * 32,
    },
}


def document_of(event_type: str, plan_digest: bytes = bytes(32), *, number: int = 0) -> dict[str, Document]:
    """A payload of a type as a document. Payloads with other numbers differ, where the type is about a leg."""
    document: dict[str, Document] = {"version": VERSION, **_OWN[event_type]}
    if event_type != "plan.closed":
        document["plan_digest"] = plan_digest.hex()
    leg = document.get("leg")
    if isinstance(leg, Mapping):
        document["leg"] = {**leg, "leg_id": f"cash-{number}"}
    return document


def payload_of(event_type: str, plan_digest: bytes = bytes(32), *, number: int = 0) -> bytes:
    """The same as RFC 8785 bytes."""
    return canonical(document_of(event_type, plan_digest, number=number))
