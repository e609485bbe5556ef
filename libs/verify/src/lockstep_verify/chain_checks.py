"""Checks of the plan and of its chain in the journal. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from lockstep_verify import merkle
from lockstep_verify.case import Case, Entry, Finding, NotChecked, TrustedKey, trusted_keys
from lockstep_verify.documents import CLOSED, CREATED, ENTRY, HEADER, KEY, LEG, PAYLOAD, SEAL, TERMS
from lockstep_verify.forms import holds, octets
from lockstep_verify.signatures import key_id
from lockstep_verify.strict_json import NotStrict, canonical, parse, statement
from lockstep_verify.transitions import TRANSITIONS

JOURNAL: Final = "event-journal"
_GENESIS: Final = "00" * 32


def plan(case: Case) -> list[Finding]:
    """Head and legs are of their form, and the legs are those under the head's legs_root."""
    given = case.bundle["plan"]
    head = octets(given["header"])
    document = _canonical(head)
    if not holds(HEADER, document):
        return [Finding("plan.header", "is not the RFC 8785 bytes of a plan's head")]
    legs = [octets(each) for each in given["legs"]]
    found = []
    for index, leg in enumerate(legs):
        if not holds(LEG, _canonical(leg)):
            found.append(Finding(f"plan.legs[{index}]", "is not the RFC 8785 bytes of a leg"))
    if found:
        return found
    documents = [parse(leg) for leg in legs]
    for index, each in enumerate(documents):
        if each["kind"] in TERMS and not holds(TERMS[each["kind"]], each["terms"]):
            found.append(Finding(f"plan.legs[{index}]", "does not say what it moves as such a leg does"))
    if found:
        return found
    if len({each["leg_id"] for each in documents}) != len(legs):
        return [Finding("plan.legs", "holds a leg's id twice")]
    root = merkle.root([merkle.leaf_hash(leg) for leg in legs])
    if document["leg_count"] != len(legs) or document["legs_root"] != root.hex():
        return [Finding("plan.legs", "are not the legs under the head's legs_root")]
    case.header, case.legs, case.plan_digest = document, documents, hashlib.sha256(head).hexdigest()
    return []


def _canonical(given: bytes) -> Any:
    """The document in RFC 8785 bytes; None where they hold none."""
    try:
        document = parse(given)
    except NotStrict:
        return None
    return document if canonical(document) == given else None


def entries(case: Case) -> list[Finding]:
    """Each entry's signed bytes are of their form, and about this plan."""
    found = []
    for index, given in enumerate(case.bundle["entries"]):
        place, signed = f"entries[{index}].canonical_bytes", octets(given["canonical_bytes"])
        try:
            document = statement(signed, "lockstep/entry/v1")
        except NotStrict:
            document = None
        if not holds(ENTRY, document):
            found.append(Finding(place, "is not the signed form of an entry"))
            continue
        if document["plan_id"] != case.header["plan_id"]:
            found.append(Finding(place, "belongs to another plan"))
        if document["key_id"] != given["signature"]["key_id"]:
            found.append(Finding(f"entries[{index}].signature.key_id", "is not the key that the signed bytes name"))
        payload = octets(given["payload"]) if "payload" in given else None
        case.entries.append(Entry(f"entries[{index}]", signed, document, payload))
    return found


def chain(case: Case) -> list[Finding]:
    """Each entry is at its place, and names the hash of the entry before."""
    found, previous = [], _GENESIS
    for index, entry in enumerate(case.entries):
        if entry.document["sequence"] != index + 1:
            found.append(Finding(entry.place, "does not have the next sequence"))
        if entry.document["previous_hash"] != previous:
            found.append(Finding(entry.place, "does not name the hash of the entry before"))
        if (entry.document["type"] == CREATED) != (index == 0):
            found.append(Finding(entry.place, "has a type that cannot stand there"))
        previous = entry.hash
    return found


def payloads(case: Case) -> list[Finding]:
    """Each payload that was not erased is the one that was hashed, and of its form."""
    found = []
    for index, entry in enumerate(case.entries):
        if entry.payload is None:
            continue
        document = _canonical(entry.payload)
        if hashlib.sha256(entry.payload).hexdigest() != entry.document["payload_hash"]:
            found.append(Finding(f"{entry.place}.payload", "is not the payload that was hashed"))
        elif not holds(SEAL if entry.document["type"] == CLOSED else PAYLOAD, document):
            found.append(Finding(f"{entry.place}.payload", "is not of the form of its event type"))
        else:
            case.payloads[index] = document
    return found


