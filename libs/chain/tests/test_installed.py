"""What is told of a chain: whom it reaches, its accounts, and nonces that nobody will ever use."""

from __future__ import annotations

import pytest
from chain_world import CHAIN_ID, DrawingSigner, World, running

from lockstep_chain.installed import ChainInspection
from lockstep_kit.installation import PartUnknown


async def test_a_chain_and_its_accounts(world: World) -> None:
    """Head, balance and nonces are the chain's and the book's; a transaction that is under way is no gap, one that is lost from the book is."""
    machine = await world.machine(finality_depth=0)
    inspection = ChainInspection(world.db, world.evms[-1], [DrawingSigner(world.account)])
    before = await inspection.state()
    assert (before.chain_id, before.node_count, before.counting_count) == (CHAIN_ID, 1, 1)
    assert before.HasField("head_time")
    (account,) = before.accounts
    assert account.address == world.account.address
    assert int(account.balance_wei) == 10**21
    assert (account.next_nonce, list(account.missing_nonces)) == (account.mined_nonce, [])
    async with running(machine):
        await world.enqueue(machine, "one", "two")
        await world.until_state("one", "sent")
        await world.until_state("two", "sent")
        (under_way,) = (await inspection.state()).accounts
        assert under_way.next_nonce == under_way.mined_nonce + 2
        assert list(under_way.missing_nonces) == []
    async with world.database.as_owner() as connection:
        await connection.execute(
            "delete from evm_attempt using evm_transaction where transaction_id = id and nonce = $1", under_way.mined_nonce
        )
        await connection.execute("delete from evm_transaction where nonce = $1", under_way.mined_nonce)
    (gap,) = (await inspection.state()).accounts
    assert list(gap.missing_nonces) == [under_way.mined_nonce]


async def test_a_node_that_is_away(world: World) -> None:
    """A node that gives no answer is said to give none."""
    await world.machine(request_seconds_max=1.0)
    inspection = ChainInspection(world.db, world.evms[-1], [])
    await inspection.state()
    world.process.kill()
    world.process.wait()
    with pytest.raises(PartUnknown):
        await inspection.state()
