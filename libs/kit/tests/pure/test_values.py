"""Values, and values with something changed, are what the standard library makes of them, of classes of every shape."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from lockstep_kit import values
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


# -- classes -----------------------------------------------------------------------------------------------------------


def plain(dataclass: Any) -> Any:
    """A class of values with and without defaults."""

    @dataclass(frozen=True, slots=True)
    class Plain:
        first: int
        second: str = "a"
        third: list[int] = field(default_factory=list)

    return Plain


def named(dataclass: Any) -> Any:
    """A class whose values are made by name, and are compared by identity."""

    @dataclass(frozen=True, slots=True, kw_only=True, eq=False)
    class Named:
        first: int
        second: list[int] = field(default_factory=list)

    return Named


def mixed(dataclass: Any) -> Any:
    """A class some of whose fields are given by name, and some not at all."""

    @dataclass(frozen=True, slots=True)
    class Mixed:
        first: int
        second: int = field(default=2, kw_only=True)
        third: int = field(init=False, default=3)
        fourth: list[int] = field(init=False, default_factory=list)
        fifth: int = field(init=False)

        def __post_init__(self) -> None:
            if self.first < 0:
                raise ValueError("must not be below zero")
            object.__setattr__(self, "fifth", self.first + self.second)

    return Mixed


def ordered(dataclass: Any) -> Any:
    """A class whose values have an order, under one that has fields itself."""

    @dataclass(frozen=True, slots=True, order=True)
    class Below:
        first: int

    @dataclass(frozen=True, slots=True, order=True)
    class Ordered(Below):
        second: int = 0

    return Ordered


def inherited(dataclass: Any) -> Any:
    """A class that adds nothing to one whose values are made faster."""

    class Inherited(plain(dataclass)):  # type: ignore[misc]
        pass

    return Inherited


def loose(dataclass: Any) -> Any:
    """A class that is not frozen."""

    @dataclass(slots=True)
    class Loose:
        first: int
        second: str = "a"

    return Loose


def bare(dataclass: Any) -> Any:
    """A class made without options."""

    @dataclass
    class Bare:
        first: int = 0

    return Bare


SHAPES = (plain, named, mixed, ordered, inherited, loose, bare)
GIVEN: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((), {}),
    ((1,), {}),
    ((1, "b"), {}),
    ((1, "b", [2]), {}),
    ((1,), {"second": 5}),
    ((), {"first": 1}),
    ((), {"first": 1, "second": [7]}),
    ((1, 2, 3, 4), {}),
    ((-1,), {}),
    ((1,), {"first": 2}),
    ((1,), {"unknown": 2}),
    ((1,), {"third": [4]}),
)


def told(made: Callable[[], Any]) -> Any:
    """What there is to see of a value, or how its making ended."""
    try:
        value = made()
    except (TypeError, ValueError) as error:
        return type(error)
    fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return fields, repr(value), value.__class__.__name__, [each.name for each in dataclasses.fields(value)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("args", "named_args"), GIVEN)
def test_values_are_those_of_the_standard_library(shape: Any, args: tuple[Any, ...], named_args: dict[str, Any]) -> None:
    """The same fields from the same arguments, and the same refusals."""
    ours, usual = shape(values.dataclass), shape(dataclasses.dataclass)
    assert told(lambda: ours(*args, **named_args)) == told(lambda: usual(*args, **named_args))
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(usual).parameters)


@pytest.mark.parametrize("shape", [plain, named, mixed, ordered, inherited])
def test_what_is_frozen_stays_as_it_was_made(shape: Any) -> None:
    """Once it is made nothing of it is set or deleted; it is of its own class, and has no place for more."""
    made = shape(values.dataclass)
    value = made(first=1)
    assert type(value) is made
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.first
    assert value.first == 1
    assert shape is inherited or not hasattr(value, "__dict__")


def test_each_value_has_a_default_of_its_own() -> None:
    """What a factory makes is made for each."""
    made = plain(values.dataclass)
    assert made(1).third is not made(1).third
    assert (made(1) == made(1), made(1) == made(2)) == (True, False)
    copied = copy.deepcopy(made(1, "b", [2]))
    assert (type(copied), copied) == (made, made(1, "b", [2]))


def test_order_and_hash_are_kept() -> None:
    """Values are compared and found again as the standard library has it."""
    made = ordered(values.dataclass)
    assert sorted([made(2), made(1, 5), made(1)]) == [made(1), made(1, 5), made(2)]
    assert {made(1): "found"}[made(1)] == "found"
    assert dataclasses.replace(made(1), second=3) == replace(made(1), second=3) == made(1, 3)
