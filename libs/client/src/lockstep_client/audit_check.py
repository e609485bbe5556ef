"""An abort audit log, compared with its hash, its plan, the notary's signature, the chain and the journal's seal. Pure.

The log is believed because its hash stands where the coordinator cannot change it: in the notary's registry, under the plan's digest, and in the journal's
signed seal of the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lockstep_client.convert import AuditView, PlanView
from lockstep_client.evidence import Finding, Findings
from lockstep_client.journal_chain import ChainVerdict, Entry
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.canonical import canonical
from lockstep_kit.certificate import NotAuthorised, check_outcome
from lockstep_kit.foreign_json import read_json
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.registry import Registry
from lockstep_kit.values import dataclass

FORMAT: Final = "lockstep/abort-audit-log/v1"
#: The registry keeps this much of a hash beside the plan's status; the whole is in its event.
KEPT_BYTES: Final = 31
#: How the registry names a log's outcome.
_STATUS: Final = {"ABORTED": PlanStatus.ABORTED, "REVERSED": PlanStatus.ABORTED, "MIXED": PlanStatus.MIXED}


@dataclass(frozen=True, slots=True)
class RegistryRecord:
    """What a node says that a NotaryRegistry has about a plan."""

    #: CAIP-2 id of the node's chain.
    chain: str
    #: Where the plan stands.
    status: PlanStatus
    #: First 31 bytes of the hash that stands beside it.
    kept: bytes
    #: Hashes that the registry's events name for the plan; one, once it ended.
    hashes: tuple[bytes, ...]
    #: Transaction of the last of them, or b"".
    transaction_hash: bytes
    #: Block of it, or 0.
    block_number: int


def document_of(view: AuditView) -> dict[str, Any] | None:
    """What the log says; None where it is no log."""
    try:
        document = read_json(view.octets)
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None


def check_audit(view: AuditView, plan: PlanView, registry: Registry) -> list[Finding]:
    """The log is one of this plan, its bytes have its hash, its copy is as it was written, and the notary's signatures hold."""
    found = Findings()
    document = document_of(view)
    if document is None:
        found.note("AUDIT_FORMAT", "the log is no abort audit log")
        return found
    found.expect(sha256(view.octets) == view.digest, "AUDIT_HASH", "the log's bytes have another hash than it is shown under")
    found.expect(canonical(document) == view.octets, "AUDIT_FORMAT", "the log's bytes are not canonical")
    same = (document.get("plan_id"), document.get("plan_digest")) == (plan.header.plan_id, plan.header.digest.hex())
    found.expect(same, "AUDIT_PLAN", "the log is about another plan")
    found.expect(view.copy != "CORRUPT", "AUDIT_COPY_CORRUPT", "the write-once store has other bytes under the log's hash")
    found.expect(view.copy != "MISSING", "AUDIT_COPY_MISSING", "the write-once store does not have the log", may_pass=True)
    for signed in view.notarisations:
        try:
            check_outcome(signed, registry)
        except NotAuthorised as error:
            found.allow(error)
    return found


def check_registry(view: AuditView, record: RegistryRecord, chain: str) -> list[Finding]:
    """The notary's registry has the log's very hash under the outcome that the log tells, or that of an earlier log which this one names.

    What was notarised stays on the chain: of an end that was found not to hold, and was followed by another, only the journal's seal has the last log's hash.
    """
    found = Findings()
    document = document_of(view) or {}
    if not found.expect(record.chain == chain, "AUDIT_CHAIN_OTHER", f"the node is on {record.chain}, the registry on {chain}"):
        return found
    if record.status in (PlanStatus.NONE, PlanStatus.REGISTERED):
        found.note("AUDIT_NOT_ON_CHAIN", "the registry has no end of the plan yet", may_pass=True)
        return found
    if _has(record, view.digest):
        told = document.get("outcome")
        same = record.status is _STATUS.get(str(told))
        found.expect(same, "AUDIT_CHAIN_OUTCOME", f"the registry says {record.status.name}, the log {told}")
        return found
    named = any(_has(record, each) and each.hex() in document.get("earlier", ()) for each in view.earlier)
    other = record.hashes[-1].hex() if record.hashes else record.kept.hex()
    found.expect(named, "AUDIT_CHAIN_DIFFERS", f"the registry names another log of the plan's end: see --sha256 {other}")
    return found


def _has(record: RegistryRecord, digest: Digest) -> bool:
    return record.kept == digest[:KEPT_BYTES] and set(record.hashes) == {digest}


def check_seal(view: AuditView, verdict: ChainVerdict, last: Entry | None) -> list[Finding]:
    """The journal's chain of the plan verifies, and its seal has the log's hash."""
    found = Findings()
    for each in verdict.findings:
        found.note(each.rule, f"journal entry {each.sequence}: {each.message}")
    if last is None or not verdict.sealed:
        found.note("AUDIT_NOT_SEALED", "the journal has not sealed the plan's chain yet", may_pass=True)
        return found
    if last.erased:
        found.note("AUDIT_SEAL_ERASED", "the plan's payloads in the journal were erased, and with them the hash that its seal had")
        return found
    sealed = read_json(last.payload).get("evidence_digest")
    found.expect(sealed == view.digest.hex(), "AUDIT_SEAL_DIFFERS", "the journal's seal has another hash than the log's")
    return found


def first(findings: Sequence[Finding]) -> str:
    """The findings in one line."""
    return "; ".join(f"{each.rule}: {each.message}" for each in findings)
