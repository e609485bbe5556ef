"""What the process is told: where its database, ports and files are, and with what the bank opens.

Both files are YAML. An unknown field is an error, so that a misspelt limit is not a missing one.
"""

from __future__ import annotations

from datetime import date, time
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bank_simulator.amounts import AmountError, minor_units, scale_of
from bank_simulator.checks import CheckError, require_bic, require_iban


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseSettings(_Part):
    """The bank's own database. The role needs to create tables in it; nothing else may use it."""

    url: Annotated[str, Field(description="postgresql://user@host:port/database, without a password")]
    password_file: Path | None = None
    pool_size_max: Annotated[int, Field(ge=2, le=64)] = 8
    connect_seconds_max: Annotated[float, Field(gt=0, le=300, description="services start in any order")] = 30.0


class RailSettings(_Part):
    """The HTTPS server that counterparties reach. A client's certificate is always asked for."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0 takes a free one")] = 0
    port_file: Annotated[Path | None, Field(description="gets the port once it listens")] = None
    certificate_file: Path
    key_file: Path
    ca_file: Annotated[Path, Field(description="whose client certificates are taken")]


class ControlSettings(_Part):
    """The server of the control and inspection interface: loopback only."""

    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    port_file: Path | None = None
    token_file: Annotated[Path, Field(description="holds the bearer token")]


class FileDropSettings(_Part):
    """Folders by which a counterparty exchanges files instead of calling the rail."""

    counterparty: Annotated[str, Field(description="its name in the seed")]
    inbox: Annotated[Path, Field(description="its out-folder: what it sends")]
    outbox: Annotated[Path, Field(description="its in-folder: what the bank sends")]
    done: Annotated[Path, Field(description="gets what was carried out")]
    refused: Annotated[Path, Field(description="gets what was not taken")]


class SigningSettings(_Part):
    """The bank's key for XML signatures; counterparties with `certificates` get signed messages."""

    key_file: Path
    certificate_file: Path


class Settings(_Part):
    """The whole file of `--config`."""

    database: DatabaseSettings
    rail: RailSettings
    control: ControlSettings
    seed_file: Annotated[Path, Field(description="the bank itself: see BankSeed")]
    file_drops: tuple[FileDropSettings, ...] = ()
    signing: SigningSettings | None = None
    schemas: Annotated[Path | None, Field(description="folder of the official schemas; --schemas goes before it")] = None


class CreditLineSeed(_Part):
    """Intraday credit that an institution lends to an account."""

    provider: Annotated[str, Field(min_length=1, max_length=140)]
    provider_bic: str
    limit: Annotated[str, Field(description="the most that is lent at a time, decimal, in the account's currency")]

    @model_validator(mode="after")
    def _valid(self) -> CreditLineSeed:
        require_bic("provider_bic", self.provider_bic)
        return self


class AccountSeed(_Part):
    """An account that the bank opens with."""

    account: Annotated[str, Field(min_length=1, max_length=34, description="IBAN, or another identification")]
    owner: Annotated[str, Field(min_length=1, max_length=140)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    opening_balance: Annotated[str, Field(description="decimal, in the currency's unit")] = "0"
    overdraft_limit: str = "0"
    status: Literal["OPEN", "BLOCKED", "CLOSED"] = "OPEN"
    #: Set for a correspondent's account at this bank.
    correspondent_bic: str | None = None
    credit_line: Annotated[CreditLineSeed | None, Field(description="drawn for holds that the owner's money does not cover")] = None

    facility: Annotated[
        str | None, Field(description="up to what undertakings are issued for the owner, decimal; none: not at all")
    ] = None

    @model_validator(mode="after")
    def _valid(self) -> AccountSeed:
        scale_of(self.currency)
        if self.facility is not None:
            minor_units(self.facility, self.currency)
        for text in (self.opening_balance, self.overdraft_limit):
            if minor_units(text, self.currency, zero=True) < 0:
                raise AmountError("an amount is not negative")
        if looks_like_iban(self.account):
            require_iban("account", self.account)
        if self.correspondent_bic is not None:
            require_bic("correspondent_bic", self.correspondent_bic)
            if self.credit_line is not None:
                raise CheckError("credit_line", "CUSTOMER", "credit lines are lent to customers")
        if self.credit_line is not None:
            minor_units(self.credit_line.limit, self.currency)
        return self


class Counterparty(_Part):
    """Somebody who exchanges messages with the bank."""

    name: Annotated[str, Field(min_length=1, max_length=70)]
    bic: str
    identities: Annotated[tuple[str, ...], Field(min_length=1, description="URI, DNS name or common name in its certificate")]
    certificates: Annotated[
        tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] | None,
        Field(
            min_length=1,
            description="SHA-256 of those that it signs with: then messages are signed, both ways; absent: none may be",
        ),
    ] = None
    may_debit: Annotated[tuple[str, ...] | None, Field(description="accounts that it may instruct for; all if absent")] = None

    @model_validator(mode="after")
    def _valid(self) -> Counterparty:
        require_bic("bic", self.bic)
        return self


