"""Which caller may call which method of a server: one table, default deny. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from lockstep_kit.rpc.tls import TRUST_DOMAIN

#: Anybody with a certificate of the authority may ask whether a service is healthy.
OPEN_METHODS: Final = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})


class Access:
    """The table of one server.

    Keys are SPIFFE ids; values are full method names, or "/service/*" for every method of a service.
    """

    def __init__(
        self, table: Mapping[str, Collection[str]], *, rows: Collection[str] | None = None, trust_domain: str = TRUST_DOMAIN
    ) -> None:
        """Take a table; `rows` are the methods that it is about, where that is more than anybody may call."""
        self._table = {caller: frozenset(methods) for caller, methods in table.items()}
        named = (method for methods in self._table.values() for method in methods)
        self._rows = frozenset(named if rows is None else rows)
        self._domain = f"spiffe://{trust_domain}/"

    def allows(self, caller: str | None, method: str) -> bool:
        """Whether the caller may call the method."""
        if caller is None or not caller.startswith(self._domain):
            return False
        if method in OPEN_METHODS:
            return True
        methods = self._table.get(caller, frozenset())
        return method in methods or _whole(method) in methods

    def check(self, served: Collection[str]) -> None:
        """Every method that is served has a row, and every row is about a method that is served.

        Raises:
            RuntimeError: one has none, or a row is about nothing.
        """
        uncovered = sorted(method for method in served if method not in self._rows and _whole(method) not in self._rows)
        if uncovered:
            raise RuntimeError(f"no row of the access table is about {', '.join(uncovered)}")
        absent = sorted(self._rows - {*served, *(_whole(method) for method in served)})
        if absent:
            raise RuntimeError(f"rows of the access table are about methods that are not served: {', '.join(absent)}")


def _whole(method: str) -> str:
    return f"{method.rpartition('/')[0]}/*"
