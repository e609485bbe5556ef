"""What the page shows of a plan, its chain in the journal, escalations and money at risk: JSON of messages. Pure.

It stands on the documents that the `lockstep` command prints, so that page and command say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.journal.v1 import entry_pb2
from lockstep_client.convert import entry_from_pb, plan_from_pb
from lockstep_client.documents import entry_document, plan_document, present, transition_document
from lockstep_client.evidence import check_journal, check_plan
from lockstep_client.journal_chain import ChainVerdict, verify_chain
from lockstep_client.operator_documents import doubt_document, escalation_file_document, file_document, total_document
from lockstep_client.rendering import amount_text, shown_by, terms_text
from lockstep_kit.convert import gate_from_pb, time_from_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.foreign_json import read_json
from lockstep_kit.registry import Registry
from lockstep_kit.resolutions import Verb
from lockstep_kit.statements import Gate

Document = dict[str, Any]

#: What each verb does to a plan where it names no leg, and where it names one: docs/protocol.md.
VERBS: Final[Mapping[Verb, tuple[str, str]]] = {
    Verb.RETRY: (
        "what waits is sent again now, dead letters included",
        "the leg is tried again; the operators' own word that it took no effect is taken back",
    ),
    Verb.REVERSE: (
        "the plan is unwound, once it is known of every leg whether it took effect: what did is reversed, what is held is released",
        "",
    ),
    Verb.RESOLVE: (
        "the plan counts as settled outside: its outcome is MIXED for ever",
        "what the operators show of the leg counts in place of its participant's answer from then on",
    ),
    Verb.FORGET: ("the escalation is closed, since its matter is over; nothing is sent to anyone", ""),
}
#: What RETRY does besides where legs stand differently though the plan was decided to be settled.
GOES_ON: Final = (
    "; the plan goes on to be settled where nothing is refused for good or contradicted, and its evidence is validated anew"
)
#: Gates that people sign one by one, and what the signature does.
GATES: Final[Mapping[Gate, str]] = {
    Gate.APPROVE: "lets the plan be released, once every leg is promised",
    Gate.RELEASE: "has the plan executed over the promises as they stand: money moves",
    Gate.VALIDATE: "accepts the evidence of every leg: the plan is settled",
}
#: Payloads of more are not shown.
PAYLOAD_BYTES_MAX: Final = 16 << 10


def plan_view(plan: settlement.Plan, transitions: Iterable[settlement.Transition], registry: Registry) -> Document:
    """A plan: where it stands, how it came there, its legs, who signed, who is awaited, and what of it does not hold."""
    document = plan_document(plan)
    for shown, leg in zip(document["legs"], plan.legs, strict=True):
        shown.update(present({"what": terms_text(leg), "shown_by": shown_by(leg), "depends_on": list(leg.leg.depends_on)}))
    for gate, record in zip(document["gates"], plan.gates, strict=True):
        gate["good"] = bool(_signer(record, registry))
    return document | {
        "parties": [present({"id": each.party_id, "name": each.name, "lei": each.lei}) for each in plan.header.parties],
        "transitions": [transition_document(each) for each in transitions],
        "gates_awaited": gates_awaited(plan),
        "findings": _findings(plan, registry),
    }


def _signer(record: settlement.GateRecord, registry: Registry) -> str:
    """Who signed, by the console's own registry and not by the coordinator's word; "" where that is not who is named."""
    try:
        signed, moment = gate_from_pb(record.signature), time_from_pb(record.sign_time, "sign_time")
    except FieldInvalid:
        return ""
    actor = registry.actor_of(signed.signature, signed.statement.signed_bytes(), moment)
    return record.actor_id if actor is not None and actor.actor_id == record.actor_id else ""


def gates_awaited(plan: settlement.Plan) -> list[Document]:
    """Gates that wait for a person, with what the signature does."""
    by_name = {gate.value: (gate, does) for gate, does in GATES.items()}
    found = []
    for each in plan_document(plan)["waiting"]:
        if each.get("kind") == "GATE" and each.get("gate") in by_name:
            found.append({"gate": each["gate"], "does": by_name[each["gate"]][1], "who": each.get("who", [])})
    return found


def _findings(plan: settlement.Plan, registry: Registry) -> list[Document]:
    """What of the plan does not hold by the console's own registry; what has only not come yet is left out."""
    awaited = ["MISSING", "INCOMPLETE", "GATE_SIGNATURES", "VOTE_NO", "OUTCOME_NOT_DONE"]
    if not plan.evidence_digest:
        awaited.append("EVIDENCE_DIGEST_DIFFERS")
    try:
        found = check_plan(plan_from_pb(plan), registry)
    except FieldInvalid as error:
        return [{"rule": "PLAN_MALFORMED", "leg_id": "", "message": str(error)}]
    told = [each for each in found if not each.rule.endswith(tuple(awaited))]
    return [{"rule": each.rule, "leg_id": each.leg_id, "message": each.message} for each in told]


