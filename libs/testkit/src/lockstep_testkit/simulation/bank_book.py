"""The simulated bank's own book: accounts with holds, and payments that are known by their UETR. What it says of them is another matter."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Standing(StrEnum):
    """Where a payment stands at the bank."""

    UNKNOWN = "UNKNOWN"
    #: It never came, and is refused should it come.
    BARRED = "BARRED"
    HELD = "HELD"
    #: It was not taken, or its hold ended.
    REJECTED = "REJECTED"
    BOOKED = "BOOKED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a payment moves."""

    #: Debtor's account.
    debtor: str
    #: Creditor's account.
    creditor: str
    #: Minor units.
    units: int


@dataclass(slots=True)
class Payment:
    """A payment in the book."""

    #: What it moves.
    terms: Terms
    #: Where it stands.
    standing: Standing
    #: What a key must hash to.
    lock: bytes
    #: Why it stands so (ExternalStatusReason1Code), or "".
    reason: str = ""
    #: Whether its money was ever held.
    was_held: bool = False
    #: Bookings of it.
    bookings: int = 0


class Book:
    """Accounts and payments."""

    def __init__(self, balances: dict[str, int]) -> None:
        self.balances: Final = dict(balances)
        self.held: Final[dict[str, int]] = {}
        self.payments: Final[dict[str, Payment]] = {}

    def standing(self, uetr: str) -> Standing:
        """Where a payment stands."""
        payment = self.payments.get(uetr)
        return Standing.UNKNOWN if payment is None else payment.standing

    def hold(self, uetr: str, terms: Terms, lock: bytes) -> None:
        """Place a hold, or turn the payment down for lack of money."""
        free = self.balances.get(terms.debtor, 0) - self.held.get(terms.debtor, 0)
        if free < terms.units:
            self.payments[uetr] = Payment(terms, Standing.REJECTED, lock, "AM04")
            return
        self.held[terms.debtor] = self.held.get(terms.debtor, 0) + terms.units
        self.payments[uetr] = Payment(terms, Standing.HELD, lock, was_held=True)

    def turn_down(self, uetr: str, terms: Terms, lock: bytes, reason: str) -> None:
        """Take note of a payment that is not taken."""
        self.payments[uetr] = Payment(terms, Standing.REJECTED, lock, reason)

    def bar(self, uetr: str) -> None:
        """Refuse from now on a payment that never came."""
        self.payments[uetr] = Payment(Terms("", "", 0), Standing.BARRED, b"", "TM01")

    def opens(self, uetr: str, key: bytes) -> bool:
        """Whether a key is the payment's."""
        return hashlib.sha256(key).digest() == self.payments[uetr].lock

    def book(self, uetr: str) -> None:
        """Execute a held payment."""
        payment = self.payments[uetr]
        self.let_go(uetr, Standing.BOOKED, "")
        terms = payment.terms
        self.balances[terms.debtor] -= terms.units
        self.balances[terms.creditor] = self.balances.get(terms.creditor, 0) + terms.units
        payment.bookings += 1

    def let_go(self, uetr: str, standing: Standing, reason: str) -> None:
        """End a hold."""
        payment = self.payments[uetr]
        if payment.standing is not Standing.HELD:
            raise AssertionError(f"a {payment.standing} payment has no hold")
        self.held[payment.terms.debtor] -= payment.terms.units
        payment.standing, payment.reason = standing, reason
