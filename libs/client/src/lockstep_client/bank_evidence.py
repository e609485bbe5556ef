"""Bank legs: what the bank's own book says, compared with what the leg was to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lockstep_client.convert import LegView
from lockstep_client.evidence import Finding, Findings
from lockstep_kit.plan import CreditTransfer
from lockstep_kit.statements import BankEvidence


class Side(StrEnum):
    """ISO 20022 CreditDebitCode."""

    DEBIT = "DBIT"
    CREDIT = "CRDT"


#: ISO 20022 payment status codes that say that money was settled.
SETTLED: Final = frozenset({"ACSC", "ACCC", "BOOK"})


@dataclass(frozen=True, slots=True)
class Booking:
    """One booked entry of one account."""

    #: Payment that it belongs to.
    uetr: str
    #: Account.
    iban: str
    #: Which way.
    side: Side
    #: Minor units of the currency.
    minor_units: int
    #: ISO 4217 code.
    currency: str
    #: The bank's reference of the booking.
    reference: str


def check_bank_leg(view: LegView, bookings: tuple[Booking, ...]) -> list[Finding]:
    """The payment is booked once on each side: debtor's account down, creditor's up, by the leg's amount in its currency."""
    found = Findings(view.leg.leg_id)
    terms = view.leg.terms
    evidence = view.outcome.outcome.evidence if view.outcome is not None else None
    if not isinstance(terms, CreditTransfer) or not isinstance(evidence, BankEvidence):
        found.note("BANK_EVIDENCE_MISSING", "a credit transfer is shown by a booking, and there is none")
        return found
    found.expect(evidence.status in SETTLED, "BANK_NOT_SETTLED", f"the bank's last word is {evidence.status}")
    held = view.vote.vote.promise.evidence if view.vote is not None and view.vote.vote.promise is not None else None
    if isinstance(held, BankEvidence):
        found.expect(held.uetr == evidence.uetr, "BANK_UETR_CHANGED", "the payment that was settled is not the one that was held")
    own = [each for each in bookings if each.uetr == evidence.uetr]
    for side, iban, who in ((Side.DEBIT, terms.debtor.iban, "debtor"), (Side.CREDIT, terms.creditor.iban, "creditor")):
        entries = [each for each in own if each.side is side]
        if not found.expect(
            len(entries) == 1,
            f"BANK_{who.upper()}_BOOKINGS",
            f"the book has {len(entries)} bookings on the {who}'s side, not one",
            may_pass=not entries,
        ):
            continue
        entry = entries[0]
        found.expect(entry.iban == iban, f"BANK_{who.upper()}_ACCOUNT", f"the book has another account on the {who}'s side")
        same = (entry.minor_units, entry.currency) == (terms.amount.minor_units, terms.amount.asset)
        found.expect(
            same,
            f"BANK_{who.upper()}_AMOUNT",
            f"the book says {entry.minor_units} minor units of {entry.currency} on the {who}'s side, the plan {terms.amount}",
        )
    if evidence.booking_reference:
        named = any(each.reference == evidence.booking_reference for each in own)
        found.expect(named, "BANK_REFERENCE_UNKNOWN", "the book has no booking of the payment with the evidence's reference")
    return found
