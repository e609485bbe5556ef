"""Checks of what persons and participants have signed, and that the chain tells the same. Pure."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from lockstep_verify.case import Case, Entry, Finding, NotChecked, Signed, TrustedKey, trusted_keys
from lockstep_verify.documents import BANK_EVIDENCE, GATE, INSTRUMENT_EVIDENCE, OUTCOME, VOTE
from lockstep_verify.forms import Shape, holds, octets
from lockstep_verify.strict_json import NotStrict, canonical, statement

#: Gates that a decision rests on.
DECIDING: Final = ("MAKE", "APPROVE", "RELEASE")


def gates(case: Case) -> list[Finding]:
    """Each gate's signature is about this plan, and by a trusted person."""
    read, found = _read(case, "gates", "lockstep/gate/v1", GATE)
    for each in read:
        if each.document["plan_digest"] != case.plan_digest:
            found.append(Finding(each.place, "is about another plan"))
    if found:
        return found
    times = _gate_times(case)
    case.require_trust("persons", "the persons who sign")
    for index, each in enumerate(read):
        recorded = times.get((each.hash, each.mark["signature"]))
        owner = case.owner(each.given["key_id"])
        if owner is not None and _counts(owner[1], each, recorded) and owner[1].signed(each.given, each.octets):
            read[index] = replace(each, signer=owner[0]["actor_id"], key=owner[1])
    case.gates = read
    return [Finding(f"{each.place}.signature", "is not by a trusted person") for each in read if not each.signer]


def _counts(key: TrustedKey, signed: Signed, recorded: str | None) -> bool:
    """Whether the key counted when the chain recorded the signature; where it does not say when, before the statement's own end."""
    return key.not_before <= signed.document["expires_at"] if recorded is None else key.valid_at(recorded)


def _gate_times(case: Case) -> dict[tuple[str, str], str]:
    """When the chain recorded each gate's signature."""
    times: dict[tuple[str, str], str] = {}
    for entry, record in case.told("gate"):
        times.setdefault((gate_hash(case, record), record["signature"]), entry.document["event_time"])
    return times


def gates_recorded(case: Case) -> list[Finding]:
    """Each gate that the chain records is one of the bundle's, by the person whom the entry names."""
    found, known = [], {(each.hash, each.mark["key_id"], each.mark["signature"]): each for each in case.gates}
    for entry, record in gate_records(case):
        shown = known.get((gate_hash(case, record), record["key_id"], record["signature"]))
        if shown is None:
            found.append(Finding(f"{entry.place}.payload", "records a gate that the bundle does not show"))
        elif shown.signer != record["actor"]:
            found.append(Finding(f"{entry.place}.payload", "names another person than the one who signed"))
    for entry, record in case.told("gate"):
        if entry.document["actor"] != record["actor"]:
            found.append(Finding(entry.place, "names another actor than the person who signed"))
    return case.require_payloads(found)


def shown_gates(case: Case) -> dict[tuple[str, str], Signed]:
    """The gates of the bundle by what records of them name them by: hash of the statement, and signature."""
    return {(each.hash, each.mark["signature"]): each for each in case.gates}


def gate_records(case: Case) -> Iterable[tuple[Entry, dict[str, Any]]]:
    """Every record of a gate with its entry: those of deciding gates twice."""
    yield from case.told("gate")
    for entry, records in case.told("further_gates"):
        for record in records:
            yield entry, record
    for entry, decision in case.told("decision"):
        for record in decision["gates"]:
            yield entry, record


def gate_hash(case: Case, record: dict[str, Any]) -> str:
    """SHA-256 of the statement that a record of a gate is about."""
    said = {key: value for key, value in record.items() if key not in ("actor", "key_id", "signature")}
    return hashlib.sha256(b"lockstep/gate/v1\n" + canonical(said | {"plan_digest": case.plan_digest})).hexdigest()