class Terms(_Part):
    """What the bank agreed to."""

    charge_bearers: Annotated[tuple[Literal["DEBT", "SHAR", "SLEV", "CRED"], ...], Field(min_length=1)] = ("DEBT", "SHAR", "SLEV")
    cut_off: Annotated[
        dict[str, time], Field(description="currency -> local time after which the day is over; none if absent")
    ] = {}
    opens: Annotated[dict[str, time], Field(description="currency -> local time at which the day begins; midnight if absent")] = {}
    weekdays: Annotated[tuple[int, ...], Field(min_length=1, description="ISO weekdays on which the bank works, Monday is 1")] = (
        1,
        2,
        3,
        4,
        5,
        6,
        7,
    )
    holidays: Annotated[tuple[date, ...], Field(description="days on which it does not")] = ()
    hold_seconds_max: Annotated[int, Field(gt=0, description="how far ahead a hold may end")] = 7 * 24 * 3600
    reservation_seconds: Annotated[int, Field(gt=0, description="how long a reservation stands from its start")] = 7 * 24 * 3600
    hold_amount_max: Annotated[dict[str, str], Field(description="currency -> the largest hold, decimal; none if absent")] = {}
    undertaking_days_max: Annotated[int, Field(gt=0, description="how far ahead an undertaking may end")] = 3 * 366
    end_of_day: Annotated[
        time | None,
        Field(description="local time at which a booking day ends and is stated; none: when the control interface says so"),
    ] = None
    told_together_max: Annotated[
        int,
        Field(ge=1, le=128, description="payments of which one pacs.002 or camt.054 tells, where several were asked for together"),
    ] = 64
    statement_entries_max: Annotated[int, Field(ge=1, le=700, description="entries on one page of a statement")] = 500
    settlement_days_back_max: Annotated[int, Field(ge=0, le=30, description="tolerates a message that crosses midnight")] = 1
    settlement_days_ahead_max: Annotated[int, Field(ge=0, le=30)] = 1

    @model_validator(mode="after")
    def _valid(self) -> Terms:
        for currency, text in self.hold_amount_max.items():
            minor_units(text, currency)
        if not {*self.weekdays} <= {*range(1, 8)}:
            raise CheckError("weekdays", "ISO_WEEKDAY", "weekdays are 1 to 7")
        for currency, opens in self.opens.items():
            if currency in self.cut_off and self.cut_off[currency] <= opens:
                raise CheckError("opens", "BEFORE_CUT_OFF", f"{currency} is cut off before it opens")
        return self


class BankSeed(_Part):
    """The bank: who it is, whose accounts it keeps, with whom it exchanges messages."""

    bic: str
    name: Annotated[str, Field(min_length=1, max_length=140)]
    time_zone: str = "Europe/Berlin"
    accounts: Annotated[tuple[AccountSeed, ...], Field(min_length=1)]
    counterparties: Annotated[tuple[Counterparty, ...], Field(min_length=1)]
    terms: Terms = Terms()

    @property
    def borrowers(self) -> frozenset[str]:
        """Accounts that have a credit line."""
        return frozenset(account.account for account in self.accounts if account.credit_line is not None)

    @model_validator(mode="after")
    def _valid(self) -> BankSeed:
        require_bic("bic", self.bic)
        ZoneInfo(self.time_zone)
        unique("account", [account.account for account in self.accounts])
        unique("correspondent and currency", [f"{a.correspondent_bic} {a.currency}" for a in self.accounts if a.correspondent_bic])
        unique("counterparty", [counterparty.name for counterparty in self.counterparties])
        unique("counterparty's BIC", [counterparty.bic for counterparty in self.counterparties])
        unique("identity", [identity for counterparty in self.counterparties for identity in counterparty.identities])
        return self


def unique(what: str, values: list[str]) -> None:
    """Refuses a value that comes twice.

    Raises:
        CheckError: One does.
    """
    for value in values:
        if values.count(value) > 1:
            raise CheckError(what, "UNIQUE", f"{value} is given twice")


def looks_like_iban(account: str) -> bool:
    """Whether an account's identification is meant as an IBAN."""
    return len(account) >= 15 and account[:2].isalpha() and account[2:4].isdigit()


def read_settings(path: Path) -> Settings:
    """Reads the file of `--config`; relative paths in it are relative to its folder."""
    base = path.resolve().parent
    settings = Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return settings.model_copy(
        update={
            "database": _anchored(settings.database, base, "password_file"),
            "rail": _anchored(settings.rail, base, "port_file", "certificate_file", "key_file", "ca_file"),
            "control": _anchored(settings.control, base, "port_file", "token_file"),
            "file_drops": tuple(_anchored(drop, base, "inbox", "outbox", "done", "refused") for drop in settings.file_drops),
            "signing": _anchored(settings.signing, base, "key_file", "certificate_file") if settings.signing else None,
            "seed_file": base / settings.seed_file,
            "schemas": base / settings.schemas if settings.schemas else None,
        }
    )


def _anchored(part: BaseModel, base: Path, *names: str) -> BaseModel:
    return part.model_copy(update={name: base / value for name in names if (value := getattr(part, name)) is not None})


def read_seed(path: Path) -> BankSeed:
    """Reads the file that describes the bank."""
    return BankSeed.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
