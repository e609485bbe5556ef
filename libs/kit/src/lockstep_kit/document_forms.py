"""Forms of what stands in a canonical document: what a value must be, said once, for checks and for documentation. Pure.

A finding names the place of the value by its path from the document on, and the rule that is broken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from lockstep_kit.canonical import time_from_text
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.values import dataclass

TEXT_LENGTH_MAX: Final = 65_536
INTEGER_MAX: Final = 2**53 - 1


class Form(Protocol):
    """What a value must be."""

    @property
    def rule(self) -> str:
        """The rule, as a sentence that starts with "must"."""

    def check(self, value: Any) -> None:
        """Hold a value against the rule.

        Raises:
            FieldInvalid: it breaks the rule; the field is named from the value on.
        """


@dataclass(frozen=True, slots=True)
class Text:
    """Any text."""

    #: Whether "" is allowed.
    empty: bool = False

    @property
    def rule(self) -> str:
        """The rule."""
        return f"must be a text of {0 if self.empty else 1} to {TEXT_LENGTH_MAX} characters"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if not (isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX and (self.empty or value)):
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class Hex:
    """Bytes as lower-case hex digits."""

    #: How many; None: any number.
    octets: int | None
    #: Whether there may be none.
    empty: bool = False

    @property
    def rule(self) -> str:
        """The rule."""
        many = "bytes" if self.octets is None else f"{self.octets} bytes"
        return f"must be the lower-case hex of {many}{', or empty' if self.empty else ''}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        try:
            octets = bytes.fromhex(value) if isinstance(value, str) else None
        except ValueError:
            octets = None
        # The way there and back is the quickest look at every digit.
        if octets is None or octets.hex() != value:
            raise FieldInvalid("", self.rule)
        if self.octets not in (None, len(octets)) and not (self.empty and not octets):
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text of a form."""

    #: The form.
    form: re.Pattern[str]
    #: The rule.
    rule: str

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if not (isinstance(value, str) and self.form.fullmatch(value)):
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class Time:
    """A moment, as `time_text` writes it."""

    #: Whether "" is allowed.
    empty: bool = False

    @property
    def rule(self) -> str:
        """The rule."""
        return f"must be an RFC 3339 time in UTC with six decimals{', or empty' if self.empty else ''}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if isinstance(value, str) and len(value) == len("2026-01-01T00:00:00.000000Z"):
            try:
                time_from_text(value)
            except ValueError:
                pass
            else:
                return
        if not (self.empty and value == ""):
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer."""

    #: The smallest.
    at_least: int
    #: The greatest.
    at_most: int = INTEGER_MAX

    @property
    def rule(self) -> str:
        """The rule."""
        if self.at_least == self.at_most:
            return f"must be {self.at_least}"
        return f"must be an integer of at least {self.at_least}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if type(value) is not int or not self.at_least <= value <= self.at_most:
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    #: The rule.
    rule: str = "must be true or false"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if not isinstance(value, bool):
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some texts."""

    #: Which.
    values: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The rule."""
        return f"must be {' or '.join(each or 'empty' for each in self.values)}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if value not in self.values:
            raise FieldInvalid("", self.rule)


@dataclass(frozen=True, slots=True)
class Several:
    """A list."""

    #: Form of each.
    of: Form
    #: How many there are.
    at_least: int
    at_most: int

    @property
    def rule(self) -> str:
        """The rule."""
        return f"must be a list of {self.at_least} to {self.at_most}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if not isinstance(value, list) or not self.at_least <= len(value) <= self.at_most:
            raise FieldInvalid("", self.rule)
        for index, each in enumerate(value):
            try:
                self.of.check(each)
            except FieldInvalid as finding:
                raise FieldInvalid(f"[{index}]{'.' if finding.field else ''}{finding.field}", finding.rule) from None


@dataclass(frozen=True, slots=True)
class Shape:
    """An object with these fields and no others."""

    #: What its documentation calls it.
    name: str
    #: Fields that are always there.
    required: Mapping[str, Form]
    #: Fields that may be there.
    optional: Mapping[str, Form]

    @property
    def rule(self) -> str:
        """The rule."""
        return f"must be an object: {self.name}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        if not isinstance(value, dict):
            raise FieldInvalid("", self.rule)
        required, optional, found = self.required, self.optional, 0
        for name, each in value.items():
            form = required.get(name)
            if form is not None:
                found += 1
            elif (form := optional.get(name)) is None:
                raise FieldInvalid(name, f"must not be there: it is no field of {self.name}")
            try:
                form.check(each)
            except FieldInvalid as finding:
                joined = name if not finding.field else f"{name}{'' if finding.field[0] == '[' else '.'}{finding.field}"
                raise FieldInvalid(joined, finding.rule) from None
        if found != len(required):
            raise FieldInvalid(next(name for name in required if name not in value), "must be present")


@dataclass(frozen=True, slots=True)
class Tagged:
    """One of some objects, by its field `kind`."""

    #: What its documentation calls it.
    name: str
    #: The objects.
    shapes: Mapping[str, Shape]

    @property
    def rule(self) -> str:
        """The rule."""
        return f"must be an object: {self.name}"

    def check(self, value: Any) -> None:
        """Hold a value against the rule."""
        kind = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            raise FieldInvalid(
                "kind" if isinstance(value, dict) else "", "must be present" if isinstance(value, dict) else self.rule
            )
        if kind not in self.shapes:
            raise FieldInvalid("kind", f"must be {' or '.join(self.shapes)}")
        self.shapes[kind].check(value)
