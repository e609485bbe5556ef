"""Checks of what operators decided about exceptions, and of what was reversed by their order. Pure.

A resolution counts when two operators, neither of whom had signed a gate of the plan, signed the same; it takes effect once. Participants reverse by such
an order, or by the plan's own policy, and sign which order they answer.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from lockstep_verify.case import Case, Entry, Finding, NotChecked
from lockstep_verify.people_checks import gate_hash, gate_records, shown_gates
from lockstep_verify.registry import OPENING
from lockstep_verify.strict_json import canonical

SIGNERS: Final = 2
_RESOLVED: Final = "exception.resolved"
#: What a resolution that moves the plan must say.
_CAUSES: Final = {"UNWIND_ORDERED": "REVERSE", "REDRIVEN": "RETRY"}


def resolutions(case: Case) -> list[Finding]:
    """Each resolution is two operators' word over this plan's exception, and took effect once; nothing is resolved without one."""
    found: list[Finding] = []
    case.require_trust("persons", "the operators")
    told, seen = list(case.told("resolution")), set[str]()
    for entry, mandate in told:
        place, said = f"{entry.place}.payload.resolution", mandate["resolution"]
        digest = hashlib.sha256(canonical(said)).hexdigest()
        wrong = [*_about(case, entry, said), *_signed(case, entry, mandate)]
        if mandate["digest"] != digest:
            wrong.append("does not have the digest that is recorded")
        if digest in seen:
            wrong.append("takes effect a second time")
        seen.add(digest)
        found += [Finding(place, each) for each in wrong]
        if not wrong and said["verb"] == "REVERSE":
            case.orders.append(_order([_statement(said, each) for each in mandate["signatures"]]))
    found += _unresolved(case, {entry.place for entry, _ in told})
    if not found and not told:
        case.require_payloads([])
        raise NotChecked("operators resolved nothing")
    return case.require_payloads(found)


def _about(case: Case, entry: Entry, said: dict[str, Any]) -> list[str]:
    """What is wrong with what was resolved."""
    wrong = []
    if said["plan_digest"] != case.plan_digest:
        wrong.append("is about another plan")
    answers = said["verb"] == "RESOLVE" and said["leg_id"] != ""
    if ("executed" in said, "evidence" in said) != (answers, answers) or (
        said["leg_id"] and said["verb"] not in ("RETRY", "RESOLVE")
    ):
        wrong.append("says too much or too little for its verb")
    raised = [(each, payload) for each, payload in _payloads(case, "exception.raised") if _before(each, entry)]
    named = {
        payload["escalation"]["escalation_id"]: payload.get("leg", {}).get("leg_id", "")
        for _, payload in raised
        if "escalation" in payload
    }
    if said["escalation_id"] not in named:
        # Of what was erased, and of chains from before exceptions were named in them, nobody can say which one it was.
        if not case.erased and all("escalation" in payload for _, payload in raised):
            wrong.append("is about an exception that was never raised")
    elif said["leg_id"] not in ("", named[said["escalation_id"]]):
        wrong.append("names another leg than the exception that it is about")
    moved = _payload(case, entry).get("transition")
    if moved is not None and _CAUSES.get(moved.get("cause", "")) != said["verb"]:
        wrong.append(f"is {said['verb']}, which does not move the plan so")
    return wrong


def _signed(case: Case, entry: Entry, mandate: dict[str, Any]) -> list[str]:
    """What is wrong with who signed."""
    wrong, people, barred = [], [], _openers(case, entry)
    given, at = mandate["signatures"], entry.document["event_time"]
    if len(given) != SIGNERS:
        wrong.append(f"takes {SIGNERS} operators' signatures, and {len(given)} are there")
    for index, each in enumerate(given):
        owner = case.owner(each["key_id"])
        if owner is None or not owner[1].made(each["signature"], _statement(mandate["resolution"], each)):
            wrong.append(f"has a signature, its number {index}, that is not by a trusted person over this resolution")
            continue
        person = owner[0]["actor_id"]
        people.append(person)
        if not owner[1].valid_at(at) or each["expires_at"] <= at:
            wrong.append(f"is signed by {person} with a key or a statement that did not count then")
        if "operator" not in owner[0]["roles"]:
            wrong.append(f"is signed by {person}, who is no operator")
        if person != each["actor"]:
            wrong.append(f"names {each['actor']} where {person} signed")
        if person in barred:
            wrong.append(f"is signed by {person}, who had signed a gate of the plan")
    if len(set(people)) != len(people):
        wrong.append("is signed twice by the same person")
    if given and (entry.document["type"], entry.document["actor"]) != (_RESOLVED, given[-1]["actor"]):
        wrong.append("is recorded as another actor's, or as something else")
    return wrong


def _openers(case: Case, before: Entry) -> set[str]:
    """Who had signed one of the gates that need different persons, as far as the chain records it up to there."""
    shown = shown_gates(case)
    marks = [
        (gate_hash(case, each), each["signature"])
        for entry, each in gate_records(case)
        if _before(entry, before) and each["gate"] in OPENING
    ]
    return {shown[mark].signer for mark in marks if mark in shown}


def _unresolved(case: Case, with_resolution: set[str]) -> list[Finding]:
    """What was resolved without operators: the plan's own policy may reverse, and what operators answered for a leg may have the plan go on."""
    found, answered = [], False
    for entry, payload in _payloads(case, _RESOLVED):
        if entry.place not in with_resolution:
            cause = payload.get("transition", {}).get("cause", "")
            by_policy = cause == "UNWIND_ORDERED" and case.header["policy"]["unwind_automatically"]
            if not by_policy and not (cause == "REDRIVEN" and answered):
                found.append(Finding(entry.place, "resolves an exception, and shows no operators' resolution"))
        said = payload.get("resolution", {}).get("resolution", {})
        answered = said.get("verb") == "RESOLVE" and said.get("leg_id", "") != ""
    if case.seal is not None and case.seal["outcome"] == "MIXED" and not case.erased:
        settled = [each["resolution"] for _, each in case.told("resolution") if each["resolution"]["verb"] == "RESOLVE"]
        if not any(each["leg_id"] == "" for each in settled):
            found.append(Finding(case.entries[-1].place, "seals a plan as settled outside, and no operators said so"))
    return found


