"""What the bank says, as the checker reads it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BankAccount:
    """An account in the bank's book."""

    #: IBAN, or the bank's own name for it.
    account_id: str
    #: CUSTOMER, VOSTRO, HOLD, CAPITAL, …
    kind: str
    #: ISO 4217.
    currency: str
    #: Minor units.
    balance: int


@dataclass(frozen=True, slots=True)
class BankLine:
    """One line of a posting."""

    #: Account that it moves.
    account_id: str
    #: ISO 4217.
    currency: str
    #: Minor units; positive credits the holder.
    amount: int


@dataclass(frozen=True, slots=True)
class BankPosting:
    """One posting of the bank's book."""

    #: OPENING, HOLD, RELEASE, SETTLE, PAYMENT, …
    kind: str
    #: Payment that it belongs to; "" where it belongs to none.
    uetr: str
    #: Its lines.
    lines: tuple[BankLine, ...]


@dataclass(frozen=True, slots=True)
class BankPayment:
    """A payment as the bank knows it."""

    #: Its reference.
    uetr: str
    #: TOMBSTONED, REJECTED, HELD, SETTLED, CANCELLED, EXPIRED.
    state: str
    #: Minor units; 0 for a tombstone.
    amount: int
    #: ISO 4217; "" for a tombstone.
    currency: str
    #: Account that pays, or "".
    debtor_account: str
    #: Account of this bank that is paid, or "".
    credited_account: str


@dataclass(frozen=True, slots=True)
class BankUndertaking:
    """An undertaking as the bank knows it."""

    #: The UETR that it is kept under.
    uetr: str
    #: TOMBSTONED, REJECTED, LODGED, WITHDRAWN, ISSUED.
    state: str
    #: Minor units; 0 for a tombstone.
    amount: int
    #: ISO 4217; "" for a tombstone.
    currency: str
    #: Account of the applicant, or "".
    account: str
    #: Name of the beneficiary, or "".
    beneficiary: str
    #: ISO 8601 date, or "".
    expires_on: str
    #: How often it was issued.
    issues: int


@dataclass(frozen=True, slots=True)
class BankBook:
    """What the bank says."""

    #: Its accounts.
    accounts: tuple[BankAccount, ...]
    #: Its postings, in order.
    postings: tuple[BankPosting, ...]
    #: UETR -> payment.
    payments: Mapping[str, BankPayment]
    #: UETR -> undertaking.
    undertakings: Mapping[str, BankUndertaking] = field(default_factory=dict)
