"""A small client of an EVM node: calls and signed transactions, one at a time. For setting a chain up, not for a service."""

from __future__ import annotations

import asyncio
import itertools
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

RECEIPT_SECONDS_MAX = 120.0
RECEIPT_POLL_SECONDS = 0.02
CALL_SECONDS_MAX = 60.0
#: Well above what the base fee of an idle chain reaches; what is not used is not paid.
MAX_FEE_WEI = 20 * 10**9
TIP_WEI = 10**9
#: Under the cap of EIP-7825 for one transaction.
GAS_MAX = 16_000_000


class NodeRefused(Exception):
    """The node answered a call with an error."""

    def __init__(self, method: str, code: int, message: str, revert_data: str | None) -> None:
        super().__init__(f"{method}: {message} ({code})" + (f" data {revert_data}" if revert_data else ""))
        self.code = code
        self.revert_data = revert_data


class TransactionReverted(Exception):
    """A transaction was mined and did nothing."""


class Node:
    """A connection to a node. Use as an async context manager."""

    def __init__(self, url: str, chain_id: int) -> None:
        self.url = url
        self.chain_id = chain_id
        self._ids = itertools.count(1)
        self._nonces: dict[str, int] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS_MAX))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, *parameters: object) -> Any:
        """The result of a JSON-RPC call.

        Raises:
            NodeRefused: The node answered with an error.
            OSError: It did not answer (aiohttp's connection errors are OSErrors).
        """
        assert self._session is not None  # noqa: S101 - used outside of its context
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(parameters)}
        async with self._session.post(self.url, json=body) as response:
            answer = await response.json(content_type=None)
        if "error" in answer:
            error = answer["error"]
            found = error.get("data")
            raise NodeRefused(method, error["code"], error["message"], found if isinstance(found, str) else None)
        return answer["result"]

    async def answers(self) -> bool:
        """Whether the node answers with the chain id that it should have."""
        try:
            return int(await self.call("eth_chainId"), 16) == self.chain_id
        except aiohttp.ClientError:
            return False

    async def read(self, to: str, calldata: bytes, block: str = "latest") -> bytes:
        """What a call without a transaction answers at a block."""
        answer: str = await self.call("eth_call", {"to": to, "data": prefixed(calldata)}, block)
        return bytes.fromhex(answer[2:])

    async def send(self, sender: LocalAccount, to: str, calldata: bytes) -> dict[str, Any]:
        """Sends a transaction; returns its receipt once it is mined.

        Raises:
            TransactionReverted: It was mined and reverted.
            NodeRefused: The node did not take it; a call that would revert is refused when its gas is estimated.
            TimeoutError: It was not mined in time.
        """
        return await self._send(sender, to, calldata)

    async def deploy(self, sender: LocalAccount, code: bytes) -> str:
        """Deploys a contract from its creation code with its arguments; returns its checksummed address once it is mined.

        Raises:
            TransactionReverted: Its constructor reverted.
            NodeRefused: The node did not take it.
            TimeoutError: It was not mined in time.
        """
        receipt = await self._send(sender, None, code)
        return to_checksum_address(receipt["contractAddress"])

    async def _send(self, sender: LocalAccount, to: str | None, calldata: bytes) -> dict[str, Any]:
        call = {"from": sender.address, "data": prefixed(calldata)} | ({"to": to} if to else {})
        gas = int(await self.call("eth_estimateGas", call), 16)
        nonce = self._nonces.get(sender.address)
        if nonce is None:
            nonce = int(await self.call("eth_getTransactionCount", sender.address, "pending"), 16)
        transaction: dict[str, Any] = {
            "chainId": self.chain_id,
            "nonce": nonce,
            "gas": min(gas * 5 // 4, GAS_MAX),
            "maxFeePerGas": MAX_FEE_WEI,
            "maxPriorityFeePerGas": TIP_WEI,
            "value": 0,
            "data": calldata,
        } | ({"to": to} if to else {})
        signed = sender.sign_transaction(transaction)
        transaction_hash = await self.call("eth_sendRawTransaction", prefixed(bytes(signed.raw_transaction)))
        self._nonces[sender.address] = nonce + 1
        receipt = await self._receipt(transaction_hash)
        if int(receipt["status"], 16) != 1:
            raise TransactionReverted(transaction_hash)
        return receipt

    async def _receipt(self, transaction_hash: str) -> dict[str, Any]:
        deadline = time.monotonic() + RECEIPT_SECONDS_MAX
        while time.monotonic() < deadline:
            receipt: dict[str, Any] | None = await self.call("eth_getTransactionReceipt", transaction_hash)
            if receipt is not None:
                return receipt
            await asyncio.sleep(RECEIPT_POLL_SECONDS)
        raise TimeoutError(f"transaction {transaction_hash} was not mined within {RECEIPT_SECONDS_MAX:g} s")


def prefixed(octets: bytes) -> str:
    """Bytes as JSON-RPC writes them."""
    return "0x" + octets.hex()
