from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from aiohttp import web
from chain_world import CHAIN_ID, World
from coincurve import PrivateKey

from lockstep_chain.endpoints import EvmEndpoints
from lockstep_chain.evm import read_answer
from lockstep_chain.ports import Answer, ChainMismatch, EvmUnavailable, Fees, Tag, Unsigned
from lockstep_chain.rpc import RpcError
from lockstep_chain.signers.keystore import KeystoreSigner

Serve = Callable[[Callable[[object], object]], Awaitable[str]]


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[Serve]:
    """Starts an endpoint that answers as it is told."""
    runners: list[web.AppRunner] = []

    async def start(answer: Callable[[object], object]) -> str:
        async def handle(request: web.Request) -> web.Response:
            said = answer(await request.json())
            return web.Response(body=said) if isinstance(said, bytes) else web.json_response(said)

        app = web.Application()
        app.router.add_post("/", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_another_chain_is_refused(world: World) -> None:
    """An endpoint of another chain is refused before anything is sent."""
    with pytest.raises(ChainMismatch, match="serves chain 138, not 1"):
        await EvmEndpoints.connect([world.node.url], 1)


async def test_nobody_there() -> None:
    """An endpoint that is not there is unavailable."""
    with pytest.raises(EvmUnavailable):
        await EvmEndpoints.connect(["http://127.0.0.1:9"], CHAIN_ID)


@pytest.mark.parametrize(
    "said",
    [b"", b"not json", {"id": 1}, [], [{"jsonrpc": "2.0", "id": 99, "result": "0x1"}], {"error": {"code": 1, "message": "no"}}],
)
async def test_nonsense_is_no_fact(serve: Serve, said: object) -> None:
    """An endpoint that talks nonsense is unavailable; nothing is concluded from it."""
    with pytest.raises(EvmUnavailable):
        await EvmEndpoints.connect([await serve(lambda _: said)], CHAIN_ID)


async def test_a_chain_without_fees_of_today_is_refused(serve: Serve) -> None:
    """A chain without a base fee cannot take what we sign."""

    def answer(asked: object) -> object:
        assert isinstance(asked, list)
        block = {"number": "0x0", "hash": "0x" + 64 * "0", "timestamp": "0x1"}
        results: list[object] = [hex(CHAIN_ID), block, block]
        return [{"id": each["id"], "result": result} for each, result in zip(asked, results, strict=True)]

    with pytest.raises(ChainMismatch, match="base fee"):
        await EvmEndpoints.connect([await serve(answer)], CHAIN_ID)


async def test_bytes_without_an_answer_are_unclear(world: World) -> None:
    """Bytes that got no answer may have arrived: that is told, not raised."""
    evm = await EvmEndpoints.connect([world.node.url], CHAIN_ID, request_seconds_max=30.0)
    try:
        world.process.kill()
        world.process.wait(60)
        assert await evm.broadcast([b"\x02\x01", b"\x02\x02"]) == [Answer.UNCLEAR, Answer.UNCLEAR]
        with pytest.raises(EvmUnavailable):
            await evm.block(Tag.LATEST)
    finally:
        await evm.close()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("already known", Answer.ACCEPTED),
        ("Known transaction", Answer.ACCEPTED),
        ("transaction already imported", Answer.ACCEPTED),
        ("nonce too low: next nonce 5, tx nonce 4", Answer.NONCE_USED),
        ("OldNonce", Answer.NONCE_USED),
        ("replacement transaction underpriced", Answer.OUTBID),
        ("transaction underpriced: tip needed 1, tip permitted 0", Answer.UNDERPRICED),
        ("max fee per gas less than block base fee", Answer.UNDERPRICED),
        ("insufficient funds for gas * price + value: balance 0", Answer.UNFUNDED),
        ("Upfront cost exceeds account balance", Answer.UNFUNDED),
        ("intrinsic gas too low: gas 21000, minimum needed 21064", Answer.IMPOSSIBLE),
        ("exceeds block gas limit", Answer.IMPOSSIBLE),
        ("oversized data: transaction size 140000, limit 131072", Answer.IMPOSSIBLE),
        ("internal error", Answer.UNCLEAR),
    ],
)
def test_words_of_nodes(said: str, answer: Answer) -> None:
    """Every client's words for the same thing mean the same."""
    assert read_answer(RpcError(-32000, said, None)) is answer


async def test_words_of_the_node(world: World) -> None:
    """What the real node says of bytes is understood."""
    evm = await EvmEndpoints.connect([world.node.url], CHAIN_ID)
    signer = KeystoreSigner(PrivateKey(bytes(world.account.key)))
    poor = KeystoreSigner(PrivateKey())
    fees = Fees(50 * 10**9, 10**9)

    def empty(nonce: int, fees: Fees = fees) -> Unsigned:
        return Unsigned(CHAIN_ID, nonce, world.account.address, 0, b"", 21_000, fees)

    try:
        (first, cheap, rival, second) = await signer.sign(
            [empty(0), empty(1, Fees(1, 1)), empty(0, Fees(50 * 10**9, 2)), empty(0, Fees(60 * 10**9, 2 * 10**9))]
        )
        (unfunded,) = await poor.sign([empty(0)])
        assert await evm.broadcast([first.raw]) == [Answer.ACCEPTED]
        assert await evm.broadcast([first.raw]) == [Answer.ACCEPTED]
        assert await evm.broadcast([cheap.raw]) == [Answer.UNDERPRICED]
        assert await evm.broadcast([rival.raw]) == [Answer.OUTBID]
        assert await evm.broadcast([unfunded.raw]) == [Answer.UNFUNDED]
        await world.mine()
        assert await evm.broadcast([second.raw]) == [Answer.NONCE_USED]
        assert (await evm.receipts([first.hash, second.hash])).keys() == {first.hash}
    finally:
        await evm.close()


async def test_logs(world: World) -> None:
    """Logs are found by contract, topic and block, with where they stand."""
    evm = await EvmEndpoints.connect([world.node.url], CHAIN_ID)
    try:
        await world.node.call("evm_setAutomine", True)
        receipt = await world.node.send(world.account, world.contract, b"hello")
        (found,) = await evm.logs(world.contract, [(1).to_bytes(32)], 0, 100)
        assert await evm.logs(world.contract, [(2).to_bytes(32)], 0, 100) == []
        assert (found.log.address, found.log.data, found.log.topics) == (world.contract, b"hello", ((1).to_bytes(32),))
        assert "0x" + found.transaction_hash.hex() == receipt["transactionHash"]
        assert (found.block_number, "0x" + found.block_hash.hex()) == (int(receipt["blockNumber"], 16), receipt["blockHash"])
    finally:
        await evm.close()
