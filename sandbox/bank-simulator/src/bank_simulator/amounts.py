"""Amounts: decimal text in messages, integer minor units everywhere else. There is no float anywhere in the bank."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache

import iso4217

#: What an amount looks like: no sign, no exponent, digits on both sides of a point.
_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,5})?")
DIGITS_MAX = 18


class AmountError(ValueError):
    """The text is no amount of that currency; the message says why."""


@cache
def scale_of(currency: str) -> int:
    """Decimal places of a currency's minor unit, by ISO 4217.

    Raises:
        AmountError: No current currency has this code, or it has no minor unit (gold, special drawing rights, test codes).
    """
    try:
        exponent = iso4217.Currency(currency).exponent
    except ValueError:
        exponent = None
    if exponent is None:
        raise AmountError(f"{currency} is no currency of ISO 4217 with a minor unit")
    return int(exponent)


def minor_units(text: str, currency: str, *, zero: bool = False) -> int:
    """The integer number of minor units that a decimal text states.

    Raises:
        AmountError: Not a plain decimal, zero (unless allowed), more decimals than the currency has, or more than 18 digits.
    """
    if not _DECIMAL.fullmatch(text) or len(text.replace(".", "")) > DIGITS_MAX:
        raise AmountError("an amount is digits with at most one point, 18 digits at most")
    scaled = Decimal(text).scaleb(scale_of(currency))
    if scaled != scaled.to_integral_value():
        raise AmountError(f"{currency} has {scale_of(currency)} decimal places")
    if scaled == 0 and not zero:
        raise AmountError("an amount is more than zero")
    return int(scaled)


def decimal_text(minor: int, scale: int) -> str:
    """The decimal text of minor units, with all of the currency's places."""
    return f"{Decimal(minor).scaleb(-scale):.{scale}f}"
