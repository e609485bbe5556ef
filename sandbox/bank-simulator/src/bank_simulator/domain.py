"""What the bank's business is about, without XML, database or network."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from bank_simulator.instruments import Application, Issuance, Termination

#: Message definitions that are spoken here.
PAYMENT = "pacs.008.001.13"
STATUS = "pacs.002.001.15"
STATUS_QUERY = "pacs.028.001.06"
CANCELLATION = "camt.056.001.11"
RESOLUTION = "camt.029.001.13"
BOOKING = "camt.054.001.13"
STATEMENT = "camt.053.001.13"
INSTITUTION_PAYMENT = "pacs.009.001.12"
RETURN = "pacs.004.001.14"
RESERVATION = "camt.103.001.03"
RESERVATION_DELETION = "camt.049.001.07"
RESERVATION_QUERY = "camt.046.001.08"
RECEIPT = "camt.025.001.09"
RESERVATION_REPORT = "camt.047.001.08"
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
    #: Definition of the message that carried it.
    message_kind: str = PAYMENT


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """One payment of a pacs.008 or pacs.009."""

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
    #: Whether it is paid out of its reservation, or not at all.
    reserved: bool = False
    #: Definition of the message that carries it.
    message_kind: str = PAYMENT
    #: BICs of debtor and creditor, in a payment between financial institutions.
    institutions: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PaymentBatch:
    """A pacs.008 or pacs.009."""

    payments: tuple[PaymentOrder, ...]
    message_kind: str = PAYMENT


@dataclass(frozen=True, slots=True)
class ReservationOrder:
    """A camt.103: money is to be set aside for the payment with this UETR."""

    uetr: UUID
    account_id: str
    #: Minor units of the currency.
    amount: int
    currency: str
    scale: int
    start: datetime


@dataclass(frozen=True, slots=True)
class ReservationDeletion:
    """A camt.049."""

    uetr: UUID


@dataclass(frozen=True, slots=True)
class ReservationQuery:
    """A camt.046 about one reservation."""

    uetr: UUID


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


Request = (
    PaymentBatch | Cancellation | StatusQuery | ReservationOrder | ReservationDeletion | ReservationQuery | Application | Issuance | Termination
)  # fmt: skip


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
    #: BIC of an owner that is an institution.
    owner_bic: str | None = None


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
    #: Minor units that came back.
    returned: int = 0


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
    booking_date: date
    #: ExternalReturnReason1Code, where it books a return.
    return_reason: str | None = None


@dataclass(frozen=True, slots=True)
class StatedEntry:
    """One entry of a statement. Minor units: positive credits the account's holder."""

    amount: int
    #: Kind of the posting.
    kind: str
    servicer_reference: str
    #: The payment that it books, if it books one.
    original: Original | None
    #: Name of the return that it books, if it books one.
    return_id: str | None = None


@dataclass(frozen=True, slots=True)
class AccountDay:
    """What a statement says of one account and booking day. Minor units."""

    statement_id: str
    account: str
    is_iban: bool
    currency: str
    scale: int
    day: date
    #: Counts the account's statements, without a gap.
    number: int
    opening: int
    closing: int
    entries: tuple[StatedEntry, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a camt.025 says about one message."""

    message_id: str
    definition: str
    uetr: UUID
    #: ExternalRequestStatus1Code.
    status: str
    #: ExternalStatusReason1Code, or a reason of this rail's own.
    reason: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ReservationShown:
    """A reservation as a camt.047 shows it."""

    uetr: UUID
    #: ReservationStatus1Code, or a word of this rail's own; None for one that was not found.
    status: str | None
    account_id: str = ""
    amount: int = 0
    currency: str = ""
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Returned:
    """A payment's money that comes back, as a pacs.004 tells it."""

    payment: Payment
    amount: int
    reason: str
    return_id: str
