"""One change for each way in which somebody could alter a bundle that holds, and the checks that must fail then. Written down by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

from lockstep_kit import merkle, notes
from lockstep_kit.canonical import canonical
from lockstep_kit.ids import LegId, sha256, uetr
from lockstep_kit.plan import Leg, header_document
from lockstep_kit.statements import BankEvidence, Evidence, Gate, OutcomeKind, Verdict
from lockstep_testkit.bundles.auditor import WITNESS
from lockstep_testkit.bundles.bundle import (
    WITNESSED_AT,
    Exhibit,
    anchor,
    mark,
    outcome_leaf,
    proof,
    registration_leaf,
    text,
)
from lockstep_testkit.bundles.history import History, aborted, committed
from lockstep_testkit.factories import address_of, key_of

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tampering:
    """One change of the bundle of the committed plan, or of what it is held against."""

    name: str
    change: Callable[[Document], None]
    fails: tuple[str, ...]
    verdict: str = "FAILED"


def octets_of(coded: str) -> bytes:
    """The bytes of a field."""
    return base64.b64decode(coded)


def _flip(coded: str, place: int = -1) -> str:
    octets = bytearray(octets_of(coded))
    octets[place] ^= 1
    return text(bytes(octets))


def _say(entry: Document, **changes: Any) -> None:
    """Have an entry's signed bytes say something else, without the journal's key."""
    domain, _, said = octets_of(entry["canonical_bytes"]).partition(b"\n")
    entry["canonical_bytes"] = text(domain + b"\n" + canonical(json.loads(said) | changes))


def _payload(bundle: Document) -> None:
    entry = bundle["entries"][10]
    entry["payload"] = text(canonical(json.loads(octets_of(entry["payload"])) | {"note": "never said"}))


def _payload_and_hash(bundle: Document) -> None:
    _payload(bundle)
    entry = bundle["entries"][10]
    _say(entry, payload_hash=sha256(octets_of(entry["payload"])).hex())


def _swap(bundle: Document) -> None:
    entries = bundle["entries"]
    entries[5], entries[6] = entries[6], entries[5]


def _signature(bundle: Document) -> None:
    given = bundle["entries"][6]["signature"]
    given["signature"] = _flip(given["signature"])


def _by_mallory(bundle: Document) -> None:
    """The whole chain again, by another key."""
    forged = Exhibit(committed(History(journal_keys=((key_of("mallory"), 0),)))).bundle()
    for mine, theirs in zip(bundle["entries"], forged["entries"], strict=True):
        mine |= {name: theirs[name] for name in ("canonical_bytes", "payload", "signature")}


def _by_mallory_with_log(bundle: Document) -> None:
    """The whole chain again, by another key, in a log of its own."""
    history = committed(History(journal_keys=((key_of("mallory"), 0),)))
    forged = Exhibit(history, key_of("mallory")).bundle()
    bundle |= {name: forged[name] for name in ("entries", "checkpoint", "witnessed")}


def _other_history() -> Exhibit:
    """What the journal itself would write who wanted that another plan's makings stood in the log: one second later."""
    history = History()
    history.tick()
    return Exhibit(committed(history))


def _rewritten_by_the_journal(bundle: Document) -> None:
    forged = _other_history().bundle()
    for mine, theirs in zip(bundle["entries"], forged["entries"], strict=True):
        mine |= {name: theirs[name] for name in ("canonical_bytes", "payload", "signature")}
    bundle |= {name: forged[name] for name in ("votes", "outcomes", "gates", "outcome")}


def _split_log(bundle: Document) -> None:
    """The journal shows another log than it showed to the witness."""
    forged = _other_history().bundle()
    witnessed = bundle["witnessed"]
    bundle |= forged | {"witnessed": witnessed}


def _checkpoint(bundle: Document) -> None:
    """A checkpoint of a tree of one's own, by a key of one's own under the journal's name."""
    exhibit = Exhibit(committed(History()), key_of("mallory"))
    bundle["checkpoint"] = text(exhibit.log.checkpoint(exhibit.log.sealed_size, key_of("mallory")).note)


