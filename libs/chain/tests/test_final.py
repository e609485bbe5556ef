"""A chain that takes back what was final."""

from __future__ import annotations

import asyncio

from chain_world import World, running
from structlog.testing import capture_logs

from lockstep_chain.ports import EvmUnavailable
from lockstep_chain.sender import TransactionMachine
from lockstep_testkit import strict_node
from lockstep_testkit.strict_node import StrictNode


async def contradicted(machine: TransactionMachine) -> bool:
    """Whether the machine does not say what is final, since it is not what was."""
    try:
        await machine.final_head()
    except EvmUnavailable as error:
        return "was final as" in str(error)
    return False


async def test_reorganised_below_finality(world: World) -> None:
    """When the chain has another block where one was final, nothing is told or sent any more, however long it grows; and that is said, loudly and once."""
    machine = await world.machine(finality_depth=2)
    async with running(machine):
        await world.enqueue(machine, "one")
        assert await world.until_told(1) == {"one": "final"}
        await world.mine(4, pause=0.1)
        with capture_logs() as logs:
            await world.node.call("anvil_reorg", 6, [])
            await world.until(lambda: contradicted(machine))
            await world.enqueue(machine, "two")
            await world.mine(8, pause=0.1)
            await asyncio.sleep(1.5)
            assert await contradicted(machine)
        assert (await world.state("two"), await world.told()) == ("queued", {"one": "final"})
        assert [each["log_level"] for each in logs if each["event"] == "reorganised_below_finality"] == ["error"]
    # A person has looked, and starts the service anew.
    anew = await world.machine(finality_depth=2)
    async with running(anew):
        assert (await world.until_told(2))["two"] == "final"


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
