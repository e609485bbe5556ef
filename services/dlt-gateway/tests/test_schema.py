"""The migrated schema is the declared one."""

from __future__ import annotations

from typing import Any

from dlt_gateway.tables import METADATA
from lockstep_kit.migrate import differences


async def test_migrated_schema_is_the_declared_one(database_for: Any) -> None:
    """What the migrations make is what the code declares: no table, column, key or index more or less."""
    database = await database_for("dlt_gateway")
    assert await differences(database.owner_url, METADATA) == []
