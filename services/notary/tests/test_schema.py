"""The migrated schema is the declared one."""

from __future__ import annotations

from typing import Any

from lockstep_kit.migrate import differences
from notary.tables import METADATA


async def test_migrated_schema_is_the_declared_one(database_for: Any) -> None:
    """What the migrations make is what the code declares: no table, column, key or index more or less."""
    database = await database_for("notary")
    assert await differences(database.owner_url, METADATA) == []
