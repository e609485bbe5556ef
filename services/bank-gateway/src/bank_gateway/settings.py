"""Settings of the bank-gateway."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, field_validator

from lockstep_kit.amounts import known_scale
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.forms import check_bic
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.settings import ServiceSettings


class BankGatewaySettings(ServiceSettings):
    """Settings of the bank-gateway."""

    participant: ParticipantSettings = Field(description="its half of the protocol")
    own_bic: str = Field(description="BIC under which Lockstep instructs the bank")
    bank_bic: str = Field(description="BIC of the bank")
    currencies: tuple[str, ...] = Field(min_length=1, description="ISO 4217 codes that are agreed with the bank")
    rail_url: str = Field(pattern="^https://", description="base URL of the bank's HTTPS rail")
    rail_tls: TlsSettings | None = Field(
        default=None, description="certificate shown to the bank, and the bank's authority; none: the service's own"
    )
    schemas: Path = Field(description="folder of the official ISO 20022 schemas, as set-up verified them")
    hold_max_hours: float = Field(default=24 * 6, gt=0, description="longest hold that is agreed with the bank")
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
    poll_seconds: float = Field(default=1.0, gt=0, le=60, description="how often the outbox is looked at, should nothing wake it")

    @property
    def hold_max(self) -> timedelta:
        """Longest hold."""
        return timedelta(hours=self.hold_max_hours)

    @field_validator("own_bic", "bank_bic")
    @classmethod
    def _bic(cls, text: str) -> str:
        try:
            check_bic(text, "bic")
        except FieldInvalid as finding:
            raise ValueError(finding.rule) from None
        return text

    @field_validator("currencies")
    @classmethod
    def _currencies(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            try:
                known_scale(code)
            except FieldInvalid as finding:
                raise ValueError(finding.rule) from None
        return codes
