"""Undertakings in plans: their leaf for ever, their form rules, and their way through a message."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from lockstep.type.v1 import plan_pb2
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.convert.instruments import FORMS, RULES, instrument_from_pb, instrument_to_pb
from lockstep_kit.convert.plans import leg_from_pb, leg_to_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PartyId
from lockstep_kit.instruments import GoverningRules, UndertakingForm, expiry_date_of
from lockstep_kit.plan import Leg, LegKind, check_leg
from lockstep_testkit.factories import BUYER, SELLER, instrument_terms, leg_of, plan_of, token_terms

DAY = date(2027, 11, 21)
TERMS = instrument_terms(expiry_date=DAY)
PARTIES = (BUYER, SELLER)


def test_leaf_is_for_ever() -> None:
    """The leaf of an undertaking that was signed once never changes: a golden vector."""
    leg = Leg(LegId("guarantee"), bytes(range(16)), (), TERMS)
    assert leg.leaf.hex() == "248a159a07477aec332010fe45009837027c8d133d92926b5181405fdf706de3"
    assert (leg.kind, leg.settling, leg.kind.irrevocable) == (LegKind.ISSUE_INSTRUMENT, True, True)


@pytest.mark.parametrize(
    "change",
    [
        {"form": UndertakingForm.DEMAND_GUARANTEE},
        {"amount": Amount(AssetId("EUR"), 1, 2)},
        {"applicant": replace(TERMS.applicant, town="Bonn")},
        {"applicant_account": "DE75512108001245126199"},
        {"beneficiary": replace(TERMS.beneficiary, country="BE")},
        {"issuing_bic": "BNPAFRPP"},
        {"advising_bic": "COBADEFF"},
        {"expiry_date": date(2027, 11, 22)},
        {"expiry_place": "PARIS"},
        {"governing_rules": GoverningRules.URDG},
        {"terms": replace(TERMS.terms, sha256=bytes(32))},
        {"terms": replace(TERMS.terms, name="other.pdf")},
        {"terms": replace(TERMS.terms, media_type="text/plain")},
    ],
)
def test_every_term_is_in_the_leaf(change: dict[str, Any]) -> None:
    """No term can change without the plan's digest."""
    leg = Leg(LegId("guarantee"), bytes(range(16)), (), TERMS)
    assert replace(leg, terms=replace(TERMS, **change)).leaf != leg.leaf


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": token_terms().amount}, "amount.asset"),
        ({"amount": Amount(AssetId("EUR"), 0, 2)}, "amount.minor_units"),
        ({"amount": Amount(AssetId("EUR"), 10**18, 2)}, "amount.minor_units"),
        ({"applicant": replace(TERMS.applicant, party_id=PartyId("nobody"))}, "applicant.party_id"),
        ({"applicant": replace(TERMS.applicant, name="K\u00e4ufer")}, "applicant.name"),
        ({"applicant": replace(TERMS.applicant, town="")}, "applicant.town"),
        ({"beneficiary": replace(TERMS.beneficiary, country="XX")}, "beneficiary.country"),
        ({"beneficiary": replace(TERMS.beneficiary, country="fr")}, "beneficiary.country"),
        ({"beneficiary": replace(TERMS.beneficiary, party_id=BUYER.party_id)}, "beneficiary.party_id"),
        ({"applicant_account": "DE89370400440532013001"}, "applicant_account"),
        ({"issuing_bic": "COBADEF"}, "issuing_bic"),
        ({"advising_bic": "BNPAZZPP"}, "advising_bic"),
        ({"expiry_place": "x" * 36}, "expiry_place"),
        ({"terms": replace(TERMS.terms, name="")}, "terms.name"),
        ({"terms": replace(TERMS.terms, media_type="PDF")}, "terms.media_type"),
        ({"terms": replace(TERMS.terms, sha256=b"short")}, "terms.sha256"),
    ],
)
def test_terms_that_are_refused(change: dict[str, Any], field: str) -> None:
    """Terms that break a form rule are refused with the field at fault."""
    with pytest.raises(FieldInvalid) as caught:
        check_leg(leg_of("guarantee", replace(TERMS, **change)), PARTIES)
    assert caught.value.field == f"issue_instrument.{field}"


def test_through_a_message() -> None:
    """What is sent is what arrives, for every form and set of rules."""
    plan = plan_of([leg_of("guarantee", TERMS)], deadline=datetime(2027, 1, 1, tzinfo=UTC))
    for form in FORMS.values():
        for rules in RULES.values():
            leg = replace(plan.legs[0], terms=replace(TERMS, form=form, governing_rules=rules))
            assert leg_from_pb(leg_to_pb(leg), plan.header) == leg


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("form", 0, "form"),
        ("governing_rules", 99, "governing_rules"),
        ("expiry_date", "21.11.2027", "expiry_date"),
        ("expiry_date", "2027-02-30", "expiry_date"),
        ("expiry_date", "", "expiry_date"),
    ],
)
def test_messages_that_are_refused(name: str, value: Any, field: str) -> None:
    """A message with a value that nobody knows is refused with the field at fault."""
    message: plan_pb2.IssueInstrument = instrument_to_pb(TERMS)
    setattr(message, name, value)
    with pytest.raises(FieldInvalid) as caught:
        instrument_from_pb(message)
    assert caught.value.field == field


def test_dates() -> None:
    """A date is a day of the calendar, written as ISO 8601 has it."""
    assert expiry_date_of("2028-02-29", "day") == date(2028, 2, 29)
