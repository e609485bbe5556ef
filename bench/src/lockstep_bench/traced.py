"""What a settlement asks of the databases: statements by service, counted in a short run of its own with every trace recorded.

A statement that polls belongs to no trace and is not counted.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import Any, Final

from lockstep_bench.drivers import Drivers
from lockstep_bench.schedule import Load
from lockstep_bench.stage import stage

#: Exporters of spans hand in a batch at least this often.
SPANS_SECONDS: Final = 6.0
#: Statements that were told, by service.
SQL_STATEMENTS: Final = """
select service, count(*) from span where json_extract(attributes, '$."db.system.name"') is not null group by service
"""
#: The most frequent ones.
SQL_FREQUENT: Final = """
select service || ': ' || json_extract(attributes, '$."db.query.summary"') as told, count(*) as times from span
where json_extract(attributes, '$."db.system.name"') is not null group by told order by times desc limit 20
"""


async def statements(concurrency: int, seconds: float, seed: str) -> dict[str, Any]:
    """Statements of a settlement, all of the run shared out over all of its plans."""
    load = Load(None, concurrency, 0.0, seconds, grace_seconds=60.0, seed=f"{seed}/traced")
    async with stage(sampled_ratio=1.0) as sandbox:
        async with Drivers(sandbox.run.path, 1) as drivers:
            timelines = await drivers.settle(load, time.monotonic())
        await asyncio.sleep(SPANS_SECONDS)
        with closing(sqlite3.connect(sandbox.run.path / "state" / "spans.sqlite")) as table:
            by_service = {str(service): int(count) for service, count in table.execute(SQL_STATEMENTS)}
            frequent = {str(told): int(times) for told, times in table.execute(SQL_FREQUENT)}
    plans = max(sum("closed" in each.seen for each in timelines), 1)
    shares = {name: round(count / plans, 2) for name, count in by_service.items()}
    return {
        "concurrency": concurrency,
        "settlements": plans,
        "statements_per_settlement": {**shares, "total": round(sum(by_service.values()) / plans, 2)},
        "most_frequent_per_settlement": {told: round(times / plans, 2) for told, times in frequent.items()},
    }
