"""A service's `grants.toml`: what its role may do with each table, and which functions and sequences it may use. Beside this it may read tables' names.

[tables.plan]
allowed = "select insert delete"
update = "state decision"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lockstep_testkit.databases import migrations_of

ALLOWED: Final = frozenset({"select", "insert", "delete"})


@dataclass(frozen=True, slots=True)
class TableGrants:
    """What a role may do with a table."""

    #: Of select, insert and delete.
    allowed: frozenset[str] = frozenset()
    #: The columns that it may update.
    update: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Grants:
    """What a role may do in its database."""

    #: Table or view -> what.
    tables: dict[str, TableGrants]
    #: Functions that it may call, with the types of their arguments.
    functions: frozenset[str]
    #: Sequences that it may draw from.
    sequences: frozenset[str]


def grants_file(package: str) -> Path:
    """Where a service's list is.

    Raises:
        FileNotFoundError: the package has no migrations.
    """
    migrations = migrations_of(package)
    if migrations is None:
        raise FileNotFoundError(f"{package} has no migrations")
    return migrations.parent / "grants.toml"


def listed(path: Path) -> Grants:
    """What a list says.

    Raises:
        ValueError: it names something that is no privilege, or nothing at all for a table.
    """
    document = tomllib.loads(path.read_text())
    tables = {}
    for name, told in document["tables"].items():
        found = TableGrants(frozenset(told.get("allowed", "").split()), frozenset(told.get("update", "").split()))
        if not told.keys() <= {"allowed", "update"} or not found.allowed <= ALLOWED or not (found.allowed or found.update):
            raise ValueError(f"{path}: {name} is given something that there is not")
        tables[name] = found
    return Grants(tables, frozenset(document.get("functions", ())), frozenset(document.get("sequences", ())))
