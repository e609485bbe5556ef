"""Undertakings: their terms inside a leg."""

from __future__ import annotations

from typing import Final

from lockstep.type.v1 import plan_pb2
from lockstep_kit import ids
from lockstep_kit.convert.values import amount_from_pb, amount_to_pb, enum_from_pb, enum_to_pb
from lockstep_kit.fields import within
from lockstep_kit.instruments import (
    GoverningRules,
    InstrumentParty,
    IssueInstrument,
    TermsDocument,
    UndertakingForm,
    expiry_date_of,
)

FORMS: Final = {
    plan_pb2.UNDERTAKING_FORM_STANDBY: UndertakingForm.STANDBY,
    plan_pb2.UNDERTAKING_FORM_DEMAND_GUARANTEE: UndertakingForm.DEMAND_GUARANTEE,
}
RULES: Final = {
    plan_pb2.GOVERNING_RULES_ISP: GoverningRules.ISP,
    plan_pb2.GOVERNING_RULES_UCP: GoverningRules.UCP,
    plan_pb2.GOVERNING_RULES_URDG: GoverningRules.URDG,
    plan_pb2.GOVERNING_RULES_NONE: GoverningRules.NONE,
}


def instrument_from_pb(message: plan_pb2.IssueInstrument) -> IssueInstrument:
    """The terms of an undertaking; their form rules are checked with the leg.

    Raises:
        FieldInvalid: a value that this version does not know, or one of another form.
    """
    with within("amount"):
        amount = amount_from_pb(message.amount)
    return IssueInstrument(
        form=enum_from_pb(FORMS, message.form, "form"),
        amount=amount,
        applicant=_party_from_pb(message.applicant, "applicant"),
        applicant_account=message.applicant_account,
        beneficiary=_party_from_pb(message.beneficiary, "beneficiary"),
        issuing_bic=message.issuing_bic,
        advising_bic=message.advising_bic,
        expiry_date=expiry_date_of(message.expiry_date, "expiry_date"),
        expiry_place=message.expiry_place,
        governing_rules=enum_from_pb(RULES, message.governing_rules, "governing_rules"),
        terms=TermsDocument(message.terms.name, message.terms.media_type, message.terms.sha256),
    )


def _party_from_pb(message: plan_pb2.InstrumentParty, field: str) -> InstrumentParty:
    party = ids.party_id(message.party_id, f"{field}.party_id")
    return InstrumentParty(party, message.name, message.town, message.country)


def instrument_to_pb(terms: IssueInstrument) -> plan_pb2.IssueInstrument:
    """The terms of an undertaking as a message."""
    return plan_pb2.IssueInstrument(
        form=enum_to_pb(FORMS, terms.form),
        amount=amount_to_pb(terms.amount),
        applicant=_party_to_pb(terms.applicant),
        applicant_account=terms.applicant_account,
        beneficiary=_party_to_pb(terms.beneficiary),
        issuing_bic=terms.issuing_bic,
        advising_bic=terms.advising_bic,
        expiry_date=terms.expiry_date.isoformat(),
        expiry_place=terms.expiry_place,
        governing_rules=enum_to_pb(RULES, terms.governing_rules),
        terms=plan_pb2.TermsDocument(name=terms.terms.name, media_type=terms.terms.media_type, sha256=terms.terms.sha256),
    )


def _party_to_pb(party: InstrumentParty) -> plan_pb2.InstrumentParty:
    return plan_pb2.InstrumentParty(party_id=party.party_id, name=party.name, town=party.town, country=party.country)
