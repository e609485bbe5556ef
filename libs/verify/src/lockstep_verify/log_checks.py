"""Checks of the journal's log: checkpoint, inclusion, witness, and what is anchored on chain. Pure."""

from __future__ import annotations

from typing import Any, Final

from lockstep_verify import merkle, notes, transactions
from lockstep_verify.case import Case, Finding, NotChecked
from lockstep_verify.documents import LEAF_DOMAIN, OUTCOME_LEAF, REGISTRATION_LEAF
from lockstep_verify.forms import Shape, holds, octets
from lockstep_verify.strict_json import NotStrict, statement

#: Kinds of anchors, as the contract numbers them.
_KINDS: Final = {"checkpoint": 1, "registrations": 2, "outcomes": 3}
#: How the registry names what the seal says. A plan that was reversed moved nothing in the end.
STATUSES: Final = {"COMMITTED": "Committed", "ABORTED": "Aborted", "REVERSED": "Aborted", "MIXED": "Mixed"}


def checkpoint(case: Case) -> list[Finding]:
    """The checkpoint is the log's, signed by a key of the journal."""
    try:
        note = notes.parse(octets(case.bundle["checkpoint"]))
    except notes.NoteBroken:
        return [Finding("checkpoint", "is no signed checkpoint")]
    if note.origin != case.trust["journal"]["origin"]:
        return [Finding("checkpoint", "is of another log")]
    if not _signed_by_journal(case, note):
        return [Finding("checkpoint", "is not signed by the journal")]
    case.checkpoint = note
    return []


def _signed_by_journal(case: Case, note: notes.Note) -> bool:
    return any(note.signed_by(note.origin, key.octets) for key in case.journal_keys)


def inclusion(case: Case) -> list[Finding]:
    """Each entry is a leaf of the tree under the checkpoint's root, in the order of the chain."""
    found, before, note = [], -1, _known(case.checkpoint)
    for entry, given in zip(case.entries, case.bundle["entries"], strict=True):
        index, path = int(given["leaf_index"]), [octets(each) for each in given["inclusion_path"]]
        if index <= before:
            found.append(Finding(f"{entry.place}.leaf_index", "does not come after the entry before"))
        if not merkle.included(merkle.leaf_hash(entry.signed), index, note.size, path, note.root):
            found.append(Finding(f"{entry.place}.inclusion_path", "does not lead to the checkpoint's root"))
        before = index
    return found


def _known(note: notes.Note | None) -> notes.Note:
    if note is None:
        raise AssertionError("a check runs only when those that it relies on have passed")
    return note


def witness(case: Case) -> list[Finding]:
    """The witness has cosigned a checkpoint of the same log."""
    if "witnessed" not in case.bundle:
        raise NotChecked("the bundle holds no checkpoint of a witness")
    trusted = case.require_trust("witness", "the witness")
    try:
        note = notes.parse(octets(case.bundle["witnessed"]["note"]))
    except notes.NoteBroken:
        return [Finding("witnessed.note", "is no signed checkpoint")]
    if note.origin != _known(case.checkpoint).origin or not _signed_by_journal(case, note):
        return [Finding("witnessed.note", "is not a checkpoint of the journal")]
    times = [note.cosigned_at(trusted["name"], octets(key)) for key in trusted["keys"]]
    moment = next((each for each in times if each is not None), None)
    if moment is None:
        return [Finding("witnessed.note", "is not cosigned by the witness")]
    case.witnessed, case.witnessed_at = note, moment
    return []


def consistency(case: Case) -> list[Finding]:
    """The log that the witness saw begins with the log of the checkpoint."""
    before, after = _known(case.checkpoint), _known(case.witnessed)
    path = [octets(each) for each in case.bundle["witnessed"]["consistency_path"]]
    if not merkle.consistent(before.size, before.root, after.size, after.root, path):
        return [Finding("witnessed.consistency_path", "does not show that the witness's log begins with the checkpoint's")]
    return []


def checkpoint_anchor(case: Case) -> list[Finding]:
    """A signed transaction anchors the witness's root and size in the registry."""
    note = _known(case.witnessed)
    given = case.bundle["witnessed"].get("anchor")
    if given is None:
        raise NotChecked("the bundle holds no anchor of the witness's checkpoint")
    return _anchor(case, given, "witnessed.anchor", "checkpoint", note.root, note.size)


