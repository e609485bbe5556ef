"""What the schemas do not catch: checksums, character sets, dates without an offset. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from stdnum import bic, iban
from stdnum.exceptions import ValidationError

#: FIN-X, the characters that every rail carries; references use no others.
_FIN_X = re.compile(r"[0-9a-zA-Z/\-?:().,'+ ]+")
_BIC = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}(?:[A-Z0-9]{3})?")
#: The ECB's TARGET BICs, whose country code is no country.
_TARGET = "TRGTXEPM"
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")

_Value = TypeVar("_Value")


class CheckError(ValueError):
    """A value breaks a rule. `field` and `rule` are for programs, the message is for people."""

    def __init__(self, field: str, rule: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.rule = rule
        self._message = message

    def at(self, field: str) -> CheckError:
        """The same about a field."""
        return CheckError(field, self.rule, self._message)


def certain(value: _Value | None) -> _Value:
    """What cannot be missing here, such as an element that the schema just required.

    Raises:
        AssertionError: It is missing: the program is wrong.
    """
    if value is None:
        raise AssertionError("what must be there is missing")
    return value


@lru_cache(maxsize=4096)
def require_bic(field: str, value: str) -> None:
    """A BIC of 8 or 11 characters whose country exists.

    Raises:
        CheckError: It is none.
    """
    try:
        valid = bool(_BIC.fullmatch(value)) and (value.startswith(_TARGET) or bic.validate(value) == value)
    except ValidationError:
        valid = False
    if not valid:
        raise CheckError(field, "BIC", f"{value} is no BIC")


@lru_cache(maxsize=4096)
def require_iban(field: str, value: str) -> None:
    """An IBAN without blanks, with its country's structure and the right check digits.

    Raises:
        CheckError: It is none.
    """
    try:
        valid = iban.validate(value) == value
    except ValidationError:
        valid = False
    if not valid:
        raise CheckError(field, "IBAN", "check digits, length or structure of the IBAN are wrong")


def require_reference(field: str, value: str) -> None:
    """A reference in FIN-X characters that neither begins nor ends with a slash or blank, nor holds two slashes.

    Raises:
        CheckError: It is none.
    """
    if not _FIN_X.fullmatch(value) or value.strip("/ ") != value or "//" in value:
        raise CheckError(field, "REFERENCE", "a reference is FIN-X text without blanks or slashes at its ends or two slashes")


def parse_time(field: str, value: str) -> datetime:
    """The instant of an ISO date and time that states its offset, truncated to microseconds, in UTC.

    Raises:
        CheckError: It has no offset, or is none.
    """
    match = _DATE_TIME.fullmatch(value)
    if match is None:
        raise CheckError(field, "OFFSET_DATE_TIME", "a date and time states seconds and its offset to UTC")
    fraction = match[2] or ""
    try:
        return datetime.fromisoformat(value.replace(fraction, fraction[:7]) if fraction else value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CheckError(field, "OFFSET_DATE_TIME", "there is no such date and time") from None
