"""What metrics ask every other second does not grow with the transactions that ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from lockstep_chain import metrics
from lockstep_kit.db import Database
from lockstep_kit.metrics.readings import Query
from lockstep_testkit.databases import TestDatabase

ENDED: Final = 20_000
SIGNER: Final = "0x1111111111111111111111111111111111111111"
#: One that waits, one that was mined, and those that are final, as they are once they are: without the way there.
GROWN: Final = (
    "alter table evm_transaction disable trigger user",
    f"insert into evm_signer (chain_id, address, next_nonce) values (138, '{SIGNER}', {ENDED + 2})",
    f"""insert into evm_transaction (chain_id, signer, nonce, state, idempotency_key, payload_hash, to_address, data, value, gas_limit,
        purpose, transaction_hash, block_number, block_hash)
    select 138, '{SIGNER}', n, case when n = {ENDED + 1} then 'mined' else 'final' end, n::text, sha256('p'),
        '0x2222222222222222222222222222222222222222', '', 0, 21000, '', sha256(n::text::bytea), n, sha256('b')
    from generate_series(1, {ENDED + 1}) as n""",
    """insert into evm_transaction (chain_id, state, idempotency_key, payload_hash, to_address, data, value, gas_limit, purpose)
    values (138, 'queued', 'waits', sha256('p'), '0x2222222222222222222222222222222222222222', '', 0, 21000, '')""",
    "analyze evm_transaction",
)
ROWS_MAX: Final = 10


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


@pytest.mark.parametrize("reading", metrics.READINGS, ids=lambda each: str(each.name))
async def test_a_reading_passes_over_what_ended(database: TestDatabase, reading: Query) -> None:
    """It finds the one that waits and the one that was mined, and reads no others."""
    async with database.as_owner() as owner:
        for each in GROWN:
            await owner.execute(each)
    db = await Database.connect(database.settings, application_name="reader")
    try:
        async with db.connection() as connection:
            told = {tuple(row.values())[:2] for row in await connection.fetch(reading.statement)}
            found = json.loads(await connection.fetchval(f"explain (analyze, format json) {reading.statement}"))
    finally:
        await db.close()
    assert told in ({("queued", 1), ("mined", 1)}, {(SIGNER, ENDED + 2)})
    read = [each for each in nodes(found[0]["Plan"]) if each.get("Relation Name") == "evm_transaction"]
    assert read
    assert sum((each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) * each["Actual Loops"] for each in read) <= ROWS_MAX