def _checkpoint_of_another_log(bundle: Document) -> None:
    said = notes.parse(octets_of(bundle["checkpoint"])).checkpoint
    other = notes.Checkpoint("lockstep.local/another", said.size, said.root)
    bundle["checkpoint"] = text(notes.sign(other, key_of("event-journal")).note)


def _cosignature(bundle: Document) -> None:
    exhibit = Exhibit(committed(History()))
    whole = exhibit.log.checkpoint(len(exhibit.log.leaves), key_of("event-journal"))
    bundle["witnessed"]["note"] = text(notes.cosign(whole, WITNESS, key_of("mallory"), WITNESSED_AT).note)


def _consistency(bundle: Document) -> None:
    path = bundle["witnessed"]["consistency_path"]
    path[0] = _flip(path[0])


def _smaller_witness(bundle: Document) -> None:
    """The witness saw the log before the plan's end."""
    exhibit = Exhibit(committed(History()))
    seen = exhibit.log.checkpoint(20, key_of("event-journal"))
    note = notes.cosign(seen, WITNESS, key_of(WITNESS), WITNESSED_AT).note
    path = merkle.consistency_path(exhibit.log.leaves[: exhibit.log.sealed_size], 20)
    bundle["witnessed"] = {"note": text(note), "consistency_path": [text(each) for each in path]}


def _other_root(bundle: Document) -> None:
    seen = bundle["witnessed"]["anchor"]
    seen["raw_transaction"] = anchor("checkpoint", sha256(b"other"), int(seen["size"]))["raw_transaction"]


def _other_kind(bundle: Document) -> None:
    seen = bundle["witnessed"]["anchor"]
    seen["raw_transaction"] = anchor("outcomes", octets_of(seen["root"]), int(seen["size"]))["raw_transaction"]


def _other_account(bundle: Document) -> None:
    seen = bundle["witnessed"]["anchor"]
    sent = anchor("checkpoint", octets_of(seen["root"]), int(seen["size"]), account_key=sha256(b"mallory's account"))
    seen["raw_transaction"] = sent["raw_transaction"]


def _other_anchored_root(bundle: Document) -> None:
    seen = bundle["witnessed"]["anchor"]
    bundle["witnessed"]["anchor"] = anchor("checkpoint", sha256(b"other"), int(seen["size"]))


def _other_registry(bundle: Document) -> None:
    bundle["witnessed"]["anchor"]["registry"] = address_of("another registry")


def _cut_transaction(bundle: Document) -> None:
    seen = bundle["witnessed"]["anchor"]
    seen["raw_transaction"] = text(octets_of(seen["raw_transaction"])[:-1])


def _other_leaf(bundle: Document) -> None:
    """A proof that another plan was registered."""
    bundle["registration"]["proof"] = proof(
        {"version": 1, "kind": "registration", "plan_digest": sha256(b"other").hex()}, "registrations"
    )


def _leaf_under_other_path(bundle: Document) -> None:
    shown = bundle["registration"]["proof"]
    shown["leaf_index"] = "2"


def _other_outcome(bundle: Document) -> None:
    leaf = outcome_leaf(committed(History()))
    bundle["outcome"]["proof"] = proof(leaf | {"outcome": "Aborted"}, "outcomes")


def _registration_as_outcome(bundle: Document) -> None:
    bundle["outcome"]["proof"] = proof(registration_leaf(committed(History())), "registrations")


def _trimmed_seal(bundle: Document) -> None:
    bundle["entries"] = bundle["entries"][:-1]


def _drop(*places: int) -> Callable[[Document], None]:
    def change(bundle: Document) -> None:
        for place in sorted(places, reverse=True):
            del bundle["entries"][place]

    return change


def _behind_seal(bundle: Document) -> None:
    bundle["entries"].append(deepcopy(bundle["entries"][4]))


def _another_plan(bundle: Document) -> None:
    head = committed(History()).case.header
    changed = {**header_document(head), "reference": "ANOTHER"}  # type: ignore[dict-item]  # a document is an object here
    bundle["plan"]["header"] = text(canonical(changed))


