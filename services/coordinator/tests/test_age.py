"""What a replica looks for every second does not grow with the plans that were settled: it reads rows of plans at work, not of all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest

from coordinator import installed
from coordinator.store import kept_news, outboxes, reading, readings
from lockstep_kit.db import Database
from lockstep_testkit.databases import TestDatabase

SETTLED: Final = 20_000
OWNER: Final = "here"
#: As settled plans leave them behind, but for the last three, of which the journal does not have everything. The plans themselves are not read here.
GROWN: Final = (
    "alter table journal_progress drop constraint journal_progress_plan_id_fkey",
    f"""insert into lease (resource_id, owner, generation, counter, expires_at)
    select md5(n::text), '{OWNER}', 1, 1, clock_timestamp() + interval '1 minute' from generate_series(1, {SETTLED}) as n""",
    f"""insert into journal_progress (plan_id, recorded, appended, frozen)
    select md5(n::text), 15, case when n > {SETTLED - 3} then 14 else 15 end, '' from generate_series(1, {SETTLED}) as n""",
    "analyze lease, journal_progress",
)
#: What has a row for every plan, and how many of its rows one statement may read for what three plans are owed.
TABLES: Final = ("lease", "journal_progress")
ROWS_MAX: Final = 24
LOOKS: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    (reading.SIGHTED, (OWNER, 1, timedelta(minutes=2))),
    (reading.RENEW, (OWNER, 1, timedelta(minutes=2))),
    (reading.ORPHANED, ("another", 100)),
    (reading.DUE, (OWNER, 100)),
    (reading.CHECKING, (OWNER, 100)),
    (kept_news.READ, (OWNER, 100)),
    (outboxes.DUE, (OWNER,)),
    (outboxes.DUE_PLANS, ("dlt-gateway", OWNER, 1, timedelta(seconds=1), 100)),
    (outboxes.PENDING_EVENTS, (OWNER, 100)),
    (readings.AT_RISK, (60.0, 100)),
    *((each.statement, ()) for each in readings.READINGS),
    (installed.STATE, ()),
)
NAMES: Final = (
    *(
        "SIGHTED",
        "RENEW",
        "ORPHANED",
        "DUE",
        "CHECKING",
        "kept_news.READ",
        "outboxes.DUE",
        "DUE_PLANS",
        "PENDING_EVENTS",
        "AT_RISK",
    ),
    *(each.name for each in readings.READINGS),
    "installed",
)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def rows_read(node: dict[str, Any], table: str) -> float:
    """Rows of a table that a node looked at, those that it passed over included."""
    if node.get("Relation Name") != table or node["Node Type"] == "ModifyTable":
        return 0.0
    skipped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + skipped) * node["Actual Loops"])


@pytest.mark.parametrize(("statement", "values"), LOOKS, ids=NAMES)
async def test_a_look_reads_nothing_of_settled_plans(
    database_for: Callable[..., Awaitable[TestDatabase]], statement: str, values: tuple[Any, ...]
) -> None:
    """As the service's own connections plan it, over 20,000 settled plans and three that something is owed."""
    database = await database_for("coordinator")
    async with database.as_owner() as owner:
        for each in GROWN:
            await owner.execute(each)
    db = await Database.connect(database.settings, application_name="coordinator")
    try:
        async with db.connection() as connection:
            found = json.loads(await connection.fetchval(f"explain (analyze, format json) {statement}", *values))
    finally:
        await db.close()
    plan = found[0]["Plan"]
    for table in TABLES:
        assert sum(rows_read(each, table) for each in nodes(plan)) <= ROWS_MAX, json.dumps(plan, indent=1)
