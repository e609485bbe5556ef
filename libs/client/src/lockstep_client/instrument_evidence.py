"""Instrument legs: what the bank's own register of undertakings says, compared with what the leg was to do. Pure."""

from __future__ import annotations

from lockstep_client.convert import LegView
from lockstep_client.evidence import Finding, Findings
from lockstep_kit import ids
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.plan import PlanHeader
from lockstep_kit.statements import InstrumentEvidence
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class UndertakingFact:
    """An undertaking in the bank's register."""

    #: LODGED, ISSUED, WITHDRAWN, …
    state: str
    #: Its number.
    number: str
    #: Account of the applicant.
    account: str
    #: The most that can be demanded, in minor units.
    minor_units: int
    #: ISO 4217 code.
    currency: str
    #: Name of the applicant.
    applicant: str
    #: Name of the beneficiary.
    beneficiary: str
    #: Bank that it was advised to; "" before it was issued.
    advised_to: str
    #: ISO 8601 date.
    expires_on: str
    #: SHA-256 of the issuance's Document, canonicalised, hex.
    issuance_sha256: str


def check_instrument_leg(view: LegView, header: PlanHeader, fact: UndertakingFact | None) -> list[Finding]:
    """The undertaking is issued, is the one that the evidence names, and is in everything what the leg says."""
    found = Findings(view.leg.leg_id)
    terms, evidence = view.leg.terms, view.evidence
    if not isinstance(terms, IssueInstrument) or not isinstance(evidence, InstrumentEvidence):
        found.note("BANK_EVIDENCE_MISSING", "an instrument is shown by the bank's notification of its issue, and there is none")
        return found
    reference = ids.uetr(header.plan_id, view.leg.leg_id).replace("-", "")
    found.expect(evidence.reference == reference, "UNDERTAKING_REFERENCE_WRONG", "the evidence is about another undertaking")
    found.expect(evidence.bank_bic[:8] == terms.issuing_bic[:8], "UNDERTAKING_ISSUER_WRONG", "the evidence is another bank's")
    if not found.expect(
        fact is not None and fact.state == "ISSUED",
        "UNDERTAKING_NOT_ISSUED",
        f"the bank's register says {'nothing' if fact is None else fact.state}",
        may_pass=fact is None or fact.state == "LODGED",
    ):
        return found
    if fact is None:
        raise AssertionError("what is issued is in the register")
    found.expect(fact.number == evidence.undertaking_number, "UNDERTAKING_NUMBER", "the register has another number")
    same = fact.issuance_sha256 == evidence.issuance_sha256.hex()
    found.expect(same or not evidence.issuance_sha256, "UNDERTAKING_CONTENT", "the register has another issuance than the evidence")
    compared = {
        "amount": ((fact.minor_units, fact.currency), (terms.amount.minor_units, terms.amount.asset)),
        "account": (fact.account, terms.applicant_account),
        "applicant": (fact.applicant, terms.applicant.name),
        "beneficiary": (fact.beneficiary, terms.beneficiary.name),
        "advising bank": (fact.advised_to, terms.advising_bic),
        "expiry": (fact.expires_on, terms.expiry_date.isoformat()),
    }
    for name, (told, agreed) in compared.items():
        found.expect(told == agreed, "UNDERTAKING_TERMS", f"the register has {told} for the {name}, the plan {agreed}")
    return found
