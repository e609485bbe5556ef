"""What is said of a field that breaks a rule: which field, and which rule. Pure."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType


class FieldInvalid(ValueError):
    """A field breaks a rule; nothing was changed.

    Attributes:
        field: path of the field in the sender's words, for instance ``legs[0].token_transfer.amount.minor_units``.
        rule: the rule, as a sentence that starts with "must".
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule

    def under(self, prefix: str) -> FieldInvalid:
        """The same finding, with the field named from further outside."""
        return FieldInvalid(f"{prefix}.{self.field}" if self.field else prefix, self.rule)


def require(condition: bool, field: str, rule: str) -> None:
    """Raise FieldInvalid unless the condition holds."""
    if not condition:
        raise FieldInvalid(field, rule)


def within(prefix: str) -> AbstractContextManager[None]:
    """Findings raised inside name their field from further outside."""
    return _Within(prefix)


class _Within:
    """A class, since a generator costs four times as much, and every message that is read passes through several."""

    __slots__ = ("_prefix",)

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, FieldInvalid):
            raise error.under(self._prefix) from None
