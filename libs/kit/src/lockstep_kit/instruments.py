"""Undertakings that a bank issues: standby letters of credit and demand guarantees, their form rules, and their part of the canonical document. Pure.

An undertaking that is issued is irrevocable (ISP98 rule 1.06, UCP 600 article 3, URDG 758 article 4): it ends by its terms, or by its beneficiary's consent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date
from enum import StrEnum
from typing import Final

from lockstep_kit.amounts import CURRENCY_MINOR_UNITS_MAX, Amount, is_currency
from lockstep_kit.canonical import Document
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_bic, check_country, check_fin_x, check_iban
from lockstep_kit.ids import DIGEST_BYTES, PartyId
from lockstep_kit.values import dataclass

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UndertakingForm(StrEnum):
    """ISO 20022 UndertakingName1Code."""

    STANDBY = "STBY"
    DEMAND_GUARANTEE = "DGAR"


class GoverningRules(StrEnum):
    """ISO 20022 GovernanceIdentification1Code."""

    ISP = "ISPR"
    UCP = "UCPR"
    URDG = "URDG"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class InstrumentParty:
    """Applicant or beneficiary of an undertaking."""

    #: Party of the plan.
    party_id: PartyId
    #: Name.
    name: str
    #: Town.
    town: str
    #: ISO 3166-1, two letters.
    country: str


@dataclass(frozen=True, slots=True)
class TermsDocument:
    """A document that lies elsewhere, named by its hash."""

    #: Its name.
    name: str
    #: Media type, lower case.
    media_type: str
    #: SHA-256 of its octets (32 bytes).
    sha256: bytes


@dataclass(frozen=True, slots=True)
class IssueInstrument:
    """An undertaking that a bank issues."""

    #: What form it has.
    form: UndertakingForm
    #: The most that can be demanded; asset is an ISO 4217 code.
    amount: Amount
    #: For whom it is issued.
    applicant: InstrumentParty
    #: IBAN of the applicant's account at the issuing bank, to which its facility belongs.
    applicant_account: str
    #: In whose favour.
    beneficiary: InstrumentParty
    #: Bank that issues it.
    issuing_bic: str
    #: Bank that advises it to the beneficiary.
    advising_bic: str
    #: Last day on which a demand can be presented, by the clock of the place of expiry.
    expiry_date: date
    #: Where it expires.
    expiry_place: str
    #: What governs it.
    governing_rules: GoverningRules
    #: What holds its terms.
    terms: TermsDocument


def expiry_date_of(text: str, field: str) -> date:
    """An ISO 8601 calendar date.

    Raises:
        FieldInvalid: another form, or no day of the calendar.
    """
    require(_DATE.fullmatch(text) is not None, field, "must be a date as YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid(field, "must be a day of the calendar") from error


def instrument_document(terms: IssueInstrument, amount: Document) -> Document:
    """The terms inside a canonical document."""
    return {
        "form": terms.form.value,
        "amount": amount,
        "applicant": _party_document(terms.applicant),
        "applicant_account": terms.applicant_account,
        "beneficiary": _party_document(terms.beneficiary),
        "issuing_bic": terms.issuing_bic,
        "advising_bic": terms.advising_bic,
        "expiry_date": terms.expiry_date.isoformat(),
        "expiry_place": terms.expiry_place,
        "governing_rules": terms.governing_rules.value,
        "terms": {"name": terms.terms.name, "media_type": terms.terms.media_type, "sha256": terms.terms.sha256.hex()},
    }


def _party_document(party: InstrumentParty) -> Document:
    return {"party_id": party.party_id, "name": party.name, "town": party.town, "country": party.country}


def check_instrument(terms: IssueInstrument, parties: Collection[PartyId]) -> None:
    """Form rules of an undertaking's terms. Whether it expires late enough is the plan's affair.

    Raises:
        FieldInvalid: the first rule that is broken, with its field.
    """
    require(is_currency(terms.amount.asset), "amount.asset", "must be an ISO 4217 currency")
    require(terms.amount.minor_units > 0, "amount.minor_units", "must be greater than zero")
    require(terms.amount.minor_units <= CURRENCY_MINOR_UNITS_MAX, "amount.minor_units", "must have at most 18 digits")
    for side, party in (("applicant", terms.applicant), ("beneficiary", terms.beneficiary)):
        require(party.party_id in parties, f"{side}.party_id", "must be a party of the plan")
        check_fin_x(party.name, f"{side}.name", length_max=140)
        check_fin_x(party.town, f"{side}.town", length_max=35)
        check_country(party.country, f"{side}.country")
    require(terms.applicant.party_id != terms.beneficiary.party_id, "beneficiary.party_id", "must differ from the applicant's")
    check_iban(terms.applicant_account, "applicant_account")
    check_bic(terms.issuing_bic, "issuing_bic")
    check_bic(terms.advising_bic, "advising_bic")
    check_fin_x(terms.expiry_place, "expiry_place", length_max=35)
    check_fin_x(terms.terms.name, "terms.name", length_max=70)
    require(_MEDIA_TYPE.fullmatch(terms.terms.media_type) is not None, "terms.media_type", "must be a media type in lower case")
    require(len(terms.terms.sha256) == DIGEST_BYTES, "terms.sha256", f"must be {DIGEST_BYTES} bytes")
