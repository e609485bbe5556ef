"""A JSON-RPC endpoint in front of a real anvil: as strict as nodes of real networks are, and as faulty as a test tells it to be.

Strict, in geth's words, where anvil is lenient: a replacement pays a tenth more on both fees, a transaction has at most 2^24 gas (EIP-7825) and 128 KiB, a
transaction that the pool has is "already known". Not imitated: geth keeps a transaction whose fee is below the base fee, anvil refuses it.

Any number of endpoints can stand in front of one node; they are then endpoints of one chain.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

SEND: Final = "eth_sendRawTransaction"
RECEIPT: Final = "eth_getTransactionReceipt"
BLOCK: Final = "eth_getBlockByNumber"
NONCE: Final = "eth_getTransactionCount"
CALL: Final = "eth_call"

GAS_MAX: Final = 2**24
TRANSACTION_BYTES_MAX: Final = 128 * 1024
#: What a replacement must pay, in percent of what it replaces, on both fees.
REPLACEMENT_PERCENT: Final = 110
#: Error code of geth for everything that it does not take.
REFUSED: Final = -32000

#: Method, parameters, true result -> what is said instead.
Lie = Callable[[str, list[Any], Any], Any]


class Refused(Exception):
    """A call is answered with an error."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message}


@dataclass
class Faults:
    """What is wrong with an endpoint."""

    #: It answers nobody.
    down: bool = False
    #: It is so many blocks behind.
    lag: int = 0
    #: It has stopped at this height.
    stopped_at: int | None = None
    #: It says that it serves this chain.
    chain_id: int | None = None
    #: Every call is answered with this error.
    error: str = ""
    #: Requests with one of these calls are carried out, and never answered.
    unanswered: frozenset[str] = frozenset()
    #: Every so many requests one is carried out and not answered: its connection ends.
    drop_every: int = 0
    #: Every answer comes so late.
    delay_seconds: float = 0.0
    #: What it says that is not so.
    lie: Lie | None = None

    @property
    def behind(self) -> bool:
        """Whether it does not tell of the newest blocks."""
        return bool(self.lag) or self.stopped_at is not None


@dataclass
class StrictNode:
    """An endpoint. An async context manager."""

    #: The node behind it.
    node_url: str
    #: What is wrong with it; may be changed at any time.
    faults: Faults = field(default_factory=Faults)
    #: How often each method was called.
    asked: Counter[str] = field(default_factory=Counter)
    #: Where it listens, once it does.
    url: str = ""

    async def __aenter__(self) -> Self:
        self._requests = 0
        self._ended = asyncio.Event()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120))
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        await self._runner.cleanup()
        await self._session.close()

    # -- serving ---------------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.faults.down:
            return _hang_up(request)
        asked = await request.json()
        calls = asked if isinstance(asked, list) else [asked]
        self._requests += 1
        await asyncio.sleep(self.faults.delay_seconds)
        answers = [await self._answer(call) for call in calls]
        if self.faults.unanswered & {call["method"] for call in calls}:
            await self._ended.wait()
            return _hang_up(request)
        if self.faults.drop_every and self._requests % self.faults.drop_every == 0:
            return _hang_up(request)
        return web.json_response(answers if isinstance(asked, list) else answers[0])

    async def _answer(self, call: Mapping[str, Any]) -> dict[str, Any]:
        method, params = call["method"], list(call.get("params") or [])
        self.asked[method] += 1
        answer = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            if self.faults.error:
                raise Refused(self.faults.error)
            result = await self._result(method, params)
        except Refused as refused:
            return answer | {"error": refused.error}
        if self.faults.lie is not None:
            result = self.faults.lie(method, params, result)
        return answer | {"result": result}

    async def _result(self, method: str, params: list[Any]) -> Any:
        if method == "eth_chainId" and self.faults.chain_id is not None:
            return hex(self.faults.chain_id)
        if method == SEND:
            return await self._send(bytes.fromhex(params[0][2:]))
        if self.faults.behind:
            return await self._result_behind(method, params)
        return await self._ask(method, *params)

    async def _ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._session.post(self.node_url, json=body) as response:
                answer = await response.json(content_type=None)
        except aiohttp.ClientError as error:
            raise Refused(f"no node: {type(error).__name__}") from error
        if "error" in answer:
            refused = Refused(answer["error"]["message"], answer["error"]["code"])
            refused.error = answer["error"]
            raise refused
        return answer["result"]

    # -- being strict ------------------------------------------------------------------------------------------------------

    async def _send(self, raw: bytes) -> str:
        """Take a transaction as geth does."""
        if len(raw) > TRANSACTION_BYTES_MAX:
            raise Refused(f"oversized data: transaction size {len(raw)}, limit {TRANSACTION_BYTES_MAX}")
        sender = str(Account.recover_transaction(HexBytes(raw)))
        sent = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        if int(sent["gas"]) > GAS_MAX:
            raise Refused(f"transaction gas limit too high (cap: {GAS_MAX}, tx: {sent['gas']})")
        found = "0x" + keccak(raw).hex().removeprefix("0x")
        held = await self._pooled(sender, int(sent["nonce"]))
        if held is not None and held["hash"] == found:
            raise Refused("already known")
        used = int(await self._ask(NONCE, sender, "latest"), 16)
        if int(sent["nonce"]) < used:
            raise Refused(f"nonce too low: next nonce {used}, tx nonce {sent['nonce']}")
        if held is not None and not all(_outbids(int(sent[name]), int(held[name], 16)) for name in _FEES):
            raise Refused("replacement transaction underpriced")
        return str(await self._ask(SEND, "0x" + raw.hex()))

    async def _pooled(self, sender: str, nonce: int) -> dict[str, Any] | None:
        """The transaction of that place in the pool."""
        found: dict[str, Any] | None = await self._ask("eth_getTransactionBySenderAndNonce", sender, hex(nonce))
        return found if found is not None and found["blockHash"] is None else None

    # -- being behind ------------------------------------------------------------------------------------------------------

    async def _result_behind(self, method: str, params: list[Any]) -> Any:
        """What a node says that does not have the newest blocks yet."""
        newest = int(await self._ask("eth_blockNumber"), 16)
        height = max(0, newest - self.faults.lag)
        if self.faults.stopped_at is not None:
            height = min(height, self.faults.stopped_at)
        missing = newest - height
        if method == "eth_blockNumber":
            return hex(height)
        if method == RECEIPT:
            receipt = await self._ask(method, *params)
            return receipt if receipt is not None and int(receipt["blockNumber"], 16) <= height else None
        place = {BLOCK: 0, NONCE: 1, CALL: 1}.get(method)
        if place is None:
            return await self._ask(method, *params)
        number = await self._number(params[place], height, missing)
        if number > height:
            if method == BLOCK:
                return None
            raise Refused("header not found")
        if not isinstance(params[place], dict):
            params[place] = hex(number)
        return await self._ask(method, *params)

    async def _number(self, named: Any, height: int, missing: int) -> int:
        """Height of a block that a call names."""
        if isinstance(named, dict):
            block = await self._ask("eth_getBlockByHash", named["blockHash"], False)  # noqa: FBT003 - a parameter of the node
            return int(block["number"], 16) if block is not None else height + 1
        if named in ("latest", "pending"):
            return height
        if named in ("safe", "finalized"):
            block = await self._ask(BLOCK, named, False)  # noqa: FBT003 - a parameter of the node
            return max(0, int(block["number"], 16) - missing)
        return int(named, 16)


