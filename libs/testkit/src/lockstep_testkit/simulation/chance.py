"""Where a simulation's randomness comes from: one seed, a stream for each purpose, and nothing else.

While a `Seeded` is entered, what the code under test draws from the operating system comes from the seed as well.
"""

from __future__ import annotations

import os
import random
import secrets
import uuid
from collections.abc import Callable
from random import Random as _Random  # the generator itself, whatever stands in the module's place meanwhile
from types import TracebackType
from typing import Any, Final, Self


class Seeded:
    """A context manager: inside, `os.urandom`, `secrets`, `uuid.uuid4` and `random.Random()` draw from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed: Final = seed
        self._drawn = self.stream("drawn")
        self._restore: list[Callable[[], None]] = []

    def stream(self, purpose: str) -> random.Random:
        """Randomness of its own for one purpose, so that more of the one does not change the other."""
        return _Random(f"{self.seed}/{purpose}")  # noqa: S311 - a simulation's

    def octets(self, count: int) -> bytes:
        """Bytes as the operating system would draw them."""
        return self._drawn.randbytes(count)

    def __enter__(self) -> Self:
        drawn = self._drawn

        def identity() -> uuid.UUID:
            return uuid.UUID(bytes=drawn.randbytes(16), version=4)

        def hexadecimal(count: int = 32) -> str:
            return drawn.randbytes(count).hex()

        class Derived(_Random):
            """`random.Random()` without a seed is seeded here."""

            def __init__(self, seed: Any = None) -> None:
                super().__init__(drawn.getrandbits(64) if seed is None else seed)

        self._put(os, "urandom", drawn.randbytes)
        self._put(secrets, "token_bytes", drawn.randbytes)
        self._put(secrets, "token_hex", hexadecimal)
        self._put(uuid, "uuid4", identity)
        self._put(random, "Random", Derived)
        return self

    def _put(self, module: Any, name: str, replacement: object) -> None:
        before = getattr(module, name)
        setattr(module, name, replacement)
        self._restore.append(lambda: setattr(module, name, before))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._restore:
            self._restore.pop()()