def _another_leg(bundle: Document) -> None:
    leg = json.loads(octets_of(bundle["plan"]["legs"][1]))
    leg["terms"]["amount"]["minor_units"] = "10001"
    bundle["plan"]["legs"][1] = text(canonical(leg))


def _gate_by_mallory(bundle: Document) -> None:
    given = bundle["gates"][1]
    given["signature"] = mark(key_of("mallory").sign(octets_of(given["statement"])))


class OnePerson(History):
    """The maker approves too."""

    def sign(self, gate: Gate, *, who: str | None = None, verdict: Verdict = Verdict.APPROVE) -> dict[str, Any]:
        """The gate, by another person."""
        return dict(super().sign(gate, who="alice" if gate is Gate.APPROVE else who, verdict=verdict))

    def record(self, type_: str, actor: str, role: str, document: Any, *, bound: bool = True) -> None:
        """The entry, unless it is bent."""
        super().record(type_, "alice" if type_ == "plan.approved" else actor, role, document, bound=bound)


class Miscounted(History):
    """The journal counts one entry less than there is."""

    def record(self, type_: str, actor: str, role: str, document: Any, *, bound: bool = True) -> None:
        """The entry, unless it is bent."""
        said = document | {"entry_count": len(self.entries) - 1} if type_ == "plan.closed" else document
        super().record(type_, actor, role, said, bound=bound)


class Skipping(History):
    """The coordinator never tells the journal that the plan was ready."""

    def record(self, type_: str, actor: str, role: str, document: Any, *, bound: bool = True) -> None:
        """The entry, unless it is bent."""
        if type_ != "plan.ready":
            super().record(type_, actor, role, document, bound=bound)


class Leaping(History):
    """The plan is executed by a cause that executes nothing."""

    def move(self, to: str, cause: str, decision: str = "") -> dict[str, Any]:
        """The transition, by another cause."""
        return dict(super().move(to, "CHECKS_PASSED" if cause == "RELEASED" else cause, decision))


class OtherPayment(History):
    """The bank shows the payment of another leg."""

    def evidence_of(self, leg: Leg, kind: OutcomeKind) -> Evidence:
        """The evidence, with another reference."""
        found = super().evidence_of(leg, kind)
        return replace(found, uetr=uetr(self.case.plan_id, LegId("tokens"))) if isinstance(found, BankEvidence) else found


def _vote(bundle: Document) -> None:
    given = bundle["votes"][1]
    given["signature"] = mark(key_of("mallory").sign(octets_of(given["statement"])))


def _vote_lost(bundle: Document) -> None:
    del bundle["votes"][2]


def _outcome(bundle: Document) -> None:
    """The bank says, with its own key, another outcome than the one that was recorded."""
    given = bundle["outcomes"][1]
    domain, _, said = octets_of(given["statement"]).partition(b"\n")
    other = domain + b"\n" + canonical(json.loads(said) | {"revision": 5})
    bundle["outcomes"][1] = {"statement": text(other), "signature": mark(key_of("bank-gateway").sign(other))}


def _validator_lost(bundle: Document) -> None:
    del bundle["gates"][3]


def _audit_log(bundle: Document) -> None:
    bundle |= Exhibit(aborted(History())).bundle()
    bundle["audit_log"] = _flip(bundle["audit_log"])


def _leaf_order(bundle: Document) -> None:
    bundle["entries"][3]["leaf_index"] = bundle["entries"][2]["leaf_index"]


_LINK: Final = ("CHAIN", "ENTRY_SIGNATURES", "INCLUSION")

