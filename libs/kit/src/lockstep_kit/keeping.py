"""What follows from a value that never changes is worked out once, and kept with it. Pure.

For frozen dataclasses without slots, and what depends on nothing but their fields: `dataclasses.replace` makes another value, which keeps nothing yet, and
what is kept is part of neither equality nor hash nor text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

_Value = TypeVar("_Value")
_Derived = TypeVar("_Derived")


def kept(derive: Callable[[_Value], _Derived]) -> Callable[[_Value], _Derived]:
    """The same function of one value, or method without arguments; what it returns must not be changed by anybody."""
    name = f"_kept_{derive.__module__}.{derive.__qualname__}"

    @wraps(derive)
    def look(value: _Value) -> _Derived:
        # Beside the fields, where a frozen dataclass cannot be set from outside.
        own = value.__dict__
        found: _Derived
        try:
            found = own[name]
        except KeyError:
            found = own[name] = derive(value)
        return found

    return look