_FEES: Final = ("maxFeePerGas", "maxPriorityFeePerGas")


def _outbids(fee: int, held: int) -> bool:
    return fee > held and fee * 100 >= held * REPLACEMENT_PERCENT


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return web.Response()


# -- lies --------------------------------------------------------------------------------------------------------------------


def another(found: str) -> str:
    """Another hash."""
    return "0x" + keccak(text=found).hex().removeprefix("0x")


def flipped_status(method: str, _: list[Any], result: Any) -> Any:
    """What succeeded failed, and the other way round."""
    if method != RECEIPT or result is None:
        return result
    return result | {"status": "0x0" if int(result["status"], 16) else "0x1"}


def other_receipt(method: str, _: list[Any], result: Any) -> Any:
    """A transaction was mined in another block."""
    return result if method != RECEIPT or result is None else result | {"blockHash": another(result["blockHash"])}


def no_receipt(method: str, _: list[Any], result: Any) -> Any:
    """No transaction was mined."""
    return None if method == RECEIPT else result


def invented_receipt(method: str, params: list[Any], result: Any) -> Any:
    """A transaction that is in no block was mined in block 1, and succeeded."""
    if method != RECEIPT or result is not None:
        return result
    return {
        "transactionHash": params[0], "blockNumber": "0x1", "blockHash": another("block 1"), "status": "0x1", "gasUsed": "0x5208",
        "effectiveGasPrice": "0x1", "logs": [],
    }  # fmt: skip


def other_blocks(method: str, _: list[Any], result: Any) -> Any:
    """Every block but the first has another hash."""
    if method != BLOCK or result is None or int(result["number"], 16) == 0:
        return result
    return result | {"hash": another(result["hash"])}


def other_genesis(method: str, _: list[Any], result: Any) -> Any:
    """The first block has another hash."""
    return result | {"hash": another(result["hash"])} if method == BLOCK and result and int(result["number"], 16) == 0 else result


def used_nonces(method: str, params: list[Any], result: Any) -> Any:
    """Ten more nonces of every account are used than are."""
    return hex(int(result, 16) + 10) if method == NONCE and params[1] != "pending" else result


def pending_nonces(method: str, params: list[Any], result: Any) -> Any:
    """Ten more transactions of every account wait than do."""
    return hex(int(result, 16) + 10) if method == NONCE and params[1] == "pending" else result


def other_state(method: str, _: list[Any], result: Any) -> Any:
    """Every call of a contract returns something else."""
    return another(result) if method == CALL else result


def nonsense(method: str, _: list[Any], result: Any) -> Any:
    """What is no answer to the question."""
    return result if method in ("eth_chainId", SEND) else {"neither": "here nor there"}
