"""A value with something changed is what the standard library makes of it, of classes of every shape."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest

from lockstep_kit.values import replace


@dataclass(frozen=True, slots=True)
class Slotted:
    first: int
    second: str = ""
    third: tuple[int, ...] = ()


@dataclass(frozen=True)
class Checked:
    first: int
    second: int = 0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("must not be below zero")


@dataclass(frozen=True)
class Further(Checked):
    third: int = 0


@dataclass(frozen=True, slots=True)
class Single:
    only: int


@dataclass(frozen=True, kw_only=True)
class Named:
    first: int
    second: int


@dataclass(frozen=True)
class Worked:
    first: int
    second: int
    both: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "both", self.first + self.second)


CASES: tuple[tuple[Any, dict[str, Any]], ...] = (
    (Slotted(1, "a", (2,)), {}),
    (Slotted(1, "a", (2,)), {"second": "b"}),
    (Slotted(1, "a"), {"third": (1, 2), "first": 7}),
    (Checked(1, 2), {"second": 3}),
    (Further(1, 2, 3), {"third": 4, "first": 5}),
    (Single(1), {"only": 2}),
    (Named(first=1, second=2), {"first": 3}),
    (Worked(1, 2), {"second": 5}),
)


@pytest.mark.parametrize(("value", "changes"), CASES)
def test_it_is_what_the_standard_library_makes(value: Any, changes: dict[str, Any]) -> None:
    """The same value, of the same class, and the one before stays as it was."""
    before = dataclasses.asdict(value)
    found = replace(value, **changes)
    assert found == dataclasses.replace(value, **changes)
    assert type(found) is type(value)
    assert dataclasses.asdict(value) == before


def test_what_a_class_checks_is_checked() -> None:
    """What a class refuses when one is made, it refuses here too, and so is a field that it does not have."""
    with pytest.raises(ValueError, match="below zero"):
        replace(Checked(1), first=-1)
    other: Any = Checked(1)
    for unknown in ({"fourth": 1}, {"first": 1, "fourth": 1}):
        with pytest.raises(TypeError):
            replace(other, **unknown)
    computed: Any = Worked(1, 2)
    with pytest.raises((TypeError, ValueError)):
        replace(computed, both=1)
