"""What a database makes of a release's code, without running it: every statement is planned, and refused where a column or a right is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Final

import asyncpg

from lockstep_testkit.databases import TestDatabase
from upgrades.laid_out import HERE, Release
from upgrades.statements import LIBRARIES, SERVICES

__all__ = ["SERVICES", "refused", "required", "statements"]

#: Columns that whoever inserts a row must fill.
_REQUIRED: Final = """
select table_name || '.' || column_name as name from information_schema.columns
where table_schema = 'public' and is_nullable = 'NO' and column_default is null and is_identity = 'NO' and is_generated = 'NEVER'
"""


@cache
def _all_statements(release: Release) -> Mapping[str, Mapping[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(release.run(str(HERE / "statements.py")))
    return found


def statements(release: Release, package: str) -> dict[str, str]:
    """The statements that a service of a release may ask: its own and the libraries', by the names of their constants."""
    found = _all_statements(release)
    return {name: text for each in (package, *LIBRARIES) for name, text in found[each].items()}


async def refused(database: TestDatabase, asked: Mapping[str, str]) -> dict[str, str]:
    """Which statements the service's role could not run, and why. A plan is made of each, as for any values, and none is run."""
    found: dict[str, str] = {}
    async with database.as_role() as connection:
        for name, text in asked.items():
            try:
                await connection.execute(f"explain (generic_plan) {text}")
            except asyncpg.PostgresError as error:
                found[name] = f"{type(error).__name__}: {error}"
    return found


async def required(database: TestDatabase) -> set[str]:
    """Columns, as table.column, without a value of their own: code that does not know them can add no row."""
    async with database.as_owner() as connection:
        return {row["name"] for row in await connection.fetch(_REQUIRED)}
