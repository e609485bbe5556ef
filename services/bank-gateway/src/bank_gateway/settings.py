"""Settings of the bank-gateway."""

from __future__ import annotations

from datetime import UTC, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bank_gateway.calendar_settings import CalendarSettings
from bank_gateway.messages import Kind
from bank_gateway.profiles import ProfileName
from lockstep_kit.amounts import CURRENCY_MINOR_UNITS_MAX, Amount, amount_from_text, known_scale
from lockstep_kit.calendars import Calendar
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.forms import check_bic, check_iban
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.settings import ServiceSettings

_ALWAYS: Final = Calendar(UTC)


class InstrumentSettings(BaseModel):
    """What is agreed with the bank about undertakings. A bank that holds no drafts, or only until a day, is not one that this can be said of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drafts_held: Literal[True] = Field(
        description="the bank holds a lodged draft, and the applicant's facility for it, until it is issued or withdrawn"
    )
    days_max: int = Field(default=3 * 366, gt=0, description="farthest expiry of an undertaking, in days from its application")


class CreditLimit(BaseModel):
    """The most that a debtor may have drawn of its intraday line: asked for, held, and settled today."""

    model_config = ConfigDict(extra="forbid")

    account: str = Field(description="IBAN of the debtor's account")
    currency: str = Field(description="ISO 4217 code; one of the currencies that are agreed with the bank")
    limit: str = Field(description="decimal text with no more places than the currency has, greater than zero")

    @property
    def amount(self) -> Amount:
        """The limit as an amount."""
        return amount_from_text(self.currency, self.limit, known_scale(self.currency) or 0)

    @model_validator(mode="after")
    def _whole(self) -> CreditLimit:
        try:
            check_iban(self.account, "account")
            amount = self.amount
        except FieldInvalid as finding:
            raise ValueError(finding.rule) from None
        if amount.minor_units > CURRENCY_MINOR_UNITS_MAX:
            raise ValueError("must have at most 18 digits")
        return self


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpRailSettings(_Part):
    """The bank's HTTPS interface."""

    url: str = Field(pattern="^https://", description="base URL")
    tls: TlsSettings | None = Field(
        default=None, description="certificate shown to the bank, and the bank's authority; none: the service's own"
    )
    together: bool = Field(default=False, description="whether the bank takes many messages and keys in one request")


class FileRailSettings(_Part):
    """Folders that are shared with the bank; `out`, `in`, `taken`, `archive` and `quarantine` lie in one of them, on one file system."""

    folder: Path = Field(description="where the five folders lie; those that are missing are made")
    look_seconds: float = Field(default=0.5, gt=0, le=60, description="how often `in` is looked at while a delivery is waited for")


class RailSettings(_Part):
    """The way to the bank: one of these."""

    http: HttpRailSettings | None = Field(default=None, description="over HTTPS")
    files: FileRailSettings | None = Field(default=None, description="by files in shared folders")

    @model_validator(mode="after")
    def _one(self) -> RailSettings:
        if (self.http is None) == (self.files is None):
            raise ValueError("must be either http or files")
        return self


class SignatureSettings(_Part):
    """XML signatures (ecdsa-sha256, rsa-sha256) in the business application header."""

    key_file: Path = Field(description="our key: EC or RSA, PKCS8 PEM, readable by its owner alone")
    certificate_file: Path = Field(description="its certificate, which our signatures carry, PEM")
    pinned: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(
        min_length=1,
        description="SHA-256 of each certificate that the bank may sign with, in lower-case hex; two while one follows another",
    )
    algorithms: tuple[Literal["ecdsa-sha256", "rsa-sha256"], ...] = Field(
        default=("ecdsa-sha256", "rsa-sha256"), min_length=1, description="algorithms that the bank may sign with"
    )


class InboundSettings(_Part):
    """What is taken of the bank's messages; everything else is quarantined."""

    messages: tuple[Kind, ...] | None = Field(
        default=None, min_length=1, description="message definitions, as in pacs.002.001.15; none: all that are read here"
    )
    business_service: str = Field(default="", max_length=35, description="BizSvc that headers must name, as in swift.cbprplus.03")
    deviations: tuple[Annotated[str, Field(pattern="^[a-z]{4}(\\.[0-9]{2,3}){3} Document(/[A-Za-z0-9]+)+$")], ...] = Field(
        default=(),
        description="elements in which the bank is known to break the schema, as in `camt.054.001.13 Document/BkToCstmrDbtCdtNtfctn/Ntfctn/AddtlNtfctnInf`;"
        " one that breaks it is passed over as if it were absent",
    )


