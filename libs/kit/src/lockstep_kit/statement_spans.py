"""Spans of database statements, as OpenTelemetry's conventions for databases have them: what is done to which tables, and no text and no value.

A statement has a span only inside other work that is recorded: polling leaves no traces.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any, Final

import asyncpg
from opentelemetry.trace import SpanKind

from lockstep_kit.spans import detail, is_recording

#: Longest summary of a statement (OpenTelemetry, "Semantic conventions for database calls").
SUMMARY_LENGTH_MAX: Final = 255

_COMMENT: Final = re.compile(r"--[^\n]*")
_CTE: Final = re.compile(r"\b(\w+)(?:\s*\([^()]*\))?\s+as\s+(?:(?:not\s+)?materialized\s+)?\(", re.IGNORECASE)
_TARGET: Final = re.compile(
    # What is locked, or done on a conflict, is no statement of its own; what is followed by a parenthesis is a function, but where rows are inserted.
    r"\b(?:(insert\s+into|(?<!for )(?<!key )(?<!do )update|delete\s+from)\s+(?:only\s+)?([a-z_]\w*)"
    r"|((?<!distinct )(?<!delete )from|join)\s+(?:only\s+)?([a-z_]\w*)\b(?!\s*\())",
    re.IGNORECASE,
)
_NO_TABLES: Final = frozenset({"lateral", "select", "set", "unnest", "rows"})


@functools.lru_cache(maxsize=4_096)
def summary(statement: str) -> tuple[str, str, str | None]:
    """What a statement does: its operation, a summary such as "INSERT plan SELECT plan_leg", and its table where it has only one."""
    text = _COMMENT.sub("", statement).strip()
    named = {found.lower() for found in _CTE.findall(text)} | _NO_TABLES
    told: list[tuple[str, str]] = []
    for changing, changed, _, read in _TARGET.findall(text):
        if (table := (changed or read).lower()) not in named:
            told.append((changing.split()[0].upper() if changing else "SELECT", table))
    told = list(dict.fromkeys(told))
    if not told:
        word = re.match(r"\w+", text)
        operation = word[0].upper() if word else "EMPTY"
        return operation, operation, None
    operation = next((verb for verb, _ in told if verb != "SELECT"), "SELECT")
    words: list[str] = []
    for place, (verb, table) in enumerate(told):
        if place == 0 or told[place - 1][0] != verb:
            words.append(verb)
        words.append(table)
    tables = {table for _, table in told}
    return operation, " ".join(words)[:SUMMARY_LENGTH_MAX], tables.pop() if len(tables) == 1 else None


class TracedConnection(asyncpg.Connection):
    """A connection whose statements are told in the traces that they belong to."""

    __slots__ = ()

    async def execute(self, query: str, *args: Any, **given: Any) -> str:
        """As the driver does."""
        if not is_recording():
            return await super().execute(query, *args, **given)
        with _statement(query):
            return await super().execute(query, *args, **given)

    async def executemany(self, command: str, args: Any, **given: Any) -> None:
        """As the driver does."""
        if not is_recording():
            return await super().executemany(command, args, **given)
        with _statement(command):
            return await super().executemany(command, args, **given)

    async def fetch(self, query: str, *args: Any, **given: Any) -> Any:
        """As the driver does."""
        if not is_recording():
            return await super().fetch(query, *args, **given)
        with _statement(query) as told:
            rows = await super().fetch(query, *args, **given)
            told["db.response.returned_rows"] = len(rows)
            return rows

    async def fetchval(self, query: str, *args: Any, **given: Any) -> Any:
        """As the driver does."""
        if not is_recording():
            return await super().fetchval(query, *args, **given)
        with _statement(query):
            return await super().fetchval(query, *args, **given)

    async def fetchrow(self, query: str, *args: Any, **given: Any) -> Any:
        """As the driver does."""
        if not is_recording():
            return await super().fetchrow(query, *args, **given)
        with _statement(query):
            return await super().fetchrow(query, *args, **given)

    async def copy_records_to_table(self, table_name: str, **given: Any) -> str:
        """As the driver does."""
        if not is_recording():
            return await super().copy_records_to_table(table_name, **given)
        with _statement_of("COPY", f"COPY {table_name}", table_name):
            return await super().copy_records_to_table(table_name, **given)


def _statement(statement: str) -> contextlib.AbstractContextManager[dict[str, int]]:
    return _statement_of(*summary(statement))


@contextlib.contextmanager
def _statement_of(operation: str, told: str, table: str | None) -> Iterator[dict[str, int]]:
    attributes: dict[str, str] = {"db.system.name": "postgresql", "db.operation.name": operation, "db.query.summary": told}
    if table is not None:
        attributes["db.collection.name"] = table
    counted: dict[str, int] = {}
    with detail(told, SpanKind.CLIENT, attributes) as current:
        try:
            yield counted
        except asyncpg.PostgresError as error:
            if current is not None and error.sqlstate is not None:
                current.set_attribute("db.response.status_code", error.sqlstate)
            raise
        if current is not None:
            current.set_attributes(counted)
