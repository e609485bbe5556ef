"""Several endpoints of a real chain, of which one is wrong: what is answered, what is not, and who is asked on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from chain_world import CHAIN_ID, SECONDS_MAX, SILENCE_SECONDS, World, started
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from lockstep_chain.endpoints import EvmEndpoints
from lockstep_chain.ports import Answer, CallReverted, ChainMismatch, EvmUnavailable, Tag
from lockstep_chain.standing import Rules
from lockstep_sandbox.evm import Node
from lockstep_sandbox.ports import free_ports
from lockstep_testkit import strict_node
from lockstep_testkit.strict_node import Faults, StrictNode

#: Rules of tests: what stands still for some seconds is left out.
RULES = Rules(lag_blocks_max=4, lag_seconds_max=3.0)
DEAR = 50 * 10**9


@pytest_asyncio.fixture(loop_scope="session")
async def strict(world: World) -> AsyncIterator[tuple[StrictNode, StrictNode]]:
    """Two endpoints of the world's chain."""
    async with StrictNode(world.node.url) as one, StrictNode(world.node.url) as other:
        yield one, other


Connect = Callable[..., Awaitable[EvmEndpoints]]


@pytest_asyncio.fixture(loop_scope="session")
async def connect(strict: tuple[StrictNode, StrictNode]) -> AsyncIterator[Connect]:
    """Connects to both."""
    async with contextlib.AsyncExitStack() as stack:

        async def made(rules: Rules = RULES, request_seconds_max: float = 30.0) -> EvmEndpoints:
            urls = [each.url for each in strict]
            evm = await EvmEndpoints.connect(urls, CHAIN_ID, rules=rules, request_seconds_max=request_seconds_max)
            stack.push_async_callback(evm.close)
            return evm

        yield made


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not await what():
        assert time.monotonic() < deadline, "took too long"
        await asyncio.sleep(0.02)


async def answers(asked: Callable[[], Awaitable[object]]) -> bool:
    """Whether there is an answer."""
    try:
        await asked()
    except EvmUnavailable:
        return False
    return True


async def until_left_out(evm: EvmEndpoints) -> None:
    """Wait until the wrong endpoint is not waited for any more: many answers in a row."""

    async def smooth() -> bool:
        return all([await answers(lambda: evm.block(Tag.LATEST)) for _ in range(4)])

    await until(smooth)


def raw(account: LocalAccount, nonce: int, *, tip: int = 10**9, max_fee: int = DEAR, gas: int = 21_000, data: bytes = b"") -> bytes:
    signed = account.sign_transaction(
        {
            "chainId": CHAIN_ID, "nonce": nonce, "to": account.address, "value": 1, "gas": gas, "data": data,
            "maxFeePerGas": max_fee, "maxPriorityFeePerGas": tip,
        }
    )  # fmt: skip
    return bytes(signed.raw_transaction)


def hash_of(account: LocalAccount, nonce: int) -> bytes:
    return keccak(raw(account, nonce))


