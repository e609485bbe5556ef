"""Values, and values with something changed: as `dataclasses` makes them, in a third of the time. What a plan is taken through makes hundreds of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

__all__ = ["dataclass", "replace"]

_T = TypeVar("_T")
#: What changes an object's class, whatever that says about its attributes.
_BECOME: Final = object.__dict__["__class__"].__set__

if TYPE_CHECKING:
    # Checked as those are: which fields there are, and what they may be.
    from dataclasses import dataclass, replace
else:

    def dataclass(cls: type[_T] | None = None, /, **options: bool) -> Any:
        """The class that `dataclasses.dataclass` makes; one that is frozen and has slots makes its values faster."""
        if cls is None:
            return lambda found: dataclass(found, **options)
        made = dataclasses.dataclass(cls, **options)
        if options.get("frozen") and options.get("slots"):
            made.__init__ = _initialiser(made)
        return made

    def replace(value: Any, /, **changes: Any) -> Any:
        """The value with some fields changed; what its class does when one is made is done.

        Raises:
            TypeError: it has no such field.
        """
        read, places = _shape(value.__class__)
        if read is None or not places.keys() >= changes.keys():
            return dataclasses.replace(value, **changes)
        values = [*read(value)]
        for name, new in changes.items():
            values[places[name]] = new
        return value.__class__(*values)


@cache
def _shape(of: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]] | None, dict[str, int]]:
    """What reads all fields of a class at once, in the order in which it takes them, and each one's place; None of one that does not take them all so."""
    found = dataclasses.fields(of)
    plain = len(found) > 1 and all(each.init and not each.kw_only for each in found)
    return attrgetter(*(each.name for each in found)) if plain else None, {each.name: at for at, each in enumerate(found)}


def _initialiser(of: type[Any]) -> Callable[..., None]:
    """What fills a new object of a frozen class as one that is not frozen would be: its fields are set while it is of a class that lets them be set.

    `dataclasses` gets past its own lock once for each field, which takes four times as long. Nobody else has the object yet.
    """
    twin = type(
        f"_Open{of.__name__}", (of,), {"__slots__": (), "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    )
    names: dict[str, Any] = {"_of": of, "_twin": twin, "_become": _BECOME, "_usual": of.__init__, "_missing": dataclasses.MISSING}
    asked: list[tuple[dataclasses.Field[Any], str]] = []
    made: list[str] = []
    fill: list[str] = []
    for field in dataclasses.fields(of):
        name, default = field.name, ""
        if field.default_factory is not dataclasses.MISSING:
            default = f"_make_{name}"
            names[default] = field.default_factory
            if field.init:
                made.append(f"{name} = {default}() if {name} is _missing else {name}")
            fill.append(f"self.{name} = {name if field.init else f'{default}()'}")
            default = "_missing"
        elif field.default is not dataclasses.MISSING:
            default = f"_default_{name}"
            names[default] = field.default
            fill.append(f"self.{name} = {name if field.init else default}")
        elif field.init:
            fill.append(f"self.{name} = {name}")
        if field.init:
            asked.append((field, f"{name}={default}" if default else name))
    plain, named = ([each for each in asked if each[0].kw_only is by_name] for by_name in (False, True))
    parameters = ["self", *(text for _, text in plain), *["*"][: len(named)], *(text for _, text in named)]
    passed = ["self", *(each.name for each, _ in plain), *(f"{each.name}={each.name}" for each, _ in named)]
    lines = [
        f"def __init__({', '.join(parameters)}):",
        *(f" {line}" for line in made),
        " if self.__class__ is not _of:",
        f"  return _usual({', '.join(passed)})",
        " _become(self, _twin)",
        *(f" {line}" for line in fill),
        " self.__class__ = _of",
        *([" self.__post_init__()"] if hasattr(of, "__post_init__") else []),
    ]
    exec("\n".join(lines), names)  # noqa: S102 - of the names of a class's own fields, as dataclasses does it
    initialiser: Callable[..., None] = names["__init__"]
    initialiser.__qualname__ = f"{of.__qualname__}.__init__"
    initialiser.__annotations__ = of.__init__.__annotations__
    return initialiser
