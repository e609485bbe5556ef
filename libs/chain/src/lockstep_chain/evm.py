"""One endpoint of the chain over JSON-RPC. The one module that knows how nodes speak.

Every answer is either a fact or EvmUnavailable; what a node says of bytes that it was sent is read by one table, since every client has words of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import structlog
from eth_typing import ChecksumAddress
from eth_utils.address import to_checksum_address

from lockstep_chain.ports import (
    Answer,
    Block,
    CallReverted,
    ChainMismatch,
    Conditions,
    EvmUnavailable,
    Log,
    PlacedLog,
    Question,
    Receipt,
    SenderTransaction,
    Tag,
    Told,
)
from lockstep_chain.rpc import Call, JsonRpc, RpcError
from lockstep_kit.values import dataclass

_log = structlog.get_logger()
_P = ParamSpec("_P")
_T = TypeVar("_T")

#: JSON-RPC: the node does not know the method.
METHOD_NOT_FOUND: Final = -32601
#: geth: execution reverted.
EXECUTION_REVERTED: Final = 3

#: Words of geth, Besu, Nethermind, Erigon, OpenEthereum and anvil, in lower case; the first that is found counts.
_WORDS: Final[tuple[tuple[str, Answer], ...]] = (
    ("already known", Answer.ACCEPTED),
    ("alreadyknown", Answer.ACCEPTED),
    ("already imported", Answer.ACCEPTED),
    ("known transaction", Answer.ACCEPTED),
    ("nonce too low", Answer.NONCE_USED),
    ("nonce is too low", Answer.NONCE_USED),
    ("oldnonce", Answer.NONCE_USED),
    ("replacement", Answer.OUTBID),
    ("insufficient funds", Answer.UNFUNDED),
    ("insufficientfunds", Answer.UNFUNDED),
    ("upfront cost exceeds", Answer.UNFUNDED),
    ("less than block base fee", Answer.UNDERPRICED),
    ("underpriced", Answer.UNDERPRICED),
    ("below configured minimum", Answer.UNDERPRICED),
    ("feetoolow", Answer.UNDERPRICED),
    ("intrinsic gas", Answer.IMPOSSIBLE),
    ("block gas limit", Answer.IMPOSSIBLE),
    ("gaslimitexceeded", Answer.IMPOSSIBLE),
    ("transaction gas limit", Answer.IMPOSSIBLE),
    ("gas limit too high", Answer.IMPOSSIBLE),
    ("oversized", Answer.IMPOSSIBLE),
    ("floor data gas", Answer.IMPOSSIBLE),
)


def read_answer(said: object) -> Answer:
    """What a node's answer to eth_sendRawTransaction means."""
    if not isinstance(said, RpcError):
        return Answer.ACCEPTED
    text = said.message.lower()
    return next((answer for words, answer in _WORDS if words in text), Answer.UNCLEAR)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which chain an endpoint serves, and how far it has come."""

    #: Hash of block 0.
    genesis: bytes
    #: Its latest block.
    head: Block


def _understood(method: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """The method, to which an answer of another form than the protocol's is no answer: a node's mistake, or its malice, is none of ours."""

    @functools.wraps(method)
    async def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await method(*args, **kwargs)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise EvmUnavailable(f"the endpoint's answer is malformed: {type(error).__name__}") from error

    return asked


class JsonRpcEvm:
    """`Evm` over one JSON-RPC endpoint; `identify` must have succeeded before anything that it says counts."""

    def __init__(self, rpc: JsonRpc, chain_id: int) -> None:
        self._rpc = rpc
        self._chain_id = chain_id

    @_understood
    async def identify(self) -> Identity:
        """Ask which chain the endpoint serves.

        Raises:
            ChainMismatch: another one, or one without EIP-1559 fees.
            EvmUnavailable: it does not answer.
        """
        asked = [("eth_chainId", ()), ("eth_getBlockByNumber", ("0x0", False)), ("eth_getBlockByNumber", ("latest", False))]
        served, genesis, head = _facts(await self._rpc.batch(asked))
        self._check(served)
        if genesis is None or head is None:
            raise EvmUnavailable("the endpoint has no blocks")
        if "baseFeePerGas" not in head:
            raise ChainMismatch(f"chain {self._chain_id} has no base fee (EIP-1559)")
        return Identity(_bytes(genesis["hash"]), _block(head))

    def _check(self, served: str) -> None:
        if _int(served) != self._chain_id:
            raise ChainMismatch(f"the endpoint serves chain {_int(served)}, not {self._chain_id}")

    async def close(self) -> None:
        """Close the connections."""
        await self._rpc.close()

    @property
    def chain_id(self) -> int:
        """EIP-155 id of the chain that the endpoint must serve."""
        return self._chain_id

    @property
    def reach(self) -> tuple[int, int]:
        """It is one endpoint, and counts."""
        return 1, 1

    @_understood
    async def block(self, at: int | Tag) -> Block | None:
        """The canonical block there; None when there is none, or when the chain has no such tag.

        Raises:
            ChainMismatch: the latest block was asked for, and it is another chain's.
        """
        if at is Tag.LATEST:
            # Every round begins here: an endpoint that has come to serve another chain is noticed at once.
            served, head = _facts(await self._rpc.batch([("eth_chainId", ()), ("eth_getBlockByNumber", (at.value, False))]))
            self._check(served)
            return None if head is None else _block(head)
        try:
            found = await self._rpc.call("eth_getBlockByNumber", (at.value if isinstance(at, Tag) else hex(at), False))
        except RpcError as error:
            if isinstance(at, Tag):
                return None
            raise EvmUnavailable(f"block {at}: {error}") from error
        return None if found is None else _block(found)

    @_understood
    async def nonce(self, address: str, at: int) -> int:
        """Number of transactions that the account had sent up to and with that block."""
        return _int(await self._fact("eth_getTransactionCount", (address, hex(at))))

    @_understood
    async def conditions(self, address: str) -> Conditions:
        """What must be known before the account's next transaction is signed."""
        pending, head, balance, tip = await self._rpc.batch(
            [
                ("eth_getTransactionCount", (address, "pending")),
                ("eth_getBlockByNumber", ("latest", False)),
                ("eth_getBalance", (address, "latest")),
                ("eth_maxPriorityFeePerGas", ()),
            ]
        )
        # A network without fees need not have the method.
        tip = "0x0" if isinstance(tip, RpcError) and tip.code == METHOD_NOT_FOUND else tip
        pending, head, balance, tip = _facts((pending, head, balance, tip))
        return Conditions(_int(pending), _block(head), _int(tip), _int(balance))

    @_understood
    async def receipts(self, hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
        """Receipts by transaction hash; a hash without one is missing."""
        found = await self._all([("eth_getTransactionReceipt", (_hex(each),)) for each in hashes])
        return {each: _receipt(receipt) for each, receipt in zip(hashes, found, strict=True) if receipt is not None}

    @_understood
    async def block_hashes(self, numbers: Collection[int]) -> Mapping[int, bytes]:
        """Hashes of the canonical blocks at these heights; a height without one is missing."""
        asked = sorted(set(numbers))
        found = await self._all([("eth_getBlockByNumber", (hex(number), False)) for number in asked])
        return {number: _bytes(block["hash"]) for number, block in zip(asked, found, strict=True) if block is not None}

    @_understood
    async def transactions_in(self, number: int) -> Sequence[SenderTransaction]:
        """Transactions of the canonical block at that height."""
        block = await self._fact("eth_getBlockByNumber", (hex(number), True))
        if block is None:
            raise EvmUnavailable(f"there is no block {number}")
        return [
            SenderTransaction(_bytes(each["hash"]), _address(each["from"]), _int(each["nonce"])) for each in block["transactions"]
        ]

    async def broadcast(self, raws: Sequence[bytes]) -> Sequence[Answer]:
        """Send bytes in one batch; what the node said of each. What got no answer is UNCLEAR."""
        try:
            said = await self._rpc.batch([("eth_sendRawTransaction", (_hex(raw),)) for raw in raws])
        except EvmUnavailable as error:
            _log.warning("broadcast_unclear", transactions=len(raws), error=str(error))
            return [Answer.UNCLEAR] * len(raws)
        answers = [read_answer(each) for each in said]
        for each, answer in zip(said, answers, strict=True):
            if isinstance(each, RpcError) and answer is not Answer.ACCEPTED:
                _log.warning("broadcast_refused", answer=answer.value, said=each.message[:200])
        return answers

    @_understood
    async def call(self, to: str, data: bytes, *, at: Block | int, sender: str | None = None, value: int = 0) -> bytes:
        """Result of a call at a block, by its hash where a block is given (EIP-1898)."""
        place: object = {"blockHash": _hex(at.hash), "requireCanonical": True} if isinstance(at, Block) else hex(at)
        request = {"to": to, "data": _hex(data), "value": hex(value)} | ({"from": sender} if sender else {})
        try:
            return _bytes(await self._rpc.call("eth_call", (request, place)))
        except RpcError as error:
            if error.code == EXECUTION_REVERTED or "revert" in error.message.lower():
                raise CallReverted(_bytes(error.revert_data or "0x")) from error
            raise EvmUnavailable(f"eth_call: {error}") from error

    @_understood
    async def ask(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told | None]:
        """What each call, by itself, would do at a block; None where the node cannot tell."""
        place = {"blockHash": _hex(at.hash), "requireCanonical": True}
        found = await self._rpc.batch([("eth_call", (_asked(each), place)) for each in questions]) if questions else []
        return [_told(each) for each in found]

    async def rehearse(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told] | None:
        """What the calls would do one after the other in a block on top of this one; None where the node cannot tell."""
        block = {"calls": [_asked(each) for each in questions]}
        try:
            simulated = await self._rpc.call("eth_simulateV1", ({"blockStateCalls": [block], "validation": False}, _hex(at.hash)))
            calls = simulated[0]["calls"]
            if len(calls) != len(questions):
                return None
            return [
                Told(_int(each["status"]) == 1, _bytes(each["returnData"]), tuple(_log_of(log) for log in each.get("logs", ())))
                for each in calls
            ]
        except (RpcError, KeyError, IndexError, TypeError, ValueError):
            # Many nodes do not have the method, or limit what it may do: it is a help, and never needed.
            return None

    @_understood
    async def logs(self, address: str, topics: Sequence[bytes | None], first: int, last: int) -> Sequence[PlacedLog]:
        """Logs of a contract in canonical blocks `first` to `last`, both included; topics by position, None for any."""
        wanted = [None if topic is None else _hex(topic) for topic in topics]
        request = {"address": address, "topics": wanted, "fromBlock": hex(first), "toBlock": hex(last)}
        return [_placed_log(each) for each in await self._fact("eth_getLogs", (request,))]

    async def _fact(self, method: str, params: Sequence[object]) -> Any:
        try:
            return await self._rpc.call(method, params)
        except RpcError as error:
            raise EvmUnavailable(f"{method}: {error}") from error

    async def _all(self, calls: Sequence[Call]) -> Sequence[Any]:
        return _facts(await self._rpc.batch(calls)) if calls else ()


def _asked(question: Question) -> Mapping[str, str]:
    # Both names: nodes have been seen to read the one or the other.
    data = _hex(question.data)
    return {"to": question.to, "data": data, "input": data, "from": question.sender, "gas": hex(question.gas_limit)}


def _told(found: Any | RpcError) -> Told | None:
    if not isinstance(found, RpcError):
        return Told(succeeded=True, output=_bytes(found))
    if found.code == EXECUTION_REVERTED or "revert" in found.message.lower():
        return Told(succeeded=False, output=_bytes(found.revert_data or "0x"))
    return None


def _facts(found: Sequence[Any | RpcError]) -> Sequence[Any]:
    for each in found:
        if isinstance(each, RpcError):
            raise EvmUnavailable(f"the node answered: {each}") from each
    return found


def _int(text: str) -> int:
    return int(text, 16)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _hex(octets: bytes) -> str:
    return "0x" + octets.hex()


@functools.lru_cache(maxsize=4_096)
def _address(text: str) -> ChecksumAddress:
    return to_checksum_address(text)


def _block(found: Mapping[str, Any]) -> Block:
    return Block(
        number=_int(found["number"]),
        hash=_bytes(found["hash"]),
        base_fee=_int(found["baseFeePerGas"]),
        timestamp=_int(found["timestamp"]),
    )


def _log_of(found: Mapping[str, Any]) -> Log:
    return Log(_address(found["address"]), tuple(_bytes(topic) for topic in found["topics"]), _bytes(found["data"]))


def _placed_log(found: Mapping[str, Any]) -> PlacedLog:
    return PlacedLog(
        log=_log_of(found),
        block_number=_int(found["blockNumber"]),
        block_hash=_bytes(found["blockHash"]),
        transaction_hash=_bytes(found["transactionHash"]),
        index=_int(found["logIndex"]),
    )


def _receipt(found: Mapping[str, Any]) -> Receipt:
    return Receipt(
        transaction_hash=_bytes(found["transactionHash"]),
        block_number=_int(found["blockNumber"]),
        block_hash=_bytes(found["blockHash"]),
        succeeded=_int(found["status"]) == 1,
        gas_used=_int(found["gasUsed"]),
        effective_gas_price=_int(found["effectiveGasPrice"]),
        logs=tuple(_log_of(log) for log in found["logs"]),
    )
