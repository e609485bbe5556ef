"""What a document must look like, field by field, and the first place where it does not. Pure.

A form is checked in one order (what must not be there, what is missing, then each field as declared), so that every verifier names the same first place.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_NUMBER_END: Final = 2**63


class FormBroken(ValueError):
    """A document is not of its form.

    Attributes:
        place: path of the field, as ``entries[3].signature.key_id``.
        rule: what the field must be.
    """

    def __init__(self, place: str, rule: str) -> None:
        super().__init__(f"{place} {rule}")
        self.place = place
        self.rule = rule


class Form(Protocol):
    """What a value must look like."""

    def check(self, value: Any, place: str) -> None:
        """Raise `FormBroken` at the first place that is not so."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string of a pattern."""

    #: Whole string.
    pattern: re.Pattern[str]
    #: The rule in words.
    rule: str

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, str) or self.pattern.fullmatch(value) is None:
            raise FormBroken(place, self.rule)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some strings."""

    #: Which.
    values: tuple[str, ...]

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, str) or value not in self.values:
            raise FormBroken(place, f"must be {' or '.join(self.values)}")


@dataclass(frozen=True, slots=True)
class Octets:
    """Bytes as base64 in its one form (RFC 4648, section 4)."""

    #: How many at least.
    least: int
    #: And at most.
    most: int

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        found = _decoded(value)
        if found is None or not self.least <= len(found) <= self.most:
            many = f"{self.least} bytes" if self.least == self.most else f"{self.least} to {self.most} bytes"
            raise FormBroken(place, f"must be base64 of {many}")


def _decoded(value: Any) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        found = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return None
    return found if base64.b64encode(found).decode() == value else None


def octets(value: str) -> bytes:
    """The bytes of a field of the form `Octets`."""
    return base64.b64decode(value)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer below 2^63 as a string of its digits."""

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, str) or _NUMBER.fullmatch(value) is None or int(value) >= _NUMBER_END:
            raise FormBroken(place, "must be a string of digits that is a number below 2^63, without leading zeros")


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of at most 53 bits."""

    #: The smallest.
    least: int
    #: The greatest.
    most: int = 2**53 - 1

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise FormBroken(place, f"must be an integer from {self.least} to {self.most}")


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, bool):
            raise FormBroken(place, "must be true or false")


@dataclass(frozen=True, slots=True)
class Several:
    """A list."""

    #: Form of each.
    of: Form
    #: How many at least.
    least: int
    #: And at most.
    most: int

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise FormBroken(place, f"must be a list of {self.least} to {self.most}")
        for index, each in enumerate(value):
            self.of.check(each, f"{place}[{index}]")


@dataclass(frozen=True, slots=True)
class Shape:
    """An object."""

    #: Fields that are always there.
    required: Mapping[str, Form]
    #: Fields that may be there.
    optional: Mapping[str, Form] = field(default_factory=dict)
    #: Whether others may be there too.
    open: bool = False

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, dict):
            raise FormBroken(place, "must be an object")
        for name in () if self.open else sorted(value, key=_in_utf16):
            if name not in self.required and name not in self.optional:
                raise FormBroken(_under(place, name), "must not be there")
        for name in self.required:
            if name not in value:
                raise FormBroken(_under(place, name), "must be present")
        for name, form in (*self.required.items(), *self.optional.items()):
            if name in value:
                form.check(value[name], _under(place, name))


def _in_utf16(name: str) -> bytes:
    return name.encode("utf-16-be")


def _under(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def holds(form: Form, value: Any) -> bool:
    """Whether a value is of a form."""
    try:
        form.check(value, "")
    except FormBroken:
        return False
    return True
