"""The machine over two endpoints of one chain, of which one misbehaves: everything takes effect once, and nothing is told before both agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from chain_world import SILENCE_SECONDS, World, running

from lockstep_testkit import strict_node
from lockstep_testkit.strict_node import Faults, StrictNode

KEYS = ["one", "two", "three"]
FINAL = dict.fromkeys(KEYS, "final")
#: Settings under which an endpoint that stands still is left out within a test's patience; one that is right is never too slow.
IMPATIENT: dict[str, Any] = {"lag_blocks_max": 4, "lag_seconds_max": 3.0}


@pytest_asyncio.fixture(loop_scope="session")
async def strict(world: World) -> AsyncIterator[tuple[StrictNode, StrictNode]]:
    """Two endpoints of the world's chain, which its machines use from now on."""
    async with StrictNode(world.node.url) as one, StrictNode(world.node.url) as other:
        world.urls = [one.url, other.url]
        yield one, other


async def assert_settled_once(world: World) -> None:
    """Everything is final, was told once, and took effect once, under one nonce each."""
    assert await world.told() == FINAL
    assert await world.effects() == sorted(key.encode() for key in KEYS)
    assert await world.nonce() == len(KEYS)


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(down=True),
        Faults(error="internal error"),
        Faults(lag=2),
        Faults(stopped_at=1),
        Faults(unanswered=frozenset({strict_node.SEND})),
        Faults(unanswered=frozenset({strict_node.RECEIPT})),
        Faults(drop_every=4),
        Faults(delay_seconds=0.1),
        Faults(delay_seconds=4 * SILENCE_SECONDS),
        Faults(chain_id=1),
        Faults(lie=strict_node.nonsense),
    ],
    ids=[
        "right",
        "down",
        "errors",
        "lags",
        "stands still",
        "takes in silence",
        "silent",
        "drops",
        "slow",
        "too slow",
        "other chain",
        "nonsense",
    ],
)
async def test_goes_on(world: World, strict: tuple[StrictNode, StrictNode], faults: Faults, wrong: int) -> None:
    """One of two endpoints is gone, late, silent, elsewhere or out of its mind: settlements go on, each once."""
    silent = bool(faults.unanswered) or faults.delay_seconds > SILENCE_SECONDS
    told: dict[str, Any] = IMPATIENT | ({"request_seconds_max": SILENCE_SECONDS} if silent else {})
    machine = await world.machine(**told)
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        strict[wrong].faults = faults
        await world.enqueue(machine, "two", "three")
        await world.until_told(3)
        await world.mine(3, pause=0.05)
    await assert_settled_once(world)


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    "lie",
    [
        strict_node.flipped_status,
        strict_node.other_receipt,
        strict_node.no_receipt,
        strict_node.other_blocks,
        strict_node.used_nonces,
    ],
)
async def test_waits(world: World, strict: tuple[StrictNode, StrictNode], lie: strict_node.Lie, wrong: int) -> None:
    """One of two endpoints lies about what decides: nothing is told while it does, however final it is; then all of it, as it is, once."""
    machine = await world.machine(**IMPATIENT)
    async with running(machine):
        strict[wrong].faults.lie = lie
        await world.enqueue(machine, *KEYS)
        await world.mine(12, pause=0.1)
        assert await world.told() == {}
        strict[wrong].faults.lie = None
        await world.until_told(3)
        await world.mine(3, pause=0.05)
    await assert_settled_once(world)


async def test_a_lie_about_a_transaction_that_was_never_mined(world: World, strict: tuple[StrictNode, StrictNode]) -> None:
    """A receipt that one endpoint invents for bytes that lie in no block tells nothing; when they are mined they are told."""
    machine = await world.machine(**IMPATIENT)
    async with running(machine):
        strict[1].faults.lie = lambda method, params, result: strict_node.used_nonces(
            method, params, strict_node.invented_receipt(method, params, result)
        )
        await world.enqueue(machine, *KEYS)
        await asyncio.sleep(1.0)
        await world.mine(8, pause=0.05)
        assert await world.told() == {}
        strict[1].faults.lie = None
        await world.until_told(3)
    await assert_settled_once(world)


async def test_a_lie_about_the_pool(world: World, strict: tuple[StrictNode, StrictNode]) -> None:
    """A pending nonce that one endpoint invents costs empty transactions that fill the gap, and changes nothing else."""
    machine = await world.machine(**IMPATIENT, resend_blocks=1)
    async with running(machine):
        strict[0].faults.lie = strict_node.pending_nonces
        await world.enqueue(machine, *KEYS)
        await world.until_told(3)
    assert await world.told() == FINAL
    assert await world.effects() == sorted(key.encode() for key in KEYS)
    assert await world.nonce() == len(KEYS) + 10


async def test_two_must_agree(world: World, strict: tuple[StrictNode, StrictNode]) -> None:
    """Where two must agree, nothing is told while one of two is down; then everything is."""
    machine = await world.machine(**IMPATIENT, agreement_min=2)
    async with running(machine):
        await world.enqueue(machine, "one")
        await world.until_state("one", "sent")
        strict[0].faults.down = True
        await world.enqueue(machine, "two", "three")
        await world.mine(10, pause=0.1)
        assert await world.told() == {}
        strict[0].faults.down = False
        await world.until_told(3)
    await assert_settled_once(world)


async def test_replacements_are_what_nodes_take(world: World, strict: tuple[StrictNode, StrictNode]) -> None:
    """Under a fee spike replacements pass nodes that want a tenth more on both fees."""
    machine = await world.machine(**IMPATIENT, resend_blocks=1)
    async with running(machine):
        await world.enqueue(machine, *KEYS)
        await world.until_state("three", "sent")

        async def replaced() -> bool:
            await world.node.call("anvil_setNextBlockBaseFeePerGas", hex(40 * 10**9))
            await world.mine(pause=0.1)
            return len(await world.told()) == len(KEYS)

        await world.until(replaced)
    await assert_settled_once(world)
    assert len(await world.attempts("one")) > 1
    assert strict[0].asked[strict_node.SEND] > 0
