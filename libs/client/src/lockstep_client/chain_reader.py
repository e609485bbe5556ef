"""Reads a validator's own node: plain JSON-RPC, no library that could decide anything. What it reads is judged in `chain_evidence`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
from eth_utils.address import to_checksum_address

from lockstep_client.audit_check import RegistryRecord
from lockstep_client.batch_proof import RootRecord
from lockstep_client.chain_evidence import ChainFacts, LoggedCommit
from lockstep_client.reading import ReadingFailed
from lockstep_contracts.calldata import WORD_BYTES
from lockstep_contracts.escrow import decode_leg_of, encode_leg_of, leg_key
from lockstep_contracts.events import Anchored, Committed, Finalised, decode_log, event_topic
from lockstep_contracts.notary import (
    KnownEscalation,
    decode_anchor_of_many,
    decode_escalation_of_many,
    decode_plan_of,
    encode_anchor_of_many,
    encode_escalation_of_many,
    encode_plan_of,
)
from lockstep_contracts.token import encode_domain_separator, encode_nonces
from lockstep_kit.plan import Leg, PlanHeader, TokenTransfer
from lockstep_kit.statements import ChainEvidence

READ_SECONDS: Final = 10.0

_Answer = TypeVar("_Answer")


class ChainReader:
    """A node, asked over HTTP. An async context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READ_SECONDS))
        self._number = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def facts(self, leg: Leg, header: PlanHeader, evidence: ChainEvidence) -> ChainFacts:
        """Everything that the leg's check needs to know.

        Raises:
            ReadingFailed: the node cannot be asked, or answers with something else.
        """
        if not isinstance(leg.terms, TokenTransfer):
            raise TypeError(f"leg {leg.leg_id} is no token transfer")
        key = leg_key(header.digest, leg.leg_id)
        status, terms_digest = await self._read(leg.terms.escrow, encode_leg_of(key), decode_leg_of, "an escrow")
        if evidence.transaction_hash:
            succeeded, logs = await self._logs_of_transaction(evidence.transaction_hash)
        else:
            succeeded, logs = None, await self._logs_of(leg.terms.escrow, event_topic(Committed), key)
        return ChainFacts(
            chain=f"eip155:{_integer(await self._ask('eth_chainId'))}",
            status=status,
            terms_digest=terms_digest,
            evidence_block_hash=await self._block_hash(evidence.block_number),
            commits=tuple([await self._located(log) for log in logs if _commit(log) is not None]),
            transaction_succeeded=succeeded,
        )

    async def registry_record(self, registry: str, plan_digest: bytes) -> RegistryRecord:
        """What a NotaryRegistry has about a plan.

        Raises:
            ReadingFailed: the node cannot be asked, or answers with something else.
        """
        status, kept = await self._read(registry, encode_plan_of(plan_digest), decode_plan_of, "a notary registry")
        logs = await self._logs_of(registry, event_topic(Finalised), plan_digest)
        ends = [(each, log) for log in logs if (each := _end(log)) is not None]
        return RegistryRecord(
            chain=f"eip155:{_integer(await self._ask('eth_chainId'))}",
            status=status,
            kept=kept,
            hashes=tuple(each.evidence_hash for each, _ in ends),
            transaction_hash=_octets(ends[-1][1].get("transactionHash")) if ends else b"",
            block_number=_integer(ends[-1][1].get("blockNumber")) if ends else 0,
        )

    async def root_record(self, registry: str, root: bytes) -> RootRecord:
        """What a NotaryRegistry has about a Merkle root.

        Raises:
            ReadingFailed: the node cannot be asked, or answers with something else.
        """
        asked = encode_anchor_of_many([root])
        kind, size = await self._read(registry, asked, lambda answer: _only(decode_anchor_of_many(answer)), "a notary registry")
        logs = await self._logs_of(registry, event_topic(Anchored), None, root)
        return RootRecord(
            chain=f"eip155:{_integer(await self._ask('eth_chainId'))}",
            kind=kind,
            size=size,
            transaction_hash=_octets(logs[-1].get("transactionHash")) if logs else b"",
            block_number=_integer(logs[-1].get("blockNumber")) if logs else 0,
        )

    async def escalation_record(self, registry: str, escalation: bytes) -> KnownEscalation:
        """What a NotaryRegistry has about an escalation, by the hash of its id.

        Raises:
            ReadingFailed: the node cannot be asked, or answers with something else.
        """
        asked = encode_escalation_of_many([escalation])
        return await self._read(registry, asked, lambda answer: _only(decode_escalation_of_many(answer)), "a notary registry")

    async def permit_facts(self, token: str, owner: str) -> tuple[bytes, int]:
        """What an owner needs for its next permit (EIP-2612): the token's domain separator, and how many permits of the owner it has used.

        Raises:
            ReadingFailed: the node cannot be asked, or the token knows no permits.
        """
        found = []
        for calldata in (encode_domain_separator(), encode_nonces(owner)):
            result = await self._call(token, calldata)
            if len(result) != WORD_BYTES:
                raise ReadingFailed("chain", f"{token} knows no permits")
            found.append(result)
        return found[0], int.from_bytes(found[1])

    async def _read(self, contract: str, calldata: bytes, decode: Callable[[bytes], _Answer], kind: str) -> _Answer:
        """What a contract of a kind answers.

        Raises:
            ReadingFailed: the node cannot be asked, or the answer is no such contract's.
        """
        answer = await self._call(contract, calldata)
        try:
            return decode(answer)
        except Exception as error:
            raise ReadingFailed("chain", f"{contract} does not answer as {kind} does") from error

    async def _call(self, contract: str, calldata: bytes) -> bytes:
        return _octets(await self._ask("eth_call", {"to": contract, "data": "0x" + calldata.hex()}, "latest"))

    async def _logs_of_transaction(self, transaction_hash: bytes) -> tuple[bool, list[dict[str, Any]]]:
        receipt = await self._ask("eth_getTransactionReceipt", "0x" + transaction_hash.hex())
        if not isinstance(receipt, dict):
            return False, []
        return _integer(receipt.get("status")) == 1, _logs(receipt.get("logs"))

    async def _logs_of(self, contract: str, *topics: bytes | None) -> list[dict[str, Any]]:
        """Every event of a contract with these topics, None for any."""
        shown = [None if each is None else "0x" + each.hex() for each in topics]
        wanted = {"address": contract, "fromBlock": "0x0", "toBlock": "latest", "topics": shown}
        return _logs(await self._ask("eth_getLogs", wanted))

    async def _located(self, log: dict[str, Any]) -> LoggedCommit:
        event = _commit(log)
        if event is None:
            raise AssertionError("only payouts are located")
        number = _integer(log.get("blockNumber"))
        return LoggedCommit(
            contract=to_checksum_address(str(log.get("address"))),
            event=event,
            transaction_hash=_octets(log.get("transactionHash")),
            block_number=number,
            block_hash=_octets(log.get("blockHash")),
            canonical_hash=await self._block_hash(number),
        )

    async def _block_hash(self, number: int) -> bytes:
        block = await self._ask("eth_getBlockByNumber", hex(number), False)  # noqa: FBT003 - JSON-RPC takes booleans by position
        return _octets(block.get("hash")) if isinstance(block, dict) else b""

    async def _ask(self, method: str, *parameters: Any) -> Any:
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": list(parameters)}
        try:
            async with self._session.post(self._url, json=request) as response:
                if response.status != 200:
                    raise ReadingFailed("chain", f"the node answered {method} with HTTP {response.status}")
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ReadingFailed("chain", f"the node cannot be asked for {method}: {type(error).__name__}") from error
        if not isinstance(answer, dict) or "error" in answer or "result" not in answer:
            raise ReadingFailed("chain", f"the node answered {method} with an error")
        return answer["result"]


def _only(answers: Sequence[_Answer]) -> _Answer:
    """The answer to the one thing that was asked."""
    (answer,) = answers
    return answer


def _commit(log: dict[str, Any]) -> Committed | None:
    event = decode_log([_octets(topic) for topic in log.get("topics") or ()], _octets(log.get("data")))
    return event if isinstance(event, Committed) else None


def _end(log: dict[str, Any]) -> Finalised | None:
    event = decode_log([_octets(topic) for topic in log.get("topics") or ()], _octets(log.get("data")))
    return event if isinstance(event, Finalised) else None


def _logs(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ReadingFailed("chain", "the node's logs have another form")
    return value


def _integer(value: Any) -> int:
    try:
        return int(value, 16)
    except (TypeError, ValueError) as error:
        raise ReadingFailed("chain", "the node answered with something that is no quantity") from error


def _octets(value: Any) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x"):
        raise ReadingFailed("chain", "the node answered with something that is no hex text")
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise ReadingFailed("chain", "the node answered with something that is no hex text") from error
