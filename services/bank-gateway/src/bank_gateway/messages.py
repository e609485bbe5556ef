"""What passes between the gateway and a bank, as values. Pure; `iso20022` makes XML of it and reads XML into it."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from lockstep_kit.amounts import Amount
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from bank_gateway.instruments.values import UndertakingWord


class Kind(StrEnum):
    """Message definitions that are spoken here."""

    PAYMENT = "pacs.008.001.13"
    INSTITUTION_PAYMENT = "pacs.009.001.12"
    STATUS = "pacs.002.001.15"
    INQUIRY = "pacs.028.001.06"
    CANCELLATION = "camt.056.001.11"
    RESOLUTION = "camt.029.001.13"
    BOOKING = "camt.054.001.13"
    APPLICATION = "tsin.005.001.01"
    ISSUANCE = "tsrv.001.001.01"
    UNDERTAKING_ISSUED = "tsrv.003.001.01"
    TERMINATION = "tsrv.004.001.01"
    UNDERTAKING_STATUS = "tsrv.019.001.01"
    STATEMENT = "camt.053.001.13"
    RETURN = "pacs.004.001.14"
    RESERVATION = "camt.103.001.03"
    RESERVATION_DELETION = "camt.049.001.07"
    RESERVATION_QUERY = "camt.046.001.08"
    RECEIPT = "camt.025.001.09"
    RESERVATION_REPORT = "camt.047.001.08"


#: Definitions that carry a payment: between customers, and between financial institutions.
PAYMENTS: Final = (Kind.PAYMENT, Kind.INSTITUTION_PAYMENT)
#: Definitions in which we ask about a reservation.
RESERVATION_REQUESTS: Final = (Kind.RESERVATION, Kind.RESERVATION_DELETION, Kind.RESERVATION_QUERY)


class Footing(StrEnum):
    """On what a payment is made."""

    #: It is held until its lock's key is shown, or it expires.
    CONDITIONAL = "COND"
    #: It is paid out of its reservation, or not at all.
    RESERVED = "RSVD"
    #: It is paid when it comes.
    ORDINARY = ""


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
    #: BIC of the holder, where that is a financial institution; "" for others.
    institution_bic: str = ""


@dataclass(frozen=True, slots=True)
class Payment:
    """A credit transfer, between customers or between financial institutions."""

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
    #: On what it is made.
    footing: Footing = Footing.CONDITIONAL

    @property
    def kind(self) -> Kind:
        """The definition that carries it."""
        return Kind.INSTITUTION_PAYMENT if self.debtor.institution_bic else Kind.PAYMENT

    @property
    def reservation_id(self) -> str:
        """Name of the reservation that it is paid out of: its UETR without hyphens, which fits 35 characters."""
        return self.references.uetr.replace("-", "")


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
    #: Whether it books a payment's return.
    returned: bool = False
    #: What the bank took for it besides the amount, by currency.
    charges: tuple[Amount, ...] = ()
    #: Day on which the bank booked it, where it says so.
    booked_on: date | None = None
    #: Whether an account statement says it, which the balances of the day bear out.
    stated: bool = False
    #: Whether the bank calls it a credit transfer that it was told to make.
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class StatedTotals:
    """How many entries a statement says that it has, and what they come to; None where it does not say."""

    #: All entries.
    count: int | None
    #: Credits.
    credit_count: int | None
    #: Sum of the credits, minor units.
    credit_sum: int | None
    #: Debits.
    debit_count: int | None
    #: Sum of the debits, minor units.
    debit_sum: int | None


@dataclass(frozen=True, slots=True)
class StatementPage:
    """One page of a camt.053: an account's entries of one booking day. Balances are minor units, negative where the holder owes."""

    #: The statement; all of its pages say the same.
    statement_id: str
    #: Account, an IBAN or the bank's own name of it.
    account: str
    #: ISO 4217 code.
    currency: str
    #: Decimal places.
    scale: int
    #: Booking day.
    day: date
    #: Electronic sequence number: counts the account's statements.
    number: int
    #: Which page it is, from 1.
    page: int
    #: Whether it is the last one.
    last: bool
    #: Balance before the first entry, where the page says it.
    opening: int | None
    #: Balance after the last entry, where the page says it.
    closing: int | None
    #: What the whole statement says of itself.
    totals: StatedTotals
    #: Credits and debits of this page, one for each entry, minor units: positive credits the holder.
    amounts: tuple[int, ...]
    #: What was booked, payment by payment.
    entries: tuple[Booking, ...]


@dataclass(frozen=True, slots=True)
class ReservationStatus:
    """What a camt.025 or camt.047 says of a reservation."""

    #: Payment that it is for, or "" where only our message is named.
    uetr: str
    #: Definition of the message of ours that it answers.
    about: str
    #: ExternalRequestStatus1Code of a receipt; ReservationStatus1Code, or ExternalSystemErrorHandling1Code, of a report.
    status: str
    #: ExternalStatusReason1Code or a proprietary reason, or "".
    reason: str
    #: What the bank adds.
    text: str
    #: Message of ours that it answers, or "".
    message_id: str = ""
    #: Amount that is reserved, where it is told.
    amount: Amount | None = None


@dataclass(frozen=True, slots=True)
class PaymentReturn:
    """One payment of a pacs.004: its money comes back."""

    #: Payment that is returned, or "".
    uetr: str
    #: Its end-to-end reference, or "".
    end_to_end_id: str
    #: Name of the return.
    return_id: str
    #: Amount of the payment as it was settled, where it is told.
    original: Amount | None
    #: Amount that comes back.
    amount: Amount
    #: ExternalReturnReason1Code, or "".
    reason: str
    #: What the bank adds.
    text: str


#: What is said of a payment itself.
Statement: TypeAlias = PaymentStatus | Resolution | Booking
#: Whatever a bank can say.
AnyStatement: TypeAlias = Statement | ReservationStatus | PaymentReturn


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the bank: valid, and checked where the schemas do not check."""

    #: Its header.
    envelope: Envelope
    #: What it is.
    kind: Kind
    #: What it says, payment by payment.
    statements: tuple[AnyStatement, ...]
    #: SHA-256 of the octets as received.
    sha256: bytes
    #: What it says of an undertaking, if that is what it is about.
    undertaking: UndertakingWord | None = None
    #: Pages of account statements, in a camt.053.
    pages: tuple[StatementPage, ...] = ()
