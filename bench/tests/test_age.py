"""Seen from outside, at everything together: plans that were settled long ago are not looked at by who does nothing, nor by those that are settled now."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from lockstep_bench.copies import COPIED, grow, superuser
from lockstep_bench.drivers import Drivers
from lockstep_bench.levels import Bench
from lockstep_bench.stage import stage
from lockstep_sandbox.stack import Sandbox

PLANS: Final = 4_000
IDLE_SECONDS: Final = 12.0
#: A session that does nothing tells the server what it read before by then, at the latest.
TOLD_SECONDS: Final = 11.0
#: Tables with a row of every plan, and how many rows were read of them: by going through them, and in all.
READ: Final = f"""
select relname as name, seq_tup_read::bigint as gone_through, (seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint as read
from pg_stat_user_tables where n_live_tup >= {PLANS}
"""


async def read(sandbox: Sandbox) -> dict[str, asyncpg.Record]:
    """What was read of each large table so far."""
    await asyncio.sleep(TOLD_SECONDS)
    found: dict[str, asyncpg.Record] = {}
    for service in COPIED:
        async with superuser(sandbox, service) as connection:
            found |= {f"{service}.{row['name']}": row for row in await connection.fetch(READ)}
    return found


async def test_what_was_settled_costs_no_reading() -> None:
    """While nothing is done nothing of them is read, and no statement of what is done goes through them."""
    async with stage() as sandbox, Drivers(sandbox.run.path, 1) as drivers:
        bench = Bench(sandbox, drivers, seed="1", warm_up_seconds=2, seconds=4)
        await bench.level(bench.load(concurrency=8, name="before"))
        await grow(sandbox, PLANS, 0)
        before = await read(sandbox)
        assert {
            "coordinator.plan",
            "coordinator.lease",
            "dlt-gateway.participant_leg",
            "bank-gateway.bank_outbox",
            "notary.chain_order",
        } < set(before)
        await asyncio.sleep(IDLE_SECONDS)
        idle = await read(sandbox)
        at_rest = {name: idle[name]["read"] - row["read"] for name, row in before.items()}
        assert max(at_rest.values()) < PLANS / 10, at_rest
        found = await bench.level(bench.load(concurrency=8, name="after"))
        assert found["settlements"] > 0
        after = await read(sandbox)
        gone_through = {name: after[name]["gone_through"] - row["gone_through"] for name, row in idle.items()}
        assert max(gone_through.values()) < PLANS, gone_through