def votes(case: Case) -> list[Finding]:
    """Each vote is about a leg of this plan, by the participant that it names."""
    read, found = _read(case, "votes", "lockstep/vote/v1", VOTE)
    for each in read:
        if ("promise" in each.document) == ("refusal" in each.document):
            found.append(Finding(each.place, "is neither a YES nor a NO"))
    if len({each.document["leg_id"] for each in read}) != len(read):
        found.append(Finding("votes", "holds a leg's vote twice"))
    case.votes = read
    return found or _participants(case, read, "voted_at")


def outcomes(case: Case) -> list[Finding]:
    """Each outcome is about a leg of this plan, by the participant that it names."""
    read, found = _read(case, "outcomes", "lockstep/outcome/v1", OUTCOME)
    if len({(each.document["leg_id"], _reverses(each)) for each in read}) != len(read):
        found.append(Finding("outcomes", "holds a leg's outcome twice"))
    case.outcomes = read
    return found or _participants(case, read, "settled_at")


def _reverses(outcome: Signed) -> bool:
    """Whether it answers an order to reverse; such an answer stands beside the leg's outcome."""
    return outcome.document["kind"] in ("REVERSED", "REVERSAL_REFUSED")


def _read(case: Case, name: str, domain: str, form: Shape) -> tuple[list[Signed], list[Finding]]:
    """The bundle's signed statements of one kind, and those that are of another form."""
    if name not in case.bundle:
        raise NotChecked("the bundle holds none")
    read, found = [], []
    for index, given in enumerate(case.bundle[name]):
        place, signed = f"{name}[{index}]", octets(given["statement"])
        try:
            document = statement(signed, domain)
        except NotStrict:
            document = None
        if not holds(form, document):
            found.append(Finding(f"{place}.statement", "is not a statement of its kind"))
            continue
        read.append(Signed(place, signed, document, given["signature"]))
    return read, found


def _participants(case: Case, read: list[Signed], time: str) -> list[Finding]:
    found, legs = [], {each["leg_id"] for each in case.legs}
    for each in read:
        said = each.document
        if (said["plan_id"], said["plan_digest"]) != (case.header["plan_id"], case.plan_digest) or said["leg_id"] not in legs:
            found.append(Finding(each.place, "is about another plan or leg"))
    if found:
        return found
    keys = {each["name"]: trusted_keys(each["keys"]) for each in case.require_trust("participants", "the participants")}
    for each in read:
        own = keys.get(each.document["participant"], ())
        if not any(key.valid_at(each.document[time]) and key.signed(each.given, each.octets) for key in own):
            found.append(Finding(f"{each.place}.signature", "is not by the participant that it names"))
    return found


def statements_recorded(case: Case) -> list[Finding]:
    """What the chain records last of each leg's vote, outcome and reversal is what the bundle shows of it."""
    recorded: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
    for entry, leg in case.told("leg"):
        for name in ("vote", "outcome", "reversal"):
            if name in leg:
                recorded[(name, leg["leg_id"])] = (entry, leg[name])
    shown = {("vote", each.document["leg_id"]): each for each in case.votes}
    shown |= {("reversal" if _reverses(each) else "outcome", each.document["leg_id"]): each for each in case.outcomes}
    found = []
    for key, (entry, record) in recorded.items():
        place, each = f"{entry.place}.payload.leg.{key[0]}", shown.get(key)
        if _superseded(record, each):
            continue
        if each is None:
            found.append(Finding(place, "is recorded and not shown"))
        elif (record["statement_sha256"], record["key_id"], record["signature"]) != (each.hash, *each.mark.values()):
            found.append(Finding(place, "records another statement than the bundle shows"))
        elif _answer(each) != record.get("vote", record.get("kind")):
            found.append(Finding(place, "says another answer than the statement"))
    # What comes once the journal was told to seal is recorded no more; a plan is told to be sealed as committed when it has all of this.
    committed = case.seal is not None and case.seal["outcome"] == "COMMITTED"
    for key, each in shown.items():
        if committed and key not in recorded and (key[0] == "vote" or key[1] in case.settling):
            found.append(Finding(each.place, "is shown and not recorded"))
    return case.require_payloads(found)


