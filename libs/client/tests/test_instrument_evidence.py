"""What a validator finds of an undertaking: nothing where the bank's register and the evidence say what the plan says, and by name whatever differs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from lockstep_client.bank_reader import undertaking_of
from lockstep_client.convert import LegView
from lockstep_client.instrument_evidence import UndertakingFact, check_instrument_leg
from lockstep_kit.ids import LegId, sha256, uetr
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.statements import BankEvidence, InstrumentEvidence
from lockstep_testkit.factories import instrument_terms, leg_of, plan_of

PLAN = plan_of([leg_of("guarantee", instrument_terms(expiry_date=date(2027, 11, 21)))], deadline=datetime(2027, 1, 1, tzinfo=UTC))
TERMS = PLAN.legs[0].terms
assert isinstance(TERMS, IssueInstrument)
REFERENCE = uetr(PLAN.plan_id, LegId("guarantee")).replace("-", "")
SHOWN = InstrumentEvidence("COBADEFF", REFERENCE, "U1", "ISSU", "N1", sha256(b"message"), sha256(b"issuance"))
ROW: dict[str, Any] = {
    "state": "ISSUED", "number": "U1", "account_id": TERMS.applicant_account, "amount": TERMS.amount.minor_units, "currency": "EUR",
    "applicant_name": TERMS.applicant.name, "beneficiary_name": TERMS.beneficiary.name, "advised_to": TERMS.advising_bic,
    "expires_on": "2027-11-21", "issuance_sha256": sha256(b"issuance").hex(),
}  # fmt: skip


def found(fact: UndertakingFact | None, evidence: InstrumentEvidence | BankEvidence = SHOWN) -> list[str]:
    view = LegView(PLAN.legs[0], PLAN.lock("guarantee"), "bank-gateway", None, None, evidence)
    return [each.rule for each in check_instrument_leg(view, PLAN.header, fact)]


def test_an_undertaking_that_holds() -> None:
    """Of an undertaking that is issued as the plan says nothing is found."""
    assert found(undertaking_of(ROW)) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"state": "LODGED"}, "UNDERTAKING_NOT_ISSUED"),
        ({"state": "WITHDRAWN"}, "UNDERTAKING_NOT_ISSUED"),
        ({"number": "U2"}, "UNDERTAKING_NUMBER"),
        ({"issuance_sha256": "00" * 32}, "UNDERTAKING_CONTENT"),
        ({"amount": 1}, "UNDERTAKING_TERMS"),
        ({"currency": "USD"}, "UNDERTAKING_TERMS"),
        ({"account_id": "DE02120300000000202051"}, "UNDERTAKING_TERMS"),
        ({"applicant_name": "Mallory"}, "UNDERTAKING_TERMS"),
        ({"beneficiary_name": "Mallory"}, "UNDERTAKING_TERMS"),
        ({"advised_to": "COBADEFF"}, "UNDERTAKING_TERMS"),
        ({"expires_on": "2027-11-20"}, "UNDERTAKING_TERMS"),
    ],
)
def test_registers_that_differ(change: dict[str, Any], rule: str) -> None:
    """Whatever the register says otherwise is found."""
    assert found(undertaking_of(ROW | change)) == [rule]


def test_evidence_of_something_else() -> None:
    """Evidence of a payment, of another undertaking or of another bank shows nothing; nor does a register that has none."""
    fact = undertaking_of(ROW)
    assert found(fact, BankEvidence("COBADEFF", "u", "ACSC")) == ["BANK_EVIDENCE_MISSING"]
    assert found(fact, replace(SHOWN, reference="0" * 32)) == ["UNDERTAKING_REFERENCE_WRONG"]
    assert found(fact, replace(SHOWN, bank_bic="BNPAFRPP")) == ["UNDERTAKING_ISSUER_WRONG"]
    assert found(None) == ["UNDERTAKING_NOT_ISSUED"]