def _anchor(case: Case, given: dict[str, Any], place: str, kind: str, root: bytes, size: int) -> list[Finding]:
    """The anchor is of that root, in the trusted registry, and its transaction says so itself."""
    trusted = case.require_trust("chain", "the chain and its registry")
    if (given["kind"], octets(given["root"]), int(given["size"])) != (kind, root, size):
        return [Finding(place, "is of another root")]
    if given["chain"] != trusted["chain"] or given["registry"].lower() != trusted["registry"].lower():
        return [Finding(place, "is in another registry")]
    if "raw_transaction" not in given:
        raise NotChecked("the anchor names no transaction: a node alone can say whether the registry holds the root")
    try:
        sent = transactions.parse(octets(given["raw_transaction"]))
    except transactions.TransactionBroken:
        return [Finding(f"{place}.raw_transaction", "is no transaction that anchors roots")]
    target = bytes.fromhex(trusted["registry"][2:])
    if trusted["chain"] != f"eip155:{sent.chain_number}" or sent.to != target:
        return [Finding(f"{place}.raw_transaction", "calls another registry")]
    if (_KINDS[kind], root, size) not in sent.roots:
        return [Finding(f"{place}.raw_transaction", "anchors other roots")]
    if "accounts" in trusted and sent.sender.hex() not in [each[2:].lower() for each in trusted["accounts"]]:
        return [Finding(f"{place}.raw_transaction", "is signed by an account that the trust file does not name")]
    case.blocks[kind] = (sent.hash.hex(), given["block_number"], octets(given["block_hash"]).hex(), sent.sender.hex())
    return []


def registration(case: Case) -> list[Finding]:
    """The plan's digest is registered on chain: by itself, or as a leaf under a root that is anchored."""
    return _notarised(case, "registration", REGISTRATION_LEAF, {}, ("Registered",))


def outcome(case: Case) -> list[Finding]:
    """The plan's outcome and the hash of its evidence are recorded on chain, as the seal says them."""
    said = {}
    if case.seal is not None:
        said = {"outcome": STATUSES[case.seal["outcome"]], "evidence_digest": case.seal["evidence_digest"]}
    elif "outcome" in case.bundle:
        raise NotChecked("the seal's payload was erased, or there is no seal: nothing says what the outcome must be")
    return _notarised(case, "outcome", OUTCOME_LEAF, said, (said.get("outcome", ""),))


def _notarised(case: Case, name: str, form: Shape, said: dict[str, str], statuses: tuple[str, ...]) -> list[Finding]:
    given = case.bundle.get(name, {})
    trusted = case.require_trust("chain", "the chain and its registry")
    record = given.get("record")
    if record is not None:
        at_home = record["chain"] == trusted["chain"] and record["registry"].lower() == trusted["registry"].lower()
        if not at_home or octets(record["entry_key"]).hex() != case.plan_digest or record["entry_status"] not in statuses:
            return [Finding(f"{name}.record", "is about another plan, outcome or registry")]
    if "proof" not in given:
        raise NotChecked(
            "the bundle holds a record that a node alone can confirm" if record else "the bundle holds no record of it"
        )
    return _proof(case, given["proof"], name, form, said)


def _proof(case: Case, given: dict[str, Any], name: str, form: Shape, said: dict[str, str]) -> list[Finding]:
    leaf, place = octets(given["leaf_data"]), f"{name}.proof"
    try:
        document = statement(leaf, LEAF_DOMAIN)
    except NotStrict:
        document = None
    if not holds(form, document):
        return [Finding(f"{place}.leaf_data", "is no leaf of that kind")]
    if document["plan_digest"] != case.plan_digest or any(document[key] != value for key, value in said.items()):
        return [Finding(f"{place}.leaf_data", "is about another plan or outcome")]
    index, size, root = int(given["leaf_index"]), int(given["tree_size"]), octets(given["root"])
    path = [octets(each) for each in given["path"]]
    if not merkle.included(merkle.leaf_hash(leaf), index, size, path, root):
        return [Finding(f"{place}.path", "does not lead to the root")]
    if "anchor" not in given:
        raise NotChecked("the root is not anchored yet")
    return _anchor(case, given["anchor"], f"{place}.anchor", f"{name}s", root, size)