def _superseded(record: dict[str, Any], shown: Signed | None) -> bool:
    """Whether a record may be of an earlier answer: a leg that was refused is released in the end, and an order to reverse can be given again."""
    released = shown is not None and shown.document.get("kind") == "RELEASED"
    return record.get("kind") == "REVERSAL_REFUSED" or (record.get("kind") == "REFUSED" and released)


def _answer(signed: Signed) -> str:
    if "voted_at" in signed.document:
        return "YES" if "promise" in signed.document else "NO"
    return str(signed.document["kind"])


def decision(case: Case) -> list[Finding]:
    """Every leg's YES stood when the plan was released, and maker, approver and releaser had signed for it."""
    told = list(case.told("decision"))
    if not told:
        case.require_payloads([])
        committed = case.seal is not None and case.seal["outcome"] == "COMMITTED"
        if committed:
            return [Finding("entries", "hold no decision, and the seal says that the plan was committed")]
        raise NotChecked("the plan was never released")
    entry, said = told[-1]
    place = f"{entry.place}.payload.decision"
    order, given = [each["leg_id"] for each in case.legs], [each.document["leg_id"] for each in case.votes]
    if order != given:
        return [Finding("votes", "are not one of every leg, in plan order")]
    found = []
    for each in case.votes:
        promise = each.document.get("promise")
        if promise is None or promise.get("expires_at", "~") <= said["decided_at"]:
            found.append(Finding(each.place, "is no promise that stood when the plan was released"))
    if said["votes_digest"] != digest_of(case.votes):
        found.append(Finding(place, "is over other votes"))
    if said["decided_at"] > case.header["deadline"]:
        found.append(Finding(place, "was taken after the plan's deadline"))
    return [*found, *_deciding_gates(case, said, place), *_delegation(case, said, place)]


def _deciding_gates(case: Case, said: dict[str, Any], place: str) -> list[Finding]:
    """Each gate that the decision rests on stood open then, by a key that counted; what participants were shown is these signatures and no others."""
    found, shown = [], shown_gates(case)
    for each in said["gates"]:
        gate, signed = each["gate"], shown.get((gate_hash(case, each), each["signature"]))
        if gate not in DECIDING or each["verdict"] != "APPROVE":
            found.append(Finding(place, f"rests on {each['verdict']} at the gate {gate}"))
        elif each["expires_at"] <= said["decided_at"]:
            found.append(Finding(place, f"rests on a signature for the gate {gate} whose time was over"))
        elif signed is not None and signed.key is not None and not signed.key.valid_at(said["decided_at"]):
            found.append(Finding(place, f"rests on a signature for the gate {gate} by a key that did not count then"))
        elif gate == "RELEASE" and each.get("votes_digest") != said["votes_digest"]:
            found.append(Finding(place, "rests on a release of other votes"))
    for gate in DECIDING:
        given = [each for each in said["gates"] if each["gate"] == gate]
        if not any((gate_hash(case, each), each["signature"]) in shown for each in given):
            found.append(Finding(place, f"lacks the gate {gate}"))
    return found


def _delegation(case: Case, said: dict[str, Any], place: str) -> list[Finding]:
    """A decision is left to the first leg whose promise can lapse, if to any, and to none only where that is accepted."""
    soft = [each.document["leg_id"] for each in case.votes if _soft(each.document.get("promise", {}))]
    if said["delegate"] and said["delegate"] not in soft[:1]:
        return [Finding(place, "is left to a leg that is not the first whose promise can lapse")]
    if not said["delegate"] and soft and not case.header["policy"]["accept_expiry_risk"]:
        return [Finding(place, "is not left to the leg whose promise can lapse, and the plan does not accept that risk")]
    done = {each.document["leg_id"] for each in case.outcomes if each.document["kind"] == "DONE"}
    if said["delegate"] and said["delegate"] not in done and done & set(case.settling):
        return [Finding("outcomes", "hold a leg that was executed, and not the one that the decision was left to")]
    return []


def _soft(promise: dict[str, Any]) -> bool:
    return promise.get("kind") == "BEST_EFFORT" or "expires_at" in promise


