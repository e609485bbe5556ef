"""What each event of a leg posts. Pure.

1. An entry moves one amount from one account to another of the same ledger, which is one bank's and one currency's: debits equal credits by its form.
2. A leg's money stands in one place at a time: it leaves the debtor's LINE when it is instructed, is HELD when the bank says so, is SETTLED when the bank says
   so and has booked it, and goes back where it came from when the leg is given up or the money is returned.
3. The bank's word is posted always. What it did with money that no line covers (a leg that was given up, or that a restore forgot) comes out of SUSPENSE, so
   that a limit refuses what we ask for and never what has happened.
4. Each event of a leg is posted once for life: its entry's reference is the leg's UETR and the event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from bank_gateway.meanings import Meaning
from bank_gateway.messages import Footing
from bank_gateway.operations import Known
from bank_gateway.profiles import Hold
from bank_gateway.references import return_name
from lockstep_kit.fence import Phase
from lockstep_kit.values import dataclass


class AccountKind(StrEnum):
    """What stands on an account. A balance is what was credited less what was debited."""

    #: A debtor's credit line: minus what is drawn. It goes no lower than its limit allows.
    LINE = "LINE"
    #: Asked for at the bank, which has not answered yet.
    INSTRUCTED = "INSTRUCTED"
    #: On hold at the bank.
    HELD = "HELD"
    #: Settled and booked by the bank.
    SETTLED = "SETTLED"
    #: Minus what the bank did with a debtor's money without its line.
    SUSPENSE = "SUSPENSE"
    #: The bank's clearing account: minus what repaid credit lines and paid for fees.
    NOSTRO = "NOSTRO"
    #: What the bank took for its services.
    FEES = "FEES"


class EntryKind(StrEnum):
    """What an entry records."""

    INSTRUCTED = "INSTRUCTED"
    HELD = "HELD"
    SETTLED = "SETTLED"
    RELEASED = "RELEASED"
    RETURNED = "RETURNED"
    REPAID = "REPAID"
    CHARGED = "CHARGED"


#: Where a leg's money comes from, and goes back to.
SOURCES: Final = frozenset({AccountKind.LINE, AccountKind.SUSPENSE})
#: Where the money of a leg stands that is not over.
OUTSTANDING: Final = frozenset({AccountKind.INSTRUCTED, AccountKind.HELD})
#: Findings by which a leg is given up.
GIVEN_UP: Final = frozenset({Meaning.VOTES_NO, Meaning.LAPSED, Meaning.REFUSED, Meaning.RELEASED})


@dataclass(frozen=True, slots=True)
class Entry:
    """An amount that moves from one account to another."""

    #: One bank's and one currency's books: "<BIC>/<ISO 4217 code>".
    ledger: str
    #: Names the entry in its ledger, once for ever.
    reference: str
    #: What it records.
    kind: EntryKind
    #: Payment that it is about, or "".
    uetr: str
    #: Account that is debited.
    debit: str
    #: Account that is credited.
    credit: str
    #: Minor units, greater than zero.
    amount: int


@dataclass(frozen=True, slots=True)
class LedgerLeg:
    """A leg as the ledger sees it."""

    #: Its ledger.
    ledger: str
    #: Account that pays, at the bank.
    debtor: str
    #: Its payment.
    uetr: str
    #: Minor units.
    amount: int
    #: On what its payment is made: what the bank holds for it, if anything.
    footing: Footing = Footing.CONDITIONAL


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the money of a leg stands."""

    #: INSTRUCTED, HELD or SETTLED; None: it has not moved, or went back.
    place: AccountKind | None = None
    #: LINE or SUSPENSE: where it came from last.
    source: AccountKind = AccountKind.LINE
    #: Minor units that stand there.
    amount: int = 0
    #: References of its entries.
    references: frozenset[str] = frozenset()
    #: Whether some of it was settled and came back.
    returned: bool = False


def ledger_of(bank_bic: str, currency: str) -> str:
    """Name of the ledger of a bank and a currency."""
    return f"{bank_bic}/{currency}"


def account_of(holder: str, kind: AccountKind) -> str:
    """Name of an account."""
    return f"{holder}/{kind.value}"


def kind_of(account: str) -> AccountKind:
    """What stands on an account."""
    return AccountKind(account.rpartition("/")[2])


def standing(history: Iterable[Entry]) -> Standing:
    """Where a leg's entries, in their order, leave its money."""
    place: AccountKind | None = None
    source, amount, references, back = AccountKind.LINE, 0, set[str](), False
    for entry in history:
        references.add(entry.reference)
        back = back or entry.kind is EntryKind.RETURNED
        debit, credit = kind_of(entry.debit), kind_of(entry.credit)
        if credit is AccountKind.FEES:
            continue
        if debit in SOURCES:
            source, place, amount = debit, credit, entry.amount
        elif credit in SOURCES:
            amount -= entry.amount
            place = place if amount else None
        else:
            place = credit
    return Standing(place, source, amount, frozenset(references), back)


def instructed(leg: LedgerLeg) -> Entry:
    """The bank is asked to hold the money, or will be asked to pay it: it is drawn from the debtor's line."""
    return _entry(leg, EntryKind.INSTRUCTED, AccountKind.LINE, AccountKind.INSTRUCTED)


