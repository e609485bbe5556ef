"""Undertakings as the bank's business knows them, without XML, database or network; and whether the bank agrees to one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from bank_simulator.domain import Account
    from bank_simulator.settings import BankSeed, Counterparty

#: Message definitions that are spoken here.
APPLICATION: Final = "tsin.005.001.01"
ISSUANCE: Final = "tsrv.001.001.01"
NOTIFICATION: Final = "tsrv.003.001.01"
TERMINATION: Final = "tsrv.004.001.01"
UNDERTAKING_STATUS: Final = "tsrv.019.001.01"


class UndertakingState(StrEnum):
    """Where an undertaking stands. Only LODGED goes anywhere."""

    TOMBSTONED = "TOMBSTONED"
    REJECTED = "REJECTED"
    LODGED = "LODGED"
    WITHDRAWN = "WITHDRAWN"
    ISSUED = "ISSUED"


@dataclass(frozen=True, slots=True)
class Application:
    """A tsin.005: an undertaking that is to be held as a draft."""

    #: The applicant's reference, which is a UETR.
    uetr: UUID
    number: str
    form: str
    #: Minor units of the currency.
    amount: int
    currency: str
    scale: int
    applicant_name: str
    #: The applicant's account here, to which its facility belongs.
    account: str
    issuer_bic: str
    beneficiary_name: str
    advising_bic: str
    expires_on: date | None
    #: SHA-256 over the canonical XML of the only issuance that the draft may become.
    issuance_sha256: bytes
    #: SHA-256 over its own canonical XML.
    content_sha256: bytes


@dataclass(frozen=True, slots=True)
class Issuance:
    """A tsrv.001."""

    uetr: UUID
    number: str
    #: SHA-256 over its Document's canonical XML.
    content_sha256: bytes
    #: The Document's canonical XML.
    document: bytes


@dataclass(frozen=True, slots=True)
class Termination:
    """A tsrv.004 that asks to end an undertaking."""

    uetr: UUID
    number: str


@dataclass(frozen=True, slots=True)
class Undertaking:
    """An undertaking as the bank knows it. A tombstone has nothing but its UETR, number, counterparty and state."""

    uetr: UUID
    counterparty: str
    state: UndertakingState
    reason: str | None
    number: str
    account: str
    amount: int
    currency: str
    scale: int
    advising_bic: str
    expires_on: date | None
    issuance_sha256: bytes | None
    content_sha256: bytes | None
    #: What was last said about it, and, of one that was issued, the notification.
    status_message: int | None


@dataclass(frozen=True, slots=True)
class Facility:
    """Up to what the bank issues undertakings for an account's owner."""

    account: Account
    #: Minor units.
    limit: int
    #: Minor units of the drafts that are lodged and of the undertakings that are in force.
    used: int


@dataclass(frozen=True, slots=True)
class UndertakingStatus:
    """What a tsrv.019 says."""

    uetr: UUID
    number: str
    #: ExternalUndertakingStatusCategory1Code.
    category: str
    #: UndertakingStatus3Code.
    status: str
    reason: str | None = None
    text: str | None = None


def refuses(
    order: Application, facility: Facility | None, bank: BankSeed, counterparty: Counterparty, today: date
) -> tuple[str, str] | None:
    """The first rule that an application breaks: reason and text; None if the bank agrees to it."""
    if order.issuer_bic[:8] != bank.bic[:8]:
        return "RC03", "another bank is to issue it"
    if facility is None:
        return "AC01", "the applicant has no facility for undertakings here"
    if facility.account.status != "OPEN":
        return "AC06", "the applicant's account is not open"
    if counterparty.may_debit is not None and facility.account.account_id not in counterparty.may_debit:
        return "AG01", "there is no mandate for the applicant"
    if facility.account.owner_name != order.applicant_name:
        return "BE01", "the applicant is not the account's owner"
    if facility.account.currency != order.currency:
        return "AM03", "the facility is in another currency"
    if order.expires_on is None or not today < order.expires_on <= today + timedelta(days=bank.terms.undertaking_days_max):
        return "DT01", "it expires too soon, too late or never"
    if facility.used + order.amount > facility.limit:
        return "AM02", "the applicant's facility does not suffice"
    return None
