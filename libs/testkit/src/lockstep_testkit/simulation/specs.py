"""What a twin can read off the code itself: tables from the services' declared metadata, names of columns from the statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from lockstep_kit.db import CopyInto
from lockstep_testkit.simulation.memory import Row, Statement, Table, Unique

_UNNESTED: Final = re.compile(r"\)\s+(?:with ordinality\s+)?(?:as\s+)?\w+\s*\(([^()]*)\)")
_INSERTED: Final = re.compile(r"insert into \w+\s*\(([^()]*)\)")
_ABSENT: Final = re.compile(r"(?:\w+\.)?(\w+) IS NULL")
_LITERAL: Final = re.compile(r"'(.*)'")


@dataclass(frozen=True, slots=True)
class Triggers:
    """What a database itself sees to when a row of a table is written; as in `Table`."""

    trigger: Callable[[Statement, Row | None, Row], None] | None = None
    deferred: Callable[[Statement, Row | None, Row], None] | None = None


def tables_of(metadata: sa.MetaData, triggers: Mapping[str, Triggers]) -> dict[str, Table]:
    """The tables that a service declares, with what no declaration says."""
    return {name: _table(table, triggers.get(name, Triggers())) for name, table in metadata.tables.items()}


def _table(table: sa.Table, triggers: Triggers) -> Table:
    serial = next((column.name for column in table.columns if column.identity is not None), "")
    key = table.primary_key
    return Table(
        name=table.name,
        key=tuple(column.name for column in key.columns),
        defaults={column.name: _default(column) for column in table.columns if column.name != serial},
        primary=str(key.name or ""),
        serial=serial,
        unique=tuple(_uniques(table)),
        trigger=triggers.trigger,
        deferred=triggers.deferred,
    )


def _default(column: sa.Column[Any]) -> Any:
    default = column.server_default
    if not isinstance(default, sa.DefaultClause):
        return None
    text = str(default.arg.compile()) if isinstance(default.arg, sa.ClauseElement) else f"'{default.arg}'"
    if text in ("clock_timestamp()", "now()", "CURRENT_TIMESTAMP"):
        return _clock
    if text in ("true", "false"):
        return text == "true"
    quoted = _LITERAL.fullmatch(text)
    value = quoted[1] if quoted else text
    if isinstance(column.type, sa.Integer):
        return int(value)
    if isinstance(column.type, sa.ARRAY):
        return _empty
    if isinstance(column.type, sa.LargeBinary):
        return value.encode()
    return value


def _clock(statement: Statement) -> Any:
    return statement.now


def _empty(_: Statement) -> Any:
    return []


def _uniques(table: sa.Table) -> Iterable[Unique]:
    for constraint in sorted(
        (each for each in table.constraints if isinstance(each, sa.UniqueConstraint)), key=lambda each: str(each.name)
    ):
        yield Unique(str(constraint.name), tuple(column.name for column in constraint.columns))
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        if index.unique:
            yield Unique(str(index.name), tuple(column.name for column in index.columns), _predicate(index))


def _predicate(index: sa.Index) -> Callable[[Row], bool] | None:
    """Rows that a partial index is about."""
    where = index.dialect_options["postgresql"]["where"]
    if where is None:
        return None
    found = _ABSENT.fullmatch(str(where))
    if found is None:
        raise ValueError(f"{index.name}: only `is null` has a twin")
    column = found[1]
    return lambda row: row[column] is None


@cache
def listed(text: str) -> tuple[str, ...]:
    """The names that a statement gives to the lists it unnests, without the one of their places."""
    found = _UNNESTED.search(text)
    if found is None:
        raise ValueError(f"nothing is unnested in {text}")
    return tuple(name.strip() for name in found[1].split(","))


@cache
def inserted(text: str) -> tuple[str, ...]:
    """The columns that a statement inserts."""
    found = _INSERTED.search(text)
    if found is None:
        raise ValueError(f"nothing is inserted in {text}")
    return tuple(name.strip() for name in found[1].split(","))


def copied(into: CopyInto) -> str:
    """What the twin of copying rows into a table stands under."""
    return f"copy {into.table} ({', '.join(into.columns)}) from stdin"


def columns(names: Iterable[str], values: Sequence[Sequence[Any]]) -> list[Row]:
    """Lists as rows with these names."""
    names = tuple(names)
    return [dict(zip(names, each, strict=True)) for each in zip(*values, strict=True)]


def among(s: Statement, table: str, plan_ids: Sequence[str]) -> list[Row]:
    """Rows of a table that are of some plans."""
    wanted = set(plan_ids)
    return [row for row in s.all(table) if row["plan_id"] in wanted]
