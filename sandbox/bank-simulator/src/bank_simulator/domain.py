"""What the bank's business is about, without XML, database or network."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

#: Message definitions that are spoken here.
PAYMENT = "pacs.008.001.13"
STATUS = "pacs.002.001.15"
STATUS_QUERY = "pacs.028.001.06"
CANCELLATION = "camt.056.001.11"
RESOLUTION = "camt.029.001.13"
BOOKING = "camt.054.001.13"
#: Not a message: the request to release a hold.
RELEASE = "release"


class PaymentState(StrEnum):
    """Where a payment stands. Only HELD goes anywhere."""

    TOMBSTONED = "TOMBSTONED"
    REJECTED = "REJECTED"
    HELD = "HELD"
    SETTLED = "SETTLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Header:
    """The business application header of a message."""

    #: BIC of the sender.
    sender: str
    #: BIC of the receiver.
    receiver: str
    message_id: str
    definition: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Original:
    """How a message names the payment that it is about."""

    #: Identification of the message that carried it.
    message_id: str | None = None
    instruction_id: str | None = None
    end_to_end_id: str | None = None
    transaction_id: str | None = None
    uetr: UUID | None = None


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """One payment of a pacs.008."""

    uetr: UUID
    instruction_id: str | None
    end_to_end_id: str
    transaction_id: str | None
    #: Minor units of the currency.
    amount: int
    currency: str
    scale: int
    settlement_date: date | None
    charge_bearer: str
    debtor_name: str | None
    debtor_account: str
    debtor_agent: str | None
    creditor_account: str | None
    creditor_agent: str | None
    #: SHA-256 of the key that releases it; None for an ordinary payment, which settles at once.
    lock: bytes | None
    expires_at: datetime | None
    #: SHA-256 over its canonical XML.
    content_sha256: bytes


@dataclass(frozen=True, slots=True)
class PaymentBatch:
    """A pacs.008."""

    payments: tuple[PaymentOrder, ...]


@dataclass(frozen=True, slots=True)
class CancellationItem:
    """One payment whose cancellation is asked for."""

    cancellation_id: str | None
    case_id: str | None
    original: Original
    uetr: UUID
    #: Minor units and currency, if it states them.
    amount: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A camt.056."""

    case_id: str | None
    items: tuple[CancellationItem, ...]


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """A pacs.028: about payments by UETR, or about all payments of a message."""

    items: tuple[Original, ...]
    message_ids: tuple[str, ...]


Request = PaymentBatch | Cancellation | StatusQuery


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the books have it."""

    account_id: str
    kind: str
    owner_name: str
    currency: str
    status: str
    #: Minor units that may still be taken: balance plus overdraft limit.
    available: int


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the bank knows it. A tombstone has nothing but its UETR, counterparty and state."""

    uetr: UUID
    counterparty: str
    state: PaymentState
    reason: str | None
    content_sha256: bytes | None
    original: Original
    amount: int
    currency: str
    scale: int
    debtor_account: str
    #: As the payment states it.
    creditor_account: str | None
    #: The account of this bank that is credited.
    credited_account: str
    hold_lock: bytes | None
    hold_key: bytes | None
    hold_until: datetime | None
    status_message: int | None
    status_code: str | None
    booking_message: int | None
    #: Minor units that were drawn from the debtor's credit line for its hold.
    drawn: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a pacs.002 says about one payment."""

    original: Original
    code: str
    reason: str | None = None
    #: Up to 105 characters.
    text: str | None = None
    servicer_reference: str | None = None
    #: The key that released it: echoed with ACSC.
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a camt.029 says about one payment."""

    item: CancellationItem
    accepted: bool
    reason: str | None = None
    text: str | None = None
    #: Whether it is not decided yet.
    pending: bool = False


@dataclass(frozen=True, slots=True)
class BookedEntry:
    """One side of a booking, as a camt.054 states it."""

    account: str
    is_iban: bool
    credit: bool
    amount: int
    currency: str
    scale: int
    original: Original
    servicer_reference: str
    booked_at: datetime