def executing(leg: LedgerLeg, now: Standing) -> Entry | None:
    """A leg is executed by our own YES, which a restore may have forgotten with all that led to it: the bank holds the money, if it ever does."""
    if leg.footing is Footing.ORDINARY:
        instructed = _entry(leg, EntryKind.INSTRUCTED, AccountKind.SUSPENSE, AccountKind.INSTRUCTED)
        return None if now.references else instructed
    if now.place is AccountKind.INSTRUCTED:
        return _entry(leg, EntryKind.HELD, now.place, AccountKind.HELD)
    return None if now.references else _entry(leg, EntryKind.HELD, AccountKind.SUSPENSE, AccountKind.HELD)


def heard(leg: LedgerLeg, now: Standing, known: Known, meaning: Meaning | None) -> Entry | None:
    """What follows from what is known of a payment, and from what the bank's last word meant for its leg."""
    if known.settled:
        debit = now.place or AccountKind.SUSPENSE
        return _once(now, _entry(leg, EntryKind.SETTLED, debit, AccountKind.SETTLED)) if debit is not AccountKind.SETTLED else None
    if meaning in GIVEN_UP:
        return given_up(leg, now)
    if stands(leg.footing, known) and now.place is AccountKind.INSTRUCTED:
        return _entry(leg, EntryKind.HELD, now.place, AccountKind.HELD)
    return None


def stands(footing: Footing, known: Known) -> bool:
    """Whether the bank has said that it holds the money: for the payment, or apart from it."""
    match footing:
        case Footing.CONDITIONAL:
            return known.held
        case Footing.RESERVED:
            return known.reservation == Hold.RESERVED
        case Footing.ORDINARY:
            return False


def given_up(leg: LedgerLeg, now: Standing) -> Entry | None:
    """The bank will never settle it: what was asked for or held goes back."""
    return _entry(leg, EntryKind.RELEASED, now.place, now.source) if now.place in OUTSTANDING else None


def returned(leg: LedgerLeg, now: Standing, amount: int, reference: str) -> Entry | None:
    """Money that was settled came back by a booking of the bank's, whole or in part; more than was settled is not this leg's."""
    if now.place is not AccountKind.SETTLED or not 0 < amount <= now.amount:
        return None
    name = return_name(reference)
    return _once(now, _entry(leg, EntryKind.RETURNED, AccountKind.SETTLED, now.source, name=f"/{name}", amount=amount))


def charged(leg: LedgerLeg, now: Standing, currency: str, amount: int, reference: str) -> Entry | None:
    """The bank took a fee for a payment, in whatever currency: no line pays for it, and the principal stays whole."""
    bank = leg.ledger.partition("/")[0]
    name = hashlib.sha256(f"{reference} {currency}".encode()).hexdigest()[:16]
    debit, credit = (account_of(bank, kind) for kind in (AccountKind.NOSTRO, AccountKind.FEES))
    reference = f"{leg.uetr}/{EntryKind.CHARGED}/{name}"
    return _once(now, Entry(ledger_of(bank, currency), reference, EntryKind.CHARGED, leg.uetr, debit, credit, amount))


def repaid(ledger: str, debtor: str, day: str, amount: int) -> Entry:
    """A line is intraday: what was settled on the days before is repaid at the bank, once a day."""
    debit, credit = account_of(ledger.partition("/")[0], AccountKind.NOSTRO), account_of(debtor, AccountKind.LINE)
    return Entry(ledger, f"{debtor}/{EntryKind.REPAID}/{day}", EntryKind.REPAID, "", debit, credit, amount)


def expected_place(phase: Phase, known: Known, footing: Footing) -> frozenset[AccountKind | None]:
    """Where the money of a leg may stand, given its phase, what the bank has said of its payment, and on what that is made."""
    if known.settled:
        return frozenset({AccountKind.SETTLED})
    held = AccountKind.INSTRUCTED if footing is Footing.ORDINARY else AccountKind.HELD
    match phase:
        case Phase.PREPARING:
            return frozenset({AccountKind.INSTRUCTED})
        case Phase.PREPARED | Phase.COMMITTING:
            return frozenset({held})
        case Phase.ABORTING:
            return frozenset({held if stands(footing, known) else AccountKind.INSTRUCTED, held, None})
        case Phase.REFUSED | Phase.RELEASED:
            return frozenset({None})
        case Phase.COMMITTED | Phase.REVERSING | Phase.REVERSED:
            return frozenset({AccountKind.SETTLED})


def in_place(now: Standing, phase: Phase, known: Known, footing: Footing) -> bool:
    """Whether the money of a leg stands where its phase and the bank's words say; what came back whole stands nowhere."""
    return now.place in expected_place(phase, known, footing) or (known.settled and now.returned and now.place is None)


def _entry(leg: LedgerLeg, kind: EntryKind, debit: AccountKind, credit: AccountKind, *, name: str = "", amount: int = 0) -> Entry:
    accounts = account_of(leg.debtor, debit), account_of(leg.debtor, credit)
    return Entry(leg.ledger, f"{leg.uetr}/{kind}{name}", kind, leg.uetr, *accounts, amount or leg.amount)


def _once(now: Standing, entry: Entry) -> Entry | None:
    """None for what is posted already: the bank may say a thing twice."""
    return None if entry.reference in now.references else entry
