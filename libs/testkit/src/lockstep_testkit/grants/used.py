"""Which of a role's grants its service's own statements need: each statement is planned as the role, with each grant taken away in turn.

`explain (generic_plan)` checks the rights that running the statement would, changes nothing, and needs no arguments.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Collection, Iterator, Sequence
from types import FunctionType
from typing import Any, Final, TypeAlias

import asyncpg

from lockstep_kit.db import CopyInto
from lockstep_testkit.grants.listed import Grants

_STATEMENT: Final = re.compile(r"\s*(?:--[^\n]*\n\s*)*(?:select|insert|update|delete|with|merge)\b", re.IGNORECASE)
_DEPTH_MAX: Final = 3
_OURS: Final = ("lockstep_", "coordinator", "dlt_gateway", "bank_gateway", "notary", "event_journal")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def statements_of(packages: Collection[str], *, without: Collection[str] = ()) -> list[str]:
    """Every statement that a constant of these packages' modules holds, or an object that is one; `without` are modules and constants that run as the owner."""
    found: dict[str, None] = {}
    for name in sorted({each for package in packages for each in _modules(package)} - set(without)):
        for constant, value in vars(importlib.import_module(name)).items():
            if f"{name}.{constant}" not in without:
                found.update(dict.fromkeys(_strings(value)))
    return [each for each in found if _STATEMENT.match(each) and "{" not in each.replace("'{}'", "")]


def _modules(package: str) -> Iterator[str]:
    yield package
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{package}."):
        if not found.name.endswith("__main__"):
            yield found.name


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """The texts of a constant, of a collection of constants, of an object of our own and its fields, and in the code of functions and methods."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, CopyInto):
        # It takes the same rights, and can be planned.
        yield f"insert into {value.table} ({', '.join(value.columns)}) values ({', '.join('null' for _ in value.columns)})"
    elif depth == _DEPTH_MAX:
        return
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _strings(each, depth + 1)
    elif isinstance(value, FunctionType):
        yield from _in_code(inspect.unwrap(value).__code__)
    elif (value.__module__ if isinstance(value, type) else type(value).__module__).startswith(_OURS):
        for each in vars(value).values() if isinstance(value, type) or hasattr(value, "__dict__") else _slots(value):
            yield from _strings(each, depth + 1)


def _slots(value: Any) -> Iterator[Any]:
    for name in getattr(type(value), "__slots__", ()):
        yield getattr(value, name, None)


def _in_code(code: Any) -> Iterator[str]:
    for each in code.co_consts:
        if isinstance(each, str):
            yield each
        elif hasattr(each, "co_consts"):
            yield from _in_code(each)


async def refused(connection: Connection, role: str, statements: Sequence[str]) -> list[str]:
    """The statements that the role may not run, of those that the database knows the tables of; as a superuser in a transaction that is rolled back."""
    found = []
    for statement in statements:
        try:
            async with connection.transaction():
                await connection.execute(f"set local role {role}")
                await connection.execute(f"explain (generic_plan) {statement}")
        except asyncpg.InsufficientPrivilegeError:
            found.append(statement)
        except (
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedParameterError,
            asyncpg.PostgresSyntaxError,
            asyncpg.FeatureNotSupportedError,
        ):
            continue
    return found


async def unused(connection: Connection, role: str, grants: Grants, statements: Sequence[str]) -> list[str]:
    """The grants without which every statement can still run, as a superuser's session finds by taking each away and putting it back."""
    found = []
    for name, given in grants.tables.items():
        concerned = [each for each in statements if re.search(rf"\b{name}\b", each)]
        for privilege in (*sorted(given.allowed), *(f"update ({column})" for column in sorted(given.update))):
            outer = connection.transaction()
            await outer.start()
            try:
                await connection.execute(f"revoke {privilege} on {name} from {role}")
                if not await refused(connection, role, concerned):
                    found.append(f"{privilege} on {name}")
            finally:
                await outer.rollback()
    return found