def digest_of(signed: Iterable[Signed]) -> str:
    """Digest over statements, as releaser and validator sign it."""
    return hashlib.sha256(canonical([{"statement": each.hash, **each.mark} for each in signed])).hexdigest()


def evidence(case: Case) -> list[Finding]:
    """What participants signed is the outcome that the seal says; of a committed plan, the seal names the digest over it."""
    if case.seal is None:
        raise NotChecked("the seal's payload was erased")
    ended = case.seal["outcome"]
    own = {each.document["leg_id"]: each for each in case.outcomes if not _reverses(each)}
    given = [own[leg] for leg in case.settling if leg in own]
    done = {each.document["leg_id"] for each in given if each.document["kind"] == "DONE"}
    undone = {each.document["leg_id"] for each in case.outcomes if each.document["kind"] == "REVERSED"}
    if ended == "COMMITTED" and len(done) != len(given):
        return [Finding("outcomes", "hold a leg that was not executed, and the seal says that the plan was committed")]
    if ended == "COMMITTED" and case.seal["evidence_digest"] != digest_of(given):
        return [Finding(f"{case.entries[-1].place}.payload", "names other evidence than the outcomes that are shown")]
    if ended == "ABORTED" and done:
        return [Finding("outcomes", "hold a leg that was executed, and the seal says that the plan was aborted")]
    if ended == "REVERSED" and done - undone:
        if any(case.told("resolution")):
            raise NotChecked("operators answered for a participant")
        return [Finding("outcomes", "hold a leg that was executed and not reversed, and the seal says that the plan was reversed")]
    return []


def validation(case: Case) -> list[Finding]:
    """A validator signed over the evidence of a committed plan."""
    if case.seal is None:
        raise NotChecked("the seal's payload was erased")
    if case.seal["outcome"] != "COMMITTED":
        raise NotChecked("the plan was not committed")
    validated = [each.document for each in case.gates if each.document["gate"] == "VALIDATE"]
    if (case.seal["evidence_digest"], "APPROVE") not in [(each.get("evidence_digest"), each["verdict"]) for each in validated]:
        return [Finding("gates", "hold no validator's signature over the evidence")]
    return []


def audit_log(case: Case) -> list[Finding]:
    """The seal of a plan that did not settle names the hash of its abort audit log."""
    if case.seal is None:
        raise NotChecked("the seal's payload was erased")
    if case.seal["outcome"] == "COMMITTED":
        raise NotChecked("the plan was committed")
    if "audit_log" not in case.bundle:
        raise NotChecked("the bundle holds no abort audit log")
    if hashlib.sha256(octets(case.bundle["audit_log"])).hexdigest() != case.seal["evidence_digest"]:
        return [Finding("audit_log", "is not the log whose hash the seal names")]
    return []


def messages(case: Case) -> list[Finding]:
    """Banks' messages that outcomes name are of their form, and payments have the reference that follows from plan and leg."""
    found = []
    for each in case.outcomes:
        shown = each.document.get("evidence", {})
        leg = each.document["leg_id"]
        if shown.get("kind") == "bank":
            if not holds(BANK_EVIDENCE, shown):
                found.append(Finding(each.place, "holds evidence of another form"))
                continue
            if shown["uetr"] != _uetr(case.header["plan_id"], leg):
                found.append(Finding(each.place, "names a payment of another plan or leg"))
            case.messages.append({"leg_id": leg, **{key: shown[key] for key in BANK_EVIDENCE.required}})
        elif shown.get("kind") == "instrument":
            if not holds(INSTRUMENT_EVIDENCE, shown):
                found.append(Finding(each.place, "holds evidence of another form"))
                continue
            case.messages.append({"leg_id": leg, **{key: shown[key] for key in INSTRUMENT_EVIDENCE.required}})
    if not found and not case.messages:
        raise NotChecked("no outcome names a message of a bank")
    return found


def _uetr(plan_id: str, leg_id: str) -> str:
    """A leg's unique end-to-end transaction reference: 128 bits of a SHA-256, marked as UUID version 4."""
    digest = hashlib.sha256(b"\x1f".join((b"lockstep/v1", plan_id.encode("ascii"), leg_id.encode("ascii")))).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