TAMPERINGS: Final = (
    Tampering("payload-changed", _payload, ("PAYLOADS",)),
    Tampering("payload-and-hash-changed", _payload_and_hash, _LINK),
    Tampering("signature-changed", _signature, ("ENTRY_SIGNATURES",)),
    Tampering("link-changed", lambda bundle: _say(bundle["entries"][4], previous_hash=bytes(32).hex()), _LINK),
    Tampering("sequence-changed", lambda bundle: _say(bundle["entries"][4], sequence=9), _LINK),
    Tampering("actor-changed", lambda bundle: _say(bundle["entries"][8], actor="mallory"), (*_LINK, "GATES_RECORDED")),
    Tampering("time-changed", lambda bundle: _say(bundle["entries"][4], event_time="2026-06-01T11:00:00.000000Z"), _LINK),
    Tampering("type-changed", lambda bundle: _say(bundle["entries"][4], type="leg.refused"), _LINK),
    Tampering("entry-of-another-plan", lambda bundle: _say(bundle["entries"][4], plan_id=str(_STRANGE)), ("ENTRIES",)),
    Tampering("entry-removed", _drop(6), ("CHAIN",)),
    Tampering("first-entry-removed", _drop(0), ("CHAIN",)),
    Tampering("entries-removed-before-the-seal", _drop(11, 12, 13), ("CHAIN",)),
    Tampering("entries-swapped", _swap, ("CHAIN", "INCLUSION")),
    Tampering("entry-behind-the-seal", _behind_seal, ("CHAIN", "INCLUSION")),
    Tampering("seal-trimmed", _trimmed_seal, (), "NOT_PROVED"),
    Tampering("chain-by-another-key", _by_mallory, ("ENTRY_SIGNATURES", "INCLUSION")),
    Tampering("chain-and-log-by-another-key", _by_mallory_with_log, ("ENTRY_SIGNATURES", "CHECKPOINT")),
    Tampering("chain-rewritten-by-the-journal", _rewritten_by_the_journal, ("INCLUSION",)),
    Tampering("log-other-than-the-witness-saw", _split_log, ("CONSISTENCY",)),
    Tampering("leaf-index-changed", _leaf_order, ("INCLUSION",)),
    Tampering("checkpoint-forged", _checkpoint, ("CHECKPOINT",)),
    Tampering("checkpoint-of-another-log", _checkpoint_of_another_log, ("CHECKPOINT",)),
    Tampering("cosignature-forged", _cosignature, ("WITNESS",)),
    Tampering("consistency-changed", _consistency, ("CONSISTENCY",)),
    Tampering("witness-saw-less", _smaller_witness, ("CONSISTENCY",)),
    Tampering("anchored-another-root", _other_anchored_root, ("CHECKPOINT_ANCHOR",)),
    Tampering("transaction-of-another-root", _other_root, ("CHECKPOINT_ANCHOR",)),
    Tampering("transaction-of-another-kind", _other_kind, ("CHECKPOINT_ANCHOR",)),
    Tampering("anchored-by-another-account", _other_account, ("CHECKPOINT_ANCHOR",)),
    Tampering("transaction-cut", _cut_transaction, ("CHECKPOINT_ANCHOR",)),
    Tampering("anchored-in-another-registry", _other_registry, ("CHECKPOINT_ANCHOR",)),
    Tampering("registration-of-another-plan", _other_leaf, ("REGISTRATION",)),
    Tampering("registration-under-another-path", _leaf_under_other_path, ("REGISTRATION",)),
    Tampering("outcome-differs-on-chain", _other_outcome, ("OUTCOME",)),
    Tampering("registration-shown-as-outcome", _registration_as_outcome, ("OUTCOME",)),
    Tampering("head-changed", _another_plan, ("PLAN_BOUND", "REGISTRATION", "OUTCOME", "GATES", "VOTES", "OUTCOMES")),
    Tampering("leg-changed", _another_leg, ("PLAN",)),
    Tampering("gate-by-another-key", _gate_by_mallory, ("GATES",)),
    Tampering("gate-lost", _validator_lost, ("GATES_RECORDED", "VALIDATION", "QUORUM")),
    Tampering("vote-by-another-key", _vote, ("VOTES",)),
    Tampering("vote-lost", _vote_lost, ("STATEMENTS_RECORDED", "DECISION")),
    Tampering("outcome-other-than-recorded", _outcome, ("STATEMENTS_RECORDED", "EVIDENCE")),
    Tampering("audit-log-changed", _audit_log, ("AUDIT_LOG",)),
)
_STRANGE: Final = "00000000-0000-4000-8000-000000000000"
