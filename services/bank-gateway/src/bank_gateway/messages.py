"""What passes between the gateway and a bank, as values. Pure; `iso20022` makes XML of it and reads XML into it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TypeAlias

from lockstep_kit.amounts import Amount


class Kind(StrEnum):
    """Message definitions that are spoken here."""

    PAYMENT = "pacs.008.001.13"
    STATUS = "pacs.002.001.15"
    INQUIRY = "pacs.028.001.06"
    CANCELLATION = "camt.056.001.11"
    RESOLUTION = "camt.029.001.13"
    BOOKING = "camt.054.001.13"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a business application header says (head.001.001.02)."""

    #: BIC of the sender.
    sender: str
    #: BIC of the receiver.
    receiver: str
    #: Business message identifier; equal to the message's own.
    message_id: str
    #: When the message was made; it never changes when it is sent again.
    created_at: datetime


@dataclass(frozen=True, slots=True)
class References:
    """How one payment is named, for its life."""

    #: Message that carries it.
    message_id: str
    #: Instruction (at most 16 characters).
    instruction_id: str
    #: End to end.
    end_to_end_id: str
    #: Transaction.
    transaction_id: str
    #: Unique end-to-end transaction reference, a lower-case UUID of version 4.
    uetr: str


@dataclass(frozen=True, slots=True)
class Side:
    """Debtor or creditor."""

    #: Name.
    name: str
    #: IBAN.
    iban: str
    #: BIC of the account servicer.
    agent_bic: str


@dataclass(frozen=True, slots=True)
class Payment:
    """A conditional customer credit transfer."""

    #: Its names.
    references: References
    #: Amount in a currency.
    amount: Amount
    #: Day on which the banks settle.
    settlement_date: date
    #: Who pays.
    debtor: Side
    #: Who is paid.
    creditor: Side
    #: ChargeBearerType1Code.
    charge_bearer: str
    #: Remittance information, or "".
    remittance: str
    #: SHA-256 of the key that releases it.
    lock: bytes
    #: Until when the bank holds the money.
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentStatus:
    """One payment's status in a pacs.002."""

    #: Payment that it is about; "" where only the message is named.
    uetr: str
    #: End-to-end reference as echoed, or "".
    end_to_end_id: str
    #: ExternalPaymentTransactionStatus1Code, or the group's status where the payment has none of its own.
    status: str
    #: ExternalStatusReason1Code, or "".
    reason: str
    #: What the bank adds.
    text: str
    #: Key that the bank says it was shown, or b"".
    key: bytes
    #: Message that carried the payment, as echoed, or ""; with no UETR, the statement is about every payment of that message.
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """One payment's answer in a camt.029."""

    #: Payment that it is about, or "".
    uetr: str
    #: ExternalInvestigationExecutionConfirmation1Code of the whole: CNCL, PDCR, RJCR, …
    confirmation: str
    #: CancellationIndividualStatus: ACCR, PDCR, RJCR, or "".
    individual: str
    #: ExternalPaymentCancellationRejection1Code, or "".
    reason: str
    #: What the bank adds.
    text: str


@dataclass(frozen=True, slots=True)
class Booking:
    """One entry of a camt.054."""

    #: Payment that it is about, or "".
    uetr: str
    #: End-to-end reference, or "".
    end_to_end_id: str
    #: IBAN of the account that was booked on.
    account: str
    #: Amount.
    amount: Amount
    #: Whether the account was debited.
    debit: bool
    #: EntryStatus: BOOK, PDNG, INFO.
    status: str
    #: Account servicer's reference.
    reference: str
    #: Whether it takes back an earlier entry.
    reversal: bool = False


Statement: TypeAlias = PaymentStatus | Resolution | Booking


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the bank: valid, and checked where the schemas do not check."""

    #: Its header.
    envelope: Envelope
    #: What it is.
    kind: Kind
    #: What it says, payment by payment.
    statements: tuple[Statement, ...]
    #: SHA-256 of the octets as received.
    sha256: bytes