def reversals(case: Case) -> list[Finding]:
    """What was reversed, or refused to be, answers an order: of two operators, or of the plan's own policy."""
    case.require_trust("persons", "the operators")
    found, answers = [], [each for each in case.outcomes if each.document["kind"] in ("REVERSED", "REVERSAL_REFUSED")]
    if not answers:
        raise NotChecked("nothing was reversed")
    refused = {leg["leg_id"] for _, leg in case.told("leg") if leg.get("outcome", {}).get("kind") == "REFUSED"}
    by_policy = hashlib.sha256(canonical({"domain": "lockstep/reverse/v1", "policy_of_plan": case.plan_digest})).hexdigest()
    for each in answers:
        order = each.document.get("order", "")
        policy = order == by_policy and case.header["policy"]["unwind_automatically"] and bool(refused - {each.document["leg_id"]})
        if order not in case.orders and not policy:
            found.append(Finding(each.place, "answers an order to reverse that nobody who may is shown to have given"))
    if found and case.erased:
        raise NotChecked("payloads were erased")
    return found


def _order(statements: list[bytes]) -> str:
    """What names an order of two operators: their statements have nonces, so each order is one of its own."""
    hashes = sorted(hashlib.sha256(each).hexdigest() for each in statements)
    return hashlib.sha256(canonical({"domain": "lockstep/reverse/v1", "statements": hashes})).hexdigest()


def _statement(said: dict[str, Any], signed: dict[str, Any]) -> bytes:
    return b"lockstep/resolution/v1\n" + canonical(
        {"resolution": said, "nonce": signed["nonce"], "expires_at": signed["expires_at"]}
    )


def _payload(case: Case, entry: Entry) -> dict[str, Any]:
    return case.payloads.get(entry.document["sequence"] - 1, {})


def _payloads(case: Case, event_type: str) -> list[tuple[Entry, dict[str, Any]]]:
    found = sorted(case.payloads.items())
    return [(case.entries[index], payload) for index, payload in found if case.entries[index].document["type"] == event_type]


def _before(entry: Entry, other: Entry) -> bool:
    return bool(entry.document["sequence"] < other.document["sequence"])


def resolved(case: Case) -> str:
    """Who resolved what, in words."""
    parts = []
    for _, mandate in case.told("resolution"):
        said, who = mandate["resolution"], " and ".join(each["actor"] for each in mandate["signatures"])
        about = f" of the leg {said['leg_id']}" if said["leg_id"] else ""
        parts.append(f"{said['escalation_id']} by {said['verb']}{about}, signed by {who}")
    return f"two operators each time, neither with a part in the plan's gates, resolved: {'; '.join(parts)}"