class BankGatewaySettings(ServiceSettings):
    """Settings of the bank-gateway."""

    participant: ParticipantSettings = Field(description="its half of the protocol")
    own_bic: str = Field(description="BIC under which Lockstep instructs the bank")
    bank_bic: str = Field(description="BIC of the bank")
    currencies: tuple[str, ...] = Field(min_length=1, description="ISO 4217 codes that are agreed with the bank")
    rail: RailSettings = Field(description="the way to the bank")
    signatures: SignatureSettings | None = Field(
        default=None,
        description="XML signatures, which every message then bears, ours and the bank's; none: a signed message is refused",
    )
    inbound: InboundSettings = Field(default_factory=InboundSettings, description="what is taken of the bank's messages")
    schemas: Path = Field(description="folder of the official ISO 20022 schemas, as set-up verified them")
    profile: ProfileName = Field(
        default=ProfileName.CONDITIONAL,
        description="how payments are promised and made, by what the bank can do: conditional, reservation or plain",
    )
    calendars: dict[str, CalendarSettings] = Field(
        default_factory=dict,
        description="when payments settle at the bank, by currency; one that is not here settles at any time, on UTC's day",
    )
    hold_margin_seconds: float = Field(
        default=10.0,
        gt=0,
        description="a hold outlives its plan's deadline by this at the least, so that the key arrives before it ends",
    )
    hold_max_hours: float = Field(
        default=24 * 6,
        gt=0,
        description="longest hold that is agreed with the bank; with reservations, how long each of them stands from its start",
    )
    mailbox_wait_seconds: float = Field(
        default=15.0, ge=1, le=20, description="how long the bank holds an empty mailbox's answer back"
    )
    inquiry_seconds: float = Field(
        default=10.0, gt=0, description="an answer that takes longer is asked for; each further time twice as long"
    )
    inquiry_seconds_max: float = Field(
        default=300.0,
        gt=0,
        description="longest time between two questions about one payment, which go on while the leg owes an answer",
    )
    instruments: InstrumentSettings | None = Field(
        default=None, description="what is agreed with the bank about undertakings; none: the bank issues none for us"
    )
    credit_limits: tuple[CreditLimit, ...] = Field(
        default=(),
        description="what debtors may draw within a day; a Prepare beyond it is a NO before the bank is asked. Not named: no limit",
    )
    in_flight_max: int = Field(
        default=256, ge=1, description="messages of which nobody knows whether the bank has them; what is new waits beyond them"
    )
    time_zone: str = Field(
        default="Europe/Berlin", description="IANA name of the zone in which the bank's booking days begin and end"
    )
    statement_due_hours: float = Field(
        default=12.0, ge=0, description="how long after its end a day's statement may take before it is overdue"
    )
    reconcile_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="how often it is looked for statements that are overdue, or not reconciled yet"
    )
    readers: tuple[str, ...] = Field(
        default=(),
        description="names of operators' and auditors' clients (spiffe://lockstep.local/client/<name>): they read the reconciliation, which is of every plan",
    )
    poll_seconds: float = Field(default=1.0, gt=0, le=60, description="how often the outbox is looked at, should nothing wake it")

    @property
    def hold_max(self) -> timedelta:
        """Longest hold."""
        return timedelta(hours=self.hold_max_hours)

    @property
    def hold_margin(self) -> timedelta:
        """Least time between a plan's deadline and the end of its hold."""
        return timedelta(seconds=self.hold_margin_seconds)

    def calendar(self, currency: str) -> Calendar:
        """When payments in a currency settle."""
        return self._calendars.get(currency, _ALWAYS)

    @cached_property
    def _calendars(self) -> dict[str, Calendar]:
        return {currency: each.calendar() for currency, each in self.calendars.items()}

    @model_validator(mode="after")
    def _agreed(self) -> BankGatewaySettings:
        for currency in self.calendars:
            if currency not in self.currencies:
                raise ValueError(f"calendars must be of currencies that are agreed with the bank, not of {currency}")
        return self

    @field_validator("own_bic", "bank_bic")
    @classmethod
    def _bic(cls, text: str) -> str:
        try:
            check_bic(text, "bic")
        except FieldInvalid as finding:
            raise ValueError(finding.rule) from None
        return text

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError):
            raise ValueError("must be an IANA time zone") from None
        return name

    @field_validator("currencies")
    @classmethod
    def _currencies(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            try:
                known_scale(code)
            except FieldInvalid as finding:
                raise ValueError(finding.rule) from None
        return codes

    @field_validator("credit_limits")
    @classmethod
    def _each_once(cls, limits: tuple[CreditLimit, ...]) -> tuple[CreditLimit, ...]:
        named = [(each.account, each.currency) for each in limits]
        if len(named) != len(set(named)):
            raise ValueError("must name an account and a currency once")
        return limits
