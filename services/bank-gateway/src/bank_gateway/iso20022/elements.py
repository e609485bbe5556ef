"""What stands in an element of a message, by short paths in the element's own namespace; read so that nothing is guessed."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

from lxml import etree

from lockstep_kit.amounts import Amount, amount_from_text, known_scale
from lockstep_kit.fields import FieldInvalid, require

_OFFSET: Final = re.compile(r".*(Z|[+-]\d\d:\d\d)")
_TRAILING_ZEROS: Final = re.compile(r"(\.\d*?)0+$")


@lru_cache(maxsize=4096)
def _within(tag: str, path: str) -> str:
    namespace, end, _ = tag.rpartition("}")
    return "/".join(f"{namespace}{end}{step}" for step in path.split("/"))


@lru_cache(maxsize=4096)
def _name(tag: str) -> str:
    return tag.rpartition("}")[2]


def path_of(element: etree._Element, path: str) -> str:
    """A short path as lxml wants it."""
    return _within(str(element.tag), path)


def told(element: etree._Element, path: str = "", found: dict[str, str] | None = None) -> dict[str, str]:
    """What stands below an element, by short paths: texts, "" of what has none. Of several at one path the first counts."""
    found = {} if found is None else found
    for child in element:
        at = path + _name(str(child.tag))
        if at not in found:
            found[at] = child.text or ""
        if len(child):
            told(child, at + "/", found)
    return found


def find(element: etree._Element, path: str) -> etree._Element | None:
    """The first element at a path."""
    return element.find(path_of(element, path))


def all_of(element: etree._Element, path: str) -> list[etree._Element]:
    """All elements at a path."""
    return element.findall(path_of(element, path))


def text(element: etree._Element, path: str) -> str | None:
    """What the first element at a path says."""
    return element.findtext(path_of(element, path))


def required(element: etree._Element, path: str) -> str:
    """What must be said.

    Raises:
        FieldInvalid: it is not there, or empty.
    """
    found = text(element, path)
    if not found:
        raise FieldInvalid(path, "must be present")
    return found


def amount_of(element: etree._Element | None) -> Amount:
    """An amount greater than zero, in a currency of ISO 4217 and with no more decimals than it has.

    Raises:
        FieldInvalid: it is none.
    """
    if element is None:
        raise FieldInvalid("Amt", "must be present")
    currency = element.get("Ccy") or ""
    try:
        scale = known_scale(currency)
        return amount_from_text(currency, _plain(element.text), scale or 0)
    except FieldInvalid as finding:
        raise finding.under("Amt") from None


def minor_units(written: str | None, currency: str, scale: int, field: str) -> int:
    """A sum in minor units, which may be zero.

    Raises:
        FieldInvalid: no plain decimal number, negative, or with more decimals than the currency has.
    """
    plain = _plain(written)
    if not plain.strip("0."):
        return 0
    try:
        return amount_from_text(currency, plain, scale).minor_units
    except FieldInvalid as finding:
        raise FieldInvalid(field, finding.rule) from None


def _plain(written: str | None) -> str:
    # "12.50" and "12.500" are the same amount of money; what is left after dropping zeros must fit the currency.
    return _TRAILING_ZEROS.sub(r"\1", (written or "").strip()).rstrip(".")


def time_of(written: str, field: str) -> datetime:
    """A moment.

    Raises:
        FieldInvalid: it does not name its offset, or is none.
    """
    require(_OFFSET.fullmatch(written) is not None, field, "must name its offset from UTC")
    try:
        return datetime.fromisoformat(written).astimezone(UTC)
    except ValueError as error:
        raise FieldInvalid(field, "must be a time with at most six decimals of a second") from error


def booking_day(entry: etree._Element) -> date | None:
    """The day on which an entry was booked, as the bank's own calendar has it; None where the entry does not say.

    Raises:
        FieldInvalid: it is no day.
    """
    moment = text(entry, "BookgDt/DtTm")
    if moment is not None:
        time_of(moment, "BookgDt/DtTm")
    return day_of(text(entry, "BookgDt/Dt") or moment, "BookgDt")


def day_of(written: str | None, field: str) -> date | None:
    """A day, or the day of a moment at its own offset.

    Raises:
        FieldInvalid: it is none.
    """
    try:
        return None if written is None else date.fromisoformat(written.strip()[:10])
    except ValueError as error:
        raise FieldInvalid(field, "must be a day") from error