def seal(case: Case) -> list[Finding]:
    """The chain ends with the journal's seal, which counts the entries before it and names the hash of the last of them."""
    closing = [each for each in case.entries if each.document["type"] == CLOSED]
    if not closing:
        raise NotChecked("the chain is not sealed: what came after these entries is not shown")
    last = case.entries[-1]
    if len(closing) != 1 or closing[0] is not last:
        return [Finding(closing[0].place, "is a seal, and entries stand behind it")]
    if (last.document["actor"], last.document["actor_role"]) != (JOURNAL, "journal"):
        return [Finding(last.place, "is a seal that the journal did not write")]
    case.seal = case.payloads.get(len(case.entries) - 1)
    if case.seal is None:
        return []
    before = len(case.entries) - 1
    if case.seal["entry_count"] != before or before == 0 or case.seal["head_hash"] != case.entries[before - 1].hash:
        return [Finding(f"{last.place}.payload", "does not count the entries before it, or names another head")]
    return []


def plan_bound(case: Case) -> list[Finding]:
    """Every payload but the seal's names the plan's digest."""
    found = []
    for index, payload in case.payloads.items():
        entry = case.entries[index]
        if entry.document["type"] != CLOSED and payload.get("plan_digest") != case.plan_digest:
            found.append(Finding(f"{entry.place}.payload", "does not name this plan's digest"))
    return case.require_payloads(found)


def transitions(case: Case) -> list[Finding]:
    """The plan's transitions are numbered without a gap, and each is one of the protocol's."""
    found: list[Finding] = []
    if case.erased:
        return case.require_payloads(found)
    state, decision = "", ""
    for number, (entry, moved) in enumerate(case.told("transition"), start=1):
        place = f"{entry.place}.payload.transition"
        if moved["transition_no"] != number or moved["from"] != state:
            found.append(Finding(place, "does not go on from the transition before"))
            break
        if not _legal(state, decision, moved):
            found.append(Finding(place, "is no transition of the protocol"))
            break
        state, decision = moved["to"], moved.get("decision", decision)
    if not found and (state == "CLOSED") != (case.seal is not None):
        found.append(Finding("entries", "do not end in the state that the seal closes"))
    return found


def _legal(state: str, decision: str, moved: dict[str, Any]) -> bool:
    if not state:
        return (moved.get("cause"), moved["to"], moved.get("decision")) == ("CREATED", "DRAFT", "")
    if "cause" not in moved:  # the seal's own: it is told where the plan stands, and not why it goes on
        return moved["to"] == "CLOSED" and any((state, decision, "CLOSED") == (row[0], row[1], row[3]) for row in TRANSITIONS)
    return (state, decision, moved["cause"], moved["to"], moved.get("decision")) in TRANSITIONS


def journal_keys(case: Case) -> list[Finding]:
    """The journal's keys: those of the trust file, or those that its first key leads to."""
    trusted = case.require_trust("journal", "the journal")
    if "keys" in trusted:
        case.journal_keys = trusted_keys(trusted["keys"])
        return []
    if "journal_keys" not in case.bundle:
        raise NotChecked("the bundle holds no history of the journal's keys")
    return _history(case, octets(trusted["first_key"]))


def _history(case: Case, first: bytes) -> list[Finding]:
    """Each key is named by the key before, and is shown to be held."""
    keys: list[TrustedKey] = []
    previous = _GENESIS
    for index, given in enumerate(case.bundle["journal_keys"]):
        place, signed = f"journal_keys[{index}]", octets(given["statement"])
        try:
            document = statement(signed, "lockstep/key/v1")
        except NotStrict:
            document = None
        if not holds(KEY, document):
            return [Finding(place, "is not the signed form of a key")]
        key = bytes.fromhex(document["public_key"])
        own = TrustedKey(key, document["not_before"], document["not_after"])
        place_kept = (document["holder"], document["number"], document["previous_hash"]) == (JOURNAL, index + 1, previous)
        if not place_kept or document["key_id"] != key_id(key) or document["not_before"] >= document["not_after"]:
            return [Finding(place, "does not follow the statement before")]
        if index == 0 and key != first:
            return [Finding(place, "is not the first key that the trust file names")]
        if keys and not (keys[-1].not_before <= own.not_before <= keys[-1].not_after <= own.not_after):
            return [Finding(place, "begins or ends before the key before, or leaves a gap behind it")]
        if any(each.octets == key for each in keys):
            return [Finding(place, "is a key that was in the history before")]
        signers = [own] if index == 0 else [keys[-1], own]
        marks = given["signatures"]
        if len(marks) != len(signers) or not all(map(TrustedKey.signed, signers, marks, [signed] * len(marks))):
            return [Finding(place, "is not signed by the key before and by the key itself")]
        keys.append(own)
        previous = hashlib.sha256(signed).hexdigest()
    case.journal_keys = tuple(keys)
    return []


def entry_signatures(case: Case) -> list[Finding]:
    """Each entry is signed by a key of the journal that is valid at its time."""
    found = []
    for entry, given in zip(case.entries, case.bundle["entries"], strict=True):
        moment = entry.document["event_time"]
        if not any(key.valid_at(moment) and key.signed(given["signature"], entry.signed) for key in case.journal_keys):
            found.append(Finding(f"{entry.place}.signature", "is not the journal's, by a key valid at the entry's time"))
    return found
