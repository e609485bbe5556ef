"""Whatever an endpoint answers is a fact, a refusal, or no answer: its form never ends a service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lockstep_chain.evm import JsonRpcEvm, read_answer
from lockstep_chain.ports import Answer, Block, CallReverted, ChainMismatch, EvmUnavailable, Question, Tag
from lockstep_chain.rpc import JsonRpc, RpcError

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
BLOCK = Block(number=1, hash=bytes(32), base_fee=1, timestamp=1)
NAMES = (
    "number", "hash", "baseFeePerGas", "timestamp", "transactions", "from", "nonce", "address", "topics", "data", "blockNumber", "blockHash",
    "transactionHash", "logIndex", "status", "gasUsed", "effectiveGasPrice", "logs", "calls", "returnData", "code", "message", "id", "result", "error",
)  # fmt: skip
TEXTS = some.sampled_from(
    (
        "",
        "0x",
        "0x1",
        "0x0",
        "0xzz",
        "1",
        "0x" + "00" * 32,
        "0x" + "ff" * 33,
        ADDRESS,
        "-0x1",
        "\x00",
        "\ud800",
        "execution reverted",
    )
)
PLAIN = some.none() | some.booleans() | some.integers(-(2**63), 2**64) | some.floats() | TEXTS | some.text(max_size=8)
JSON = some.recursive(
    PLAIN,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(NAMES), inner, max_size=8),
    max_leaves=12,
)
METHODS: dict[str, Callable[[JsonRpcEvm], Awaitable[Any]]] = {
    "identify": lambda evm: evm.identify(),
    "latest": lambda evm: evm.block(Tag.LATEST),
    "block": lambda evm: evm.block(7),
    "nonce": lambda evm: evm.nonce(ADDRESS, 1),
    "conditions": lambda evm: evm.conditions(ADDRESS),
    "receipts": lambda evm: evm.receipts([bytes(32)]),
    "block_hashes": lambda evm: evm.block_hashes([1, 2]),
    "transactions_in": lambda evm: evm.transactions_in(1),
    "broadcast": lambda evm: evm.broadcast([b"raw"]),
    "call": lambda evm: evm.call(ADDRESS, b"data", at=BLOCK),
    "ask": lambda evm: evm.ask([Question(ADDRESS, b"data", ADDRESS, 21_000)], at=BLOCK),
    "rehearse": lambda evm: evm.rehearse([Question(ADDRESS, b"data", ADDRESS, 21_000)], at=BLOCK),
    "logs": lambda evm: evm.logs(ADDRESS, [None], 1, 2),
}


class Answering(JsonRpc):
    """A connection whose other end answers what it is given: a single call with it, a batch with it for every call, or with it alone."""

    def __init__(self, answer: object, whole: bool) -> None:
        super().__init__("http://nowhere.invalid", request_seconds_max=1)
        self._answer = answer
        self._whole = whole

    async def _post(self, body: Any) -> Any:
        if self._whole:
            return self._answer
        if isinstance(body, list):
            return [{"id": each["id"], "result": self._answer} for each in body]
        return {"id": body["id"], "result": self._answer}


@pytest.mark.parametrize("method", METHODS)
@given(answer=JSON, whole=some.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_answer_is_a_fact_or_none(method: str, answer: object, whole: bool) -> None:
    """No other exception than those of the port leaves it."""

    async def ask() -> None:
        rpc = Answering(answer, whole)
        try:
            await METHODS[method](JsonRpcEvm(rpc, 138))
        except (EvmUnavailable, ChainMismatch, CallReverted):
            pass
        finally:
            await rpc.close()

    asyncio.run(ask())


@given(code=some.integers(), message=some.text())
def test_every_refusal_is_read(code: int, message: str) -> None:
    """Of bytes that were sent: what is in no table is unclear, and nothing worse."""
    assert isinstance(read_answer(RpcError(code, message, None)), Answer)
