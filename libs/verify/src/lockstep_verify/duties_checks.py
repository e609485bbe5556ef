"""Checks of who decided: whether those who signed could, for so much, and whether they were as many as the plan's matrix of duties asks for. Pure.

What a participant refuses before it executes is refused here, by all of the plan's amounts: limits and thresholds are monotone in them, so that whoever
sees one leg alone refuses no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final

from lockstep_verify.case import Case, Finding, NotChecked, Signed
from lockstep_verify.people_checks import DECIDING, gate_hash, shown_gates
from lockstep_verify.registry import OPENING, admits, affords, groups, needed

_WORDS: Final = {"MAKE": "made", "APPROVE": "approved", "RELEASE": "released", "VALIDATE": "validated"}


def matrix(case: Case) -> list[Finding]:
    """The auditor holds the matrix of duties that the plan names."""
    version = case.header["sod_version"]
    for each in case.require_trust("matrices", "the matrices of duties"):
        if each["version"] == version:
            case.matrix = each
    return (
        []
        if case.matrix
        else [Finding("plan.header", f"names version {version} of the matrix of duties, which the trust file lacks")]
    )


def roles(case: Case) -> list[Finding]:
    """Each gate is signed by a person with a role that opens, or refuses, it."""
    found = []
    for each in case.gates:
        gate = each.document["gate"]
        if not set(case.person(each.signer)["roles"]) & set(case.matrix["gates"][gate]["roles"]):
            found.append(Finding(each.place, f"is by {each.signer}, who has no role for the gate {gate}"))
    return found


def duties(case: Case) -> list[Finding]:
    """No person signed two gates that the matrix parts: never two of maker's, approver's, releaser's and validator's."""
    found = []
    for index, each in enumerate(case.gates):
        others = {other.document["gate"] for other in case.gates[:index] if other.signer == each.signer}
        gate = each.document["gate"]
        if any(gate in group and (others & set(group)) - {gate} for group in groups(case.matrix)):
            found.append(Finding(each.place, f"is by {each.signer}, who signed another gate of the plan"))
    return found


def limits(case: Case) -> list[Finding]:
    """Who lets the plan go on may sign for as much as it moves. Whoever has the role may stop it, whatever it is worth."""
    found, amounts = [], case.amounts
    for each, gate in _bounded(case):
        if not affords(case.person(each.signer), case.matrix["gates"][gate], amounts):
            found.append(Finding(each.place, f"is by {each.signer}, who may not sign the gate {gate} for {_text(amounts)}"))
    return found


def agents(case: Case) -> list[Finding]:
    """An agent let the plan go on only where the gate is open to agents, for as much as it moves."""
    found, amounts = [], case.amounts
    for each, gate in _bounded(case):
        if not admits(case.person(each.signer), case.matrix["gates"][gate], amounts):
            found.append(Finding(each.place, f"is by the agent {each.signer}, and the gate {gate} takes none for {_text(amounts)}"))
    return found


def _bounded(case: Case) -> Iterator[tuple[Signed, str]]:
    """What limits and the rule for agents apply to."""
    for each in case.gates:
        if each.document["gate"] in OPENING and each.document["verdict"] == "APPROVE":
            yield each, each.document["gate"]


def _text(amounts: dict[str, int]) -> str:
    return ", ".join(f"{units} minor units of {asset}" for asset, units in amounts.items())


def quorum(case: Case) -> list[Finding]:
    """Each gate that the plan went through was opened by as many different persons as the matrix asks for."""
    told = list(case.told("decision"))
    if not told:
        case.require_payloads([])
        raise NotChecked("the plan was never released")
    place, found = f"{told[-1][0].place}.payload.decision", []
    for gate in DECIDING:
        signers = deciders(case, gate)
        twice = sorted({one for one, other in combinations(signers, 2) if one == other})
        found += [Finding(place, f"counts {who} twice at the gate {gate}") for who in twice]
        found += _too_few(case, gate, signers, place)
    if case.seal is not None and case.seal["outcome"] == "COMMITTED":
        found += _too_few(case, "VALIDATE", validators(case), case.entries[-1].place)
    return case.require_payloads(found)


def _too_few(case: Case, gate: str, signers: Iterable[str], place: str) -> list[Finding]:
    there, wanted = len(set(signers)), needed(case.matrix["gates"][gate], case.amounts)
    return [Finding(place, f"rests on {there} of {wanted} persons at the gate {gate}")] if there < wanted else []


def deciders(case: Case, gate: str) -> list[str]:
    """Who opened a gate that the decision rests on, once for each signature that is shown."""
    shown = shown_gates(case)
    said = list(case.told("decision"))[-1][1]
    marks = [
        (gate_hash(case, each), each["signature"]) for each in said["gates"] if (each["gate"], each["verdict"]) == (gate, "APPROVE")
    ]
    return [shown[mark].signer for mark in marks if mark in shown]


def validators(case: Case) -> list[str]:
    """Who validated the evidence that was committed, with signatures that stood then: after the last delivery, which has to be validated anew."""
    shown = shown_gates(case)
    moves = [(entry.document["sequence"], entry.document["event_time"], moved["to"]) for entry, moved in case.told("transition")]
    since = max((sequence for sequence, _, to in moves if to == "VALIDATING"), default=0)
    at = max((time for _, time, to in moves if to == "COMMITTED"), default="")
    found = set()
    for entry, record in case.told("gate"):
        about = (record["gate"], record["verdict"], record.get("evidence_digest"))
        stood = entry.document["sequence"] > since and record["expires_at"] > at
        signed = shown.get((gate_hash(case, record), record["signature"]))
        if (
            stood
            and signed is not None
            and case.seal is not None
            and about == ("VALIDATE", "APPROVE", case.seal["evidence_digest"])
        ):
            found.add(signed.signer)
    return sorted(found)


def decided(case: Case) -> str:
    """Who decided, in words."""
    committed = case.seal is not None and case.seal["outcome"] == "COMMITTED"
    people = {gate: sorted(set(deciders(case, gate))) for gate in DECIDING} | ({"VALIDATE": validators(case)} if committed else {})
    parts = []
    for gate, who in people.items():
        wanted = needed(case.matrix["gates"][gate], case.amounts)
        parts.append(f"{_WORDS[gate]} by {len(who)} of {wanted} required persons ({', '.join(who)})")
    said = f"the plan was {', '.join(parts[:-1])} and {parts[-1]}, none of them at two gates"
    within = f"each in a role and within the limits of version {case.matrix['version']} of the matrix of duties"
    return f"{said}, {within}" + (f", for {_text(case.amounts)}" if case.amounts else "")
