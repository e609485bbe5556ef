"""A chain that takes back what was final."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from chain_world import CHAIN_ID, World, running
from structlog.testing import capture_logs

from lockstep_chain import final_store
from lockstep_chain.acknowledging import acknowledge, look
from lockstep_chain.final_store import HeldBlock
from lockstep_chain.machine import ByDepth
from lockstep_chain.ports import EvmUnavailable
from lockstep_chain.sender import TransactionMachine
from lockstep_testkit import strict_node
from lockstep_testkit.strict_node import StrictNode

FINALITY_DEPTH = 2


async def contradicted(machine: TransactionMachine) -> bool:
    """Whether the machine does not say what is final, since it is not what was."""
    try:
        await machine.final_head()
    except EvmUnavailable as error:
        return "was final as" in str(error)
    return False


async def holds(world: World, depth: int) -> bool:
    """Whether the newest block that is final is the one that is held: a reorganisation contradicts no other."""
    async with world.database.as_owner() as connection:
        held = await connection.fetchval("select number from evm_final_block")
    return bool(held == int(await world.node.call("eth_blockNumber"), 16) - depth)


async def test_reorganised_below_finality(world: World) -> None:
    """When the chain has another block where one was final, nothing is told or sent any more, however long it grows; and that is said, loudly and once."""
    machine = await world.machine(finality_depth=FINALITY_DEPTH)
    async with running(machine):
        await world.enqueue(machine, "one")
        assert await world.until_told(1) == {"one": "final"}
        await world.mine(4, pause=0.1)
        await world.until(lambda: holds(world, FINALITY_DEPTH))
        with capture_logs() as logs:
            await world.node.call("anvil_reorg", 6, [])
            await world.until(lambda: contradicted(machine))
            await world.enqueue(machine, "two")
            await world.mine(8, pause=0.1)
            await asyncio.sleep(1.5)
            assert await contradicted(machine)
        assert (await world.state("two"), await world.told()) == ("queued", {"one": "final"})
        assert [each["log_level"] for each in logs if each["event"] == "reorganised_below_finality"] == ["error"]
    # Starting the service anew changes nothing of it.
    anew = await world.machine(finality_depth=FINALITY_DEPTH)
    async with running(anew):
        await world.until(lambda: contradicted(anew))
        await world.mine(4, pause=0.1)
        assert await world.told() == {"one": "final"}
        # A person has looked: the chain's own block, and no other, can be put in the place of the one that is gone.
        evm, finality = world.evms[-1], ByDepth(FINALITY_DEPTH)
        seen = await look(world.db, evm, finality)
        assert seen is not None
        held, found = seen
        assert (held.number, held == found) == (found.number, False)
        assert "not the one that was named" in await acknowledge(world.db, evm, finality, held.hash, "looked")
        assert await contradicted(anew)
        assert await acknowledge(world.db, evm, finality, found.hash, "nothing was reported of the blocks that are gone") == ""
        assert "nothing to acknowledge" in await acknowledge(world.db, evm, finality, found.hash, "looked")
        assert (await world.until_told(2))["two"] == "final"
    async with world.database.as_owner() as connection:
        row = await connection.fetchrow("select former_hash, hash, finding from evm_final_finding")
    assert row is not None
    assert tuple(row) == (held.hash, found.hash, "nothing was reported of the blocks that are gone")


async def test_a_service_holds_what_is_final_for_good(world: World) -> None:
    """A lower block never takes the place of a higher one, nor any other block by the service's own role, and nothing is removed."""
    high, low = HeldBlock(7, bytes(32)), HeldBlock(6, b"\1" * 32)
    async with world.db.connection() as connection:
        for block in (low, high, low):
            await final_store.hold(connection, CHAIN_ID, block)
        assert await final_store.held(connection, CHAIN_ID) == high
        assert not await final_store.replace(connection, CHAIN_ID, low, high, "looked")
        for statement in (
            "update evm_final_block set number = 5",
            "update evm_final_block set hash = sha256('')",
            "delete from evm_final_block",
            "truncate evm_final_block",
        ):
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(statement)
        assert await final_store.held(connection, CHAIN_ID) == high


async def test_reorganised_above_finality(world: World) -> None:
    """A chain that takes back what was not final contradicts nothing."""
    machine = await world.machine(finality_depth=4)
    async with running(machine):
        await world.mine(8, pause=0.1)
        final = await machine.final_head()
        await world.node.call("anvil_reorg", 4, [])
        await world.mine(2, pause=0.1)
        assert (await machine.final_head()).number == final.number + 2
        await world.enqueue(machine, "one")
        assert await world.until_told(1) == {"one": "final"}


async def test_it_agrees_again(world: World) -> None:
    """When the chain has the final block again, everything goes on by itself."""
    async with StrictNode(world.node.url) as endpoint:
        world.urls = [endpoint.url]
        machine = await world.machine()
        async with running(machine):
            await world.mine(4, pause=0.1)
            await machine.final_head()
            endpoint.faults.lie = strict_node.other_blocks
            assert await contradicted(machine)
            await world.enqueue(machine, "one")
            await world.mine(6, pause=0.1)
            assert await world.told() == {}
            endpoint.faults.lie = None
            assert await world.until_told(1) == {"one": "final"}