async def test_two_that_agree(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """Two endpoints that say the same are one chain; each was asked everything that decides."""
    evm = await connect()
    assert await evm.broadcast([raw(world.account, 0)]) == [Answer.ACCEPTED]
    await world.mine(5)
    head, final = await evm.block(Tag.LATEST), await evm.block(Tag.FINALIZED)
    assert head is not None
    assert final is not None
    assert final.number < head.number
    assert await evm.nonce(world.account.address, final.number) == 1
    receipts = await evm.receipts([hash_of(world.account, 0), bytes(32)])
    assert receipts.keys() == {hash_of(world.account, 0)}
    ((number, found),) = (await evm.block_hashes([receipts[hash_of(world.account, 0)].block_number])).items()
    assert (await world.node.call("eth_getBlockByNumber", hex(number), False))["hash"] == "0x" + found.hex()
    assert await evm.call(world.contract, b"", at=final) == bytes(32)
    with pytest.raises(CallReverted) as reverted:
        await evm.call(world.contract, b"\xff\x01", at=final)
    assert reverted.value.revert_data == b"\xff\x01"
    assert (await evm.conditions(world.account.address)).pending_nonce == 1
    assert [each.nonce for each in await evm.transactions_in(number)] == [0]
    assert await evm.logs(world.contract, [], 0, head.number) == []
    for method in ("eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_call", "eth_getTransactionCount", "eth_getLogs"):
        assert strict[0].asked[method] == strict[1].asked[method] > 0


@pytest.mark.parametrize("liar", [0, 1])
@pytest.mark.parametrize(
    ("lie", "asked"),
    [
        (strict_node.flipped_status, "receipts"),
        (strict_node.other_receipt, "receipts"),
        (strict_node.no_receipt, "receipts"),
        (strict_node.invented_receipt, "no receipt"),
        (strict_node.other_blocks, "hashes"),
        (strict_node.other_blocks, "final"),
        (strict_node.used_nonces, "nonce"),
        (strict_node.other_state, "call"),
        (strict_node.nonsense, "receipts"),
        (strict_node.nonsense, "nonce"),
    ],
)
async def test_one_that_lies(
    world: World, strict: tuple[StrictNode, StrictNode], connect: Connect, lie: strict_node.Lie, asked: str, liar: int
) -> None:
    """Whoever of two endpoints lies, about whatever decides: there is no answer while it does, and the true one afterwards."""
    await world.node.call("eth_sendRawTransaction", "0x" + raw(world.account, 0).hex())
    await world.mine(6)
    evm = await connect()
    final = await evm.block(Tag.FINALIZED)
    assert final is not None
    known = hash_of(world.account, 0)
    ask: Callable[[], Awaitable[object]] = {
        "receipts": lambda: evm.receipts([known]),
        "no receipt": lambda: evm.receipts([bytes(32)]),
        "hashes": lambda: evm.block_hashes([final.number]),
        "final": lambda: evm.block(Tag.FINALIZED),
        "nonce": lambda: evm.nonce(world.account.address, final.number),
        "call": lambda: evm.call(world.contract, b"", at=final),
    }[asked]
    truth = await ask()
    strict[liar].faults.lie = lie
    for _ in range(2):
        with pytest.raises(EvmUnavailable, match="endpoint"):
            await ask()
    strict[liar].faults.lie = None
    assert await ask() == truth


async def test_one_that_lags(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """An endpoint that is some blocks behind is waited for: the chain is as high as it has it, and nobody is contradicted."""
    await world.node.call("eth_sendRawTransaction", "0x" + raw(world.account, 0).hex())
    await world.mine(6)
    strict[1].faults.lag = 2
    evm = await connect()
    newest = int(await world.node.call("eth_blockNumber"), 16)
    head, final = await evm.block(Tag.LATEST), await evm.block(Tag.FINALIZED)
    assert head is not None
    assert final is not None
    assert (head.number, final.number) == (newest - 2, newest - 4)
    assert await evm.nonce(world.account.address, head.number) == 1
    # A transaction that is above its head: not yet, rather than not at all.
    await world.node.call("eth_sendRawTransaction", "0x" + raw(world.account, 1).hex())
    await world.mine()
    with pytest.raises(EvmUnavailable, match="endpoint 2 does not have the receipt"):
        await evm.receipts([hash_of(world.account, 1)])
    await world.mine(2)
    assert (await evm.receipts([hash_of(world.account, 1)])).keys() == {hash_of(world.account, 1)}


async def test_one_that_stands_still(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """An endpoint whose head stays far behind is left out, and counts again when it has caught up."""
    evm = await connect()
    height = int(await world.node.call("eth_blockNumber"), 16)
    strict[0].faults.stopped_at = height

    async def head() -> int:
        block = await evm.block(Tag.LATEST)
        assert block is not None
        return block.number

    assert await head() == height
    await world.mine(RULES.lag_blocks_max + 1)
    assert await head() == height

    async def goes_on() -> bool:
        return await head() == height + RULES.lag_blocks_max + 1

    await until(goes_on)
    before = strict[0].asked["eth_getTransactionCount"]
    await evm.nonce(world.account.address, height)
    assert strict[0].asked["eth_getTransactionCount"] == before
    strict[0].faults.stopped_at = None

    async def asked_again() -> bool:
        await evm.nonce(world.account.address, height)
        return strict[0].asked["eth_getTransactionCount"] > before

    await until(asked_again)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(down=True),
        Faults(error="internal error"),
        Faults(unanswered=frozenset({"eth_getBlockByNumber"})),
        Faults(delay_seconds=4 * SILENCE_SECONDS),
    ],
    ids=["down", "errors", "silent", "slow"],
)
async def test_one_that_is_gone(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect, faults: Faults) -> None:
    """An endpoint that fails again and again is left out; a single failure only costs an answer. When it comes back it counts, and can contradict."""
    evm = await connect(request_seconds_max=SILENCE_SECONDS)
    strict[1].faults = faults
    assert not await answers(lambda: evm.block(Tag.LATEST))
    await until_left_out(evm)
    began = time.monotonic()
    for _ in range(20):
        await evm.block(Tag.LATEST)
    assert time.monotonic() - began < 20 * SILENCE_SECONDS
    strict[1].faults = Faults(lie=strict_node.other_state)

    async def contradicted() -> bool:
        return not await answers(lambda: evm.call(world.contract, b"", at=0))

    await until(contradicted)


async def test_both_are_gone(strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """While no endpoint answers nothing is answered, and nobody is left out for it: the first answer counts again."""
    evm = await connect()
    for each in strict:
        each.faults.down = True
    for _ in range(10):
        assert not await answers(lambda: evm.block(Tag.LATEST))
    for each in strict:
        each.faults.down = False
    assert await answers(lambda: evm.block(Tag.LATEST))
    assert min(each.asked["eth_getBlockByNumber"] for each in strict) > 0


async def test_too_few(strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """Where two must agree, one that is left answers nothing, and a start waits."""
    evm = await connect(Rules(agreement_min=2))
    strict[0].faults.down = True

    async def too_few() -> bool:
        try:
            await evm.block(Tag.LATEST)
        except EvmUnavailable as error:
            return "1 of 2 endpoints count, 2 must" in str(error)
        return False

    await until(too_few)
    with pytest.raises(EvmUnavailable, match="1 endpoints answer, 2 must"):
        await connect(Rules(agreement_min=2))
    strict[0].faults.down = False
    await until(lambda: answers(lambda: evm.block(Tag.LATEST)))


async def test_another_chain_at_the_start(strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """One endpoint of another chain, by its id or by its first block, and nothing starts."""
    strict[1].faults.chain_id = 1
    with pytest.raises(ChainMismatch, match="endpoint 2: the endpoint serves chain 1, not 138"):
        await connect()
    strict[1].faults = Faults(lie=strict_node.other_genesis)
    with pytest.raises(ChainMismatch, match="contradict one another about block 0"):
        await connect()


@contextlib.asynccontextmanager
async def two_nodes(first: int, second: int) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that know nothing of one another, with the times at which their chains begin."""
    ports = free_ports(2)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with started(ports[0], "--timestamp", str(first)), started(ports[1], "--timestamp", str(second)):
        async with Node(urls[0], CHAIN_ID) as one, Node(urls[1], CHAIN_ID) as other:
            await until(one.answers)
            await until(other.answers)
            yield one, other


async def test_two_chains() -> None:
    """Two nodes of the same id whose chains begin differently: nothing starts."""
    async with two_nodes(1_700_000_000, 1_700_000_001) as (one, other):
        with pytest.raises(ChainMismatch, match="contradict one another about block 0"):
            await EvmEndpoints.connect([one.url, other.url], CHAIN_ID)


async def test_two_chains_that_begin_alike() -> None:
    """Two nodes of the same id whose chains begin alike, each with a history of its own: nothing is answered about what they do not share."""
    async with two_nodes(1_700_000_000, 1_700_000_000) as (one, other):
        await one.call("evm_setNextBlockTimestamp", 1_700_000_100)
        for each in (one, other):
            for _ in range(6):
                await each.call("evm_mine")
        evm = await EvmEndpoints.connect([one.url, other.url], CHAIN_ID)
        try:
            assert (await evm.block(0)) is not None
            for at in (1, 3, Tag.FINALIZED):
                with pytest.raises(EvmUnavailable, match="contradict one another about block"):
                    await evm.block(at)
            with pytest.raises(EvmUnavailable, match="contradict one another about the hash of block 2"):
                await evm.block_hashes([0, 2])
        finally:
            await evm.close()


@pytest.mark.parametrize("way", ["at once", "after it was away", "while it was left out"])
async def test_another_chain_later(strict: tuple[StrictNode, StrictNode], connect: Connect, way: str) -> None:
    """An endpoint that comes to serve another chain, with or without having been away, is left out; when it serves ours again it counts."""
    evm = await connect()
    if way != "at once":
        strict[0].faults.down = True
        assert not await answers(lambda: evm.block(Tag.LATEST))
    if way == "while it was left out":
        await until_left_out(evm)
    strict[0].faults = Faults(chain_id=1, lie=strict_node.used_nonces)
    await until_left_out(evm)
    assert await evm.nonce("0x" + 40 * "0", 0) == 0
    strict[0].faults.chain_id = None
    await until(lambda: contradicted(evm))


async def contradicted(evm: EvmEndpoints) -> bool:
    return not await answers(lambda: evm.nonce("0x" + 40 * "0", 0))


@pytest.mark.parametrize("lie", [strict_node.other_blocks, strict_node.other_genesis])
async def test_another_history(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect, lie: strict_node.Lie) -> None:
    """An endpoint that comes back with another first block, or another one where the others agreed on one, does not count, although its id is right."""
    await world.mine(6)
    evm = await connect()
    assert await evm.block(Tag.FINALIZED) is not None
    strict[0].faults.down = True
    await until_left_out(evm)
    strict[0].faults, asked = Faults(lie=lie), strict[0].asked["eth_chainId"]

    async def asked_who_it_is_twice() -> bool:
        assert await answers(lambda: evm.block(Tag.FINALIZED))
        return strict[0].asked["eth_chainId"] > asked + 1

    await until(asked_who_it_is_twice)
    before = strict[0].asked["eth_getTransactionCount"]
    await evm.nonce(world.account.address, 1)
    assert strict[0].asked["eth_getTransactionCount"] == before


async def test_another_chain_after_one_failure(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """An endpoint that failed once says again which chain it serves before anything that it answers counts."""
    evm = await connect()
    strict[0].faults.down = True
    assert not await answers(lambda: evm.nonce(world.account.address, 0))
    strict[0].faults = Faults(lie=strict_node.other_genesis)
    before = strict[0].asked["eth_getTransactionCount"]
    with pytest.raises(EvmUnavailable, match="endpoint 1: the endpoint's block 0 is"):
        await evm.nonce(world.account.address, 0)
    assert await evm.nonce(world.account.address, 0) == 0
    assert strict[0].asked["eth_getTransactionCount"] == before


async def test_time_out_after_accepting(world: World, strict: tuple[StrictNode, StrictNode], connect: Connect) -> None:
    """Bytes that an endpoint took without an answer are sent if another one says so, and unclear otherwise; never refused."""
    evm = await connect(request_seconds_max=SILENCE_SECONDS)
    strict[0].faults.unanswered = frozenset({strict_node.SEND})
    assert await evm.broadcast([raw(world.account, 0)]) == [Answer.ACCEPTED]
    strict[1].faults.unanswered = frozenset({strict_node.SEND})
    assert await evm.broadcast([raw(world.account, 1)]) == [Answer.UNCLEAR]
    await world.mine()
    assert await world.nonce() == 2


async def test_a_restart_of_one_node(world: World, strict: tuple[StrictNode, StrictNode]) -> None:
    """A service starts while one of its endpoints is down, and the endpoint counts once it is there."""
    strict[1].faults.down = True
    evm = await EvmEndpoints.connect([each.url for each in strict], CHAIN_ID, rules=RULES, request_seconds_max=30.0)
    try:
        assert await answers(lambda: evm.block(Tag.LATEST))
        strict[1].faults = Faults(lie=strict_node.used_nonces)
        await until(lambda: contradicted(evm))
    finally:
        await evm.close()
