"""The endpoint that tests put in front of anvil refuses what nodes of real networks refuse, in their words."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from chain_world import CHAIN_ID, World
from test_endpoints import raw

from lockstep_chain.endpoints import EvmEndpoints
from lockstep_chain.ports import Answer
from lockstep_sandbox.evm import Node, NodeRefused
from lockstep_testkit.strict_node import StrictNode


@pytest_asyncio.fixture(loop_scope="session")
async def strict(world: World) -> AsyncIterator[Node]:
    """A client of a strict endpoint."""
    async with StrictNode(world.node.url) as endpoint, Node(endpoint.url, CHAIN_ID) as node:
        yield node


async def send(node: Node, octets: bytes) -> str:
    """What the endpoint says of bytes; "" when it takes them."""
    try:
        await node.call("eth_sendRawTransaction", "0x" + octets.hex())
    except NodeRefused as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize(
    ("max_fee", "tip", "taken"),
    [(109, 110, False), (110, 109, False), (110, 100, False), (100, 110, False), (110, 110, True), (125, 125, True)],
)
async def test_replacements(world: World, strict: Node, max_fee: int, tip: int, taken: bool) -> None:
    """A replacement pays a tenth more on both fees; the lenient node behind would take less."""
    gwei = 10**9
    assert await send(strict, raw(world.account, 0, max_fee=100 * gwei, tip=10 * gwei)) == ""
    said = await send(strict, raw(world.account, 0, max_fee=max_fee * gwei, tip=tip * gwei // 10))
    assert ("replacement transaction underpriced" in said) is not taken
    if not taken and max_fee > 100:
        assert await send(world.node, raw(world.account, 0, max_fee=max_fee * gwei, tip=tip * gwei // 10)) == ""


async def test_limits(world: World, strict: Node) -> None:
    """Gas and size have the limits of real networks; the lenient node behind takes the gas."""
    await world.node.call("evm_setBlockGasLimit", hex(60_000_000))
    await world.mine()
    too_much = raw(world.account, 0, gas=2**24 + 1)
    assert "transaction gas limit too high (cap: 16777216, tx: 16777217)" in await send(strict, too_much)
    assert await send(strict, raw(world.account, 0, gas=2**24)) == ""
    large = raw(world.account, 1, gas=2**24, data=bytes(128 * 1024))
    assert f"oversized data: transaction size {len(large)}, limit 131072" in await send(strict, large)


async def test_words(world: World, strict: Node) -> None:
    """What is in the pool is known; a nonce that is used is too low; both are understood."""
    assert await send(strict, raw(world.account, 0)) == ""
    assert "already known" in await send(strict, raw(world.account, 0))
    await world.mine()
    assert "nonce too low: next nonce 1, tx nonce 0" in await send(strict, raw(world.account, 0))
    evm = await EvmEndpoints.connect([strict.url], CHAIN_ID)
    try:
        assert await evm.broadcast([raw(world.account, 1)]) == [Answer.ACCEPTED]
        assert await evm.broadcast([raw(world.account, 1)]) == [Answer.ACCEPTED]
        assert await evm.broadcast([raw(world.account, 1, tip=2 * 10**9)]) == [Answer.OUTBID]
        assert await evm.broadcast([raw(world.account, 0)]) == [Answer.NONCE_USED]
        assert await evm.broadcast([raw(world.account, 2, gas=2**24 + 1)]) == [Answer.IMPOSSIBLE]
        assert await evm.broadcast([raw(world.account, 2, gas=2**24, data=bytes(128 * 1024))]) == [Answer.IMPOSSIBLE]
    finally:
        await evm.close()