def journal_view(plan: settlement.Plan, entries: Sequence[entry_pb2.Entry], registry: Registry) -> Document:
    """A plan's chain, with what the console itself found of its links, hashes and signatures."""
    try:
        read = [entry_from_pb(each) for each in entries]
        chain = verify_chain(read, plan.header.plan_id, registry)
        found = check_journal(chain, plan_from_pb(plan), complete_to=plan.journal_sequence)
    except FieldInvalid as error:
        return {"verdict": "BROKEN", "entry_count": len(entries), "entries": [], "findings": [_finding("MALFORMED", 0, str(error))]}
    # What the journal does not hold yet is no lie of it.
    late = [each for each in found if each.may_pass]
    wrong = [_finding(each.rule, 0, each.message) for each in found if not each.may_pass and each.rule != "JOURNAL_PAYLOADS_ERASED"]
    return {
        "verdict": "BROKEN" if wrong else "BEHIND" if late else "ERASED" if chain.payloads_erased else "HOLDS",
        "says": _says(chain, plan.journal_sequence, wrong, late=bool(late)),
        "entry_count": chain.entry_count,
        "recorded_count": plan.journal_sequence,
        "sealed": chain.sealed,
        "head_hash": chain.head_hash.hex(),
        "findings": wrong + [_finding(each.rule, 0, each.message) for each in late],
        "entries": [_entry(each) for each in entries],
    }


def _finding(rule: str, sequence: int, message: str) -> Document:
    return {"rule": rule, "sequence": sequence, "message": message}


def _says(chain: ChainVerdict, recorded: int, wrong: Sequence[Document], *, late: bool) -> str:
    if wrong:
        return "The chain does not hold: do not sign over it, and call somebody."
    if late:
        return f"The journal holds {chain.entry_count} of {recorded} entries so far; every link, hash and signature of those holds."
    if chain.payloads_erased:
        return "Every link, hash and signature holds; the payloads were erased, so that what they said cannot be seen."
    seal = ", and the seal ends it" if chain.sealed else "; it is not sealed yet"
    return f"Every link, hash and signature of {chain.entry_count} entries holds{seal}."


def _entry(entry: entry_pb2.Entry) -> Document:
    """An entry, with its payload as it was written, where that is short enough to be read."""
    document = entry_document(entry) | {"position": entry.position}
    if not entry.payload or len(entry.payload) > PAYLOAD_BYTES_MAX:
        return document
    try:
        return document | {"payload": read_json(entry.payload)}
    except ValueError:
        return document


def escalations_view(files: Iterable[operators.EscalationFile]) -> Document:
    """Escalations, as a list shows them."""
    return {"escalations": [_with_verbs(file_document(each)) | {"at_risk_text": _amounts(each)} for each in files]}


def escalation_view(answer: operators.GetEscalationResponse) -> Document:
    """An escalation with its plan, what is at risk, and what each verb that the coordinator allows now would do."""
    return _with_verbs(escalation_file_document(answer)) | {"at_risk_text": _amounts(answer.escalation)}


def _with_verbs(document: Document) -> Document:
    """Options and the text of what each does; the coordinator says which there are."""
    redriven = (document["state"], document.get("decision")) == ("PARTIALLY_EXECUTED", "COMMIT")
    options = [each | {"does": _does(each.get("verb", ""), "leg_id" in each, redriven)} for each in document.get("options", [])]
    return document | {"options": options}


def _does(verb: str, of_leg: bool, redriven: bool) -> str:
    """What a verb does to the plan as it stands; "" for one that this version does not know."""
    if verb not in tuple(Verb):
        return ""
    return VERBS[Verb(verb)][of_leg] + (GOES_ON if redriven and verb == Verb.RETRY else "")


def _amounts(file: operators.EscalationFile) -> list[str]:
    return [amount_text(each) for each in file.at_risk]


def in_doubt_view(totals: Sequence[operators.AssetAtRisk], legs: Sequence[operators.InDoubtLeg]) -> Document:
    """Money at risk, by asset and by leg."""
    return {
        "totals": [total_document(each) | {"text": amount_text(each.amount)} for each in totals],
        "legs": [doubt_document(each) | {"text": amount_text(each.amount)} for each in legs],
    }
