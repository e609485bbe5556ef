"""Bank legs: what the bank's own book says, compared with what the leg was to do. Pure.

What counts is the net effect of everything that the book has under the payment's UETR. How the bank got there (a hold on an account of its own, then its
release) is the bank's affair; whether money is where the plan says, and nowhere else, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep_client.convert import LegView
from lockstep_client.evidence import Finding, Findings
from lockstep_kit import ids
from lockstep_kit.plan import CreditTransfer, PlanHeader
from lockstep_kit.statements import BankEvidence
from lockstep_kit.values import dataclass

#: ISO 20022 payment status codes that say that money was settled; BOOK is the entry's status in the account statement that told it in their place.
SETTLED: Final = frozenset({"ACSC", "ACCC", "BOOK"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the bank's book."""

    #: Payment that it belongs to.
    uetr: str
    #: Posting that it is one side of.
    posting: str
    #: Whether the posting books the payment; others hold and release.
    books: bool
    #: Account: an IBAN, or the bank's own name of it.
    account: str
    #: Bank whose account it is, where it is a correspondent's; else "".
    correspondent_bic: str
    #: Minor units: positive credits the account's holder, negative debits it.
    minor_units: int
    #: ISO 4217 code.
    currency: str


def check_bank_leg(view: LegView, header: PlanHeader, entries: Sequence[Entry]) -> list[Finding]:
    """The payment is booked once; in sum it takes the leg's amount from the debtor's account, brings it to the creditor's, and moves nothing else."""
    found = Findings(view.leg.leg_id)
    terms = view.leg.terms
    evidence = view.evidence
    if not isinstance(terms, CreditTransfer) or not isinstance(evidence, BankEvidence):
        found.note("BANK_EVIDENCE_MISSING", "a credit transfer is shown by a booking, and there is none")
        return found
    found.expect(evidence.status in SETTLED, "BANK_NOT_SETTLED", f"the bank's last word is {evidence.status}")
    own_uetr = ids.uetr(header.plan_id, view.leg.leg_id)
    found.expect(evidence.uetr == own_uetr, "BANK_UETR_WRONG", "the evidence is about another payment than the leg's")
    own = [each for each in entries if each.uetr == own_uetr]
    bookings = {each.posting for each in own if each.books}
    if not found.expect(
        len(bookings) == 1, "BANK_BOOKINGS", f"the book has {len(bookings)} bookings of the payment, not one", may_pass=not bookings
    ):
        return found
    amount = (terms.amount.minor_units, terms.amount.asset)
    nets = _nets(own)
    debtor = nets.pop(terms.debtor.iban, None)
    said = _text(debtor)
    found.expect(
        debtor == (-amount[0], amount[1]),
        "BANK_DEBTOR_AMOUNT",
        f"the book has {said} on the debtor's account, the plan -{terms.amount}",
    )
    account = _credited(own, terms, evidence)
    credited = nets.pop(account, None)
    said = _text(credited)
    found.expect(credited == amount, "BANK_CREDITOR_AMOUNT", f"the book has {said} on the creditor's side, the plan {terms.amount}")
    found.expect(not nets, "BANK_OTHER_ACCOUNT", f"the payment moves {len(nets)} accounts besides the debtor's and the creditor's")
    return found


def _nets(entries: Sequence[Entry]) -> dict[str, tuple[int, str]]:
    """Sum by account, without those that come out even. An account has one currency."""
    sums: dict[str, tuple[int, str]] = {}
    for each in entries:
        sums[each.account] = (sums.get(each.account, (0, ""))[0] + each.minor_units, each.currency)
    return {account: net for account, net in sums.items() if net[0]}


def _credited(entries: Sequence[Entry], terms: CreditTransfer, evidence: BankEvidence) -> str:
    """The account that stands for the creditor in this bank's book: its own, or that of the correspondent that holds it."""
    institution = terms.creditor.agent_bic[:8]
    if institution == evidence.bank_bic[:8]:
        return terms.creditor.iban
    correspondent = next((each.account for each in entries if each.correspondent_bic[:8] == institution), None)
    return correspondent or terms.creditor.iban


def _text(net: tuple[int, str] | None) -> str:
    return f"{net[0]} minor units of {net[1]}" if net is not None else "nothing"
