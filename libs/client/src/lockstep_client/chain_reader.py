"""Reads a validator's own node: plain JSON-RPC, no library that could decide anything. What it reads is judged in `chain_evidence`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import aiohttp
import orjson
from eth_utils.address import to_checksum_address

from lockstep_client.audit_check import RegistryRecord
from lockstep_client.batch_proof import RootRecord
from lockstep_client.chain_evidence import ChainFacts, LoggedCommit
from lockstep_client.reading import ReadingFailed
from lockstep_contracts.calldata import WORD_BYTES
from lockstep_contracts.escrow import decode_leg_of, encode_leg_of, leg_key
from lockstep_contracts.events import Anchored, Committed, Event, Finalised, decode_log, event_topic
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
#: Calls of one JSON-RPC batch.
BATCH_MAX: Final = 100

_Answer = TypeVar("_Answer")
#: A checksum costs a hash of the address; an escrow pays many legs.
_address: Final = lru_cache(64)(to_checksum_address)


@dataclass(frozen=True)
class LegAsked:
    """A token leg that the node is asked about. Without slots: what follows from it is worked out once."""

    #: The leg.
    leg: Leg
    #: Its plan's head.
    header: PlanHeader
    #: Where it is said to have taken effect.
    evidence: ChainEvidence

    @property
    def escrow(self) -> str:
        """Contract that it is on.

        Raises:
            TypeError: it is no token transfer.
        """
        if not isinstance(self.leg.terms, TokenTransfer):
            raise TypeError(f"leg {self.leg.leg_id} is no token transfer")
        return self.leg.terms.escrow

    @cached_property
    def key(self) -> bytes:
        """Its key on the escrow."""
        return leg_key(self.header.digest, self.leg.leg_id)

    @cached_property
    def call(self) -> _Call:
        """By which the escrow tells how it stands."""
        return _contract_call(self.escrow, encode_leg_of(self.key))

    @cached_property
    def payouts_call(self) -> _Call:
        """By which its payouts are found: its transaction, or the escrow's whole log."""
        if self.evidence.transaction_hash:
            return _called("eth_getTransactionReceipt", "0x" + self.evidence.transaction_hash.hex())
        return _event_log(self.escrow, event_topic(Committed), self.key)


class _Call(NamedTuple):
    """A call of JSON-RPC; the same one is made once."""

    method: str
    #: JSON.
    parameters: bytes


def _called(method: str, *parameters: Any) -> _Call:
    return _Call(method, orjson.dumps(parameters))


_UNSAID: Final = ReadingFailed("chain", "the node does not say where an event stands")


class _Answers(dict[_Call, "Any | ReadingFailed"]):
    """What the node answered, by call."""

    def result(self, call: _Call) -> Any:
        """The answer to a call.

        Raises:
            ReadingFailed: there is none.
        """
        found = self.get(call, _UNSAID)
        if isinstance(found, ReadingFailed):
            raise found
        return found


class ChainReader:
    """A node, asked over HTTP. An async context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READ_SECONDS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def facts(self, asked: Sequence[LegAsked]) -> list[ChainFacts | ReadingFailed]:
        """Everything that each leg's check needs to know, or why the node does not tell it; what legs have in common is read once."""
        answers = await self._ask_all(call for each in asked for call in _calls_about(each))
        payouts = _Payouts(answers)
        answers |= await self._ask_all(_block(number) for each in asked for number in payouts.blocks(each))
        return [_facts(each, payouts, answers) for each in asked]

    async def registry_record(self, registry: str, plan_digest: bytes) -> RegistryRecord:
        """What a NotaryRegistry has about a plan.

        Raises:
            ReadingFailed: the node cannot be asked, or answers with something else.
        """
        status, kept = await self._read(registry, encode_plan_of(plan_digest), decode_plan_of, "a notary registry")
        logs = await self._logs_of(registry, event_topic(Finalised), plan_digest)
        ends = [(each, log) for log in logs if isinstance(each := _event(log), Finalised)]
        return RegistryRecord(
            chain=await self._chain(),
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
            chain=await self._chain(),
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
        return _decoded(await self._ask(_contract_call(contract, calldata)), contract, decode, kind)

    async def _call(self, contract: str, calldata: bytes) -> bytes:
        return _octets(await self._ask(_contract_call(contract, calldata)))

    async def _logs_of(self, contract: str, *topics: bytes | None) -> list[dict[str, Any]]:
        """Every event of a contract with these topics, None for any."""
        return _logs(await self._ask(_event_log(contract, *topics)))

    async def _chain(self) -> str:
        return f"eip155:{_integer(await self._ask(_CHAIN_ID))}"

    async def _ask(self, call: _Call) -> Any:
        """The answer to one call.

        Raises:
            ReadingFailed: there is none.
        """
        return (await self._ask_all([call])).result(call)

    async def _ask_all(self, calls: Iterable[_Call]) -> _Answers:
        """What the node answers to each of these calls, in batches."""
        wanted, found = list(dict.fromkeys(calls)), _Answers()
        for at in range(0, len(wanted), BATCH_MAX):
            batch = wanted[at : at + BATCH_MAX]
            try:
                told = await self._post(batch)
            except ReadingFailed as error:
                found |= dict.fromkeys(batch, error)
                continue
            for number, call in enumerate(batch):
                answer = told.get(number)
                if isinstance(answer, dict) and "error" not in answer and "result" in answer:
                    found[call] = answer["result"]
                else:
                    found[call] = ReadingFailed("chain", f"the node answered {call.method} with an error")
        return found

    async def _post(self, batch: Sequence[_Call]) -> dict[int, Any]:
        """The answers to a batch, by place. The node may give them in any order."""
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": call.method, "params": orjson.Fragment(call.parameters)}
            for number, call in enumerate(batch)
        ]
        name = batch[0].method
        try:
            headers = {"Content-Type": "application/json"}
            async with self._session.post(self._url, data=orjson.dumps(requests), headers=headers) as response:
                if response.status != 200:
                    raise ReadingFailed("chain", f"the node answered {name} with HTTP {response.status}")
                answers = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ReadingFailed("chain", f"the node cannot be asked for {name}: {type(error).__name__}") from error
        if not isinstance(answers, list):
            raise ReadingFailed("chain", f"the node answered {name} with an error")
        return {each["id"]: each for each in answers if isinstance(each, dict) and type(each.get("id")) is int}


class _Payouts:
    """The Committed events of legs, among all that the node answered; a transaction that carries many legs is read once."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._by_leg: dict[_Call, dict[str, list[dict[str, Any]]]] = {}
        self._events: dict[tuple[_Call, bytes], list[tuple[Committed, dict[str, Any]]]] = {}

    def of(self, asked: LegAsked) -> list[tuple[Committed, dict[str, Any]]]:
        """The leg's events, with their logs.

        Raises:
            ReadingFailed: the node has not told them.
        """
        call = asked.payouts_call
        if call not in self._by_leg:
            told = self._answers.result(call)
            if asked.evidence.transaction_hash:
                told = told.get("logs") if isinstance(told, dict) else []
            by_leg = self._by_leg[call] = {}
            for log in _logs(told):
                topics: Sequence[Any] = log.get("topics") or ()
                if len(topics) > 1 and str(topics[0]).lower() == _COMMITTED:
                    by_leg.setdefault(str(topics[1]).lower(), []).append(log)
        own = call, asked.key
        if own not in self._events:
            logs = self._by_leg[call].get("0x" + asked.key.hex(), ())
            self._events[own] = [(event, log) for log in logs if isinstance(event := _event(log), Committed)]
        return self._events[own]

    def blocks(self, asked: LegAsked) -> list[int]:
        """The blocks that they stand in; none where the node has not told them."""
        try:
            return [_integer(log.get("blockNumber")) for _, log in self.of(asked)]
        except ReadingFailed:
            return []


def _facts(asked: LegAsked, payouts: _Payouts, answers: _Answers) -> ChainFacts | ReadingFailed:
    try:
        status, terms_digest = _decoded(answers.result(asked.call), asked.escrow, decode_leg_of, "an escrow")
        succeeded = None
        if asked.evidence.transaction_hash:
            receipt = answers.result(asked.payouts_call)
            succeeded = isinstance(receipt, dict) and _integer(receipt.get("status")) == 1
        return ChainFacts(
            chain=f"eip155:{_integer(answers.result(_CHAIN_ID))}",
            status=status,
            terms_digest=terms_digest,
            evidence_block_hash=_block_hash(answers, asked.evidence.block_number),
            commits=tuple(_located(event, log, answers) for event, log in payouts.of(asked)),
            transaction_succeeded=succeeded,
        )
    except ReadingFailed as error:
        return error


def _located(event: Committed, log: dict[str, Any], answers: _Answers) -> LoggedCommit:
    number = _integer(log.get("blockNumber"))
    return LoggedCommit(
        contract=_address(str(log.get("address"))),
        event=event,
        transaction_hash=_octets(log.get("transactionHash")),
        block_number=number,
        block_hash=_octets(log.get("blockHash")),
        canonical_hash=_block_hash(answers, number),
    )


def _block_hash(answers: _Answers, number: int) -> bytes:
    block = answers.result(_block(number))
    return _octets(block.get("hash")) if isinstance(block, dict) else b""


# -- Calls -------------------------------------------------------------------------------------------------------------

_CHAIN_ID: Final = _called("eth_chainId")
_COMMITTED: Final = "0x" + event_topic(Committed).hex()


def _calls_about(asked: LegAsked) -> tuple[_Call, ...]:
    """What the node is asked at first: the blocks of the leg's payouts are known from the answers."""
    return (_CHAIN_ID, asked.call, asked.payouts_call, _block(asked.evidence.block_number))


def _block(number: int) -> _Call:
    return _called("eth_getBlockByNumber", hex(number), False)  # noqa: FBT003 - JSON-RPC takes booleans by position


def _contract_call(contract: str, calldata: bytes) -> _Call:
    return _called("eth_call", {"to": contract, "data": "0x" + calldata.hex()}, "latest")


def _event_log(contract: str, *topics: bytes | None) -> _Call:
    shown = [None if each is None else "0x" + each.hex() for each in topics]
    return _called("eth_getLogs", {"address": contract, "fromBlock": "0x0", "toBlock": "latest", "topics": shown})


# -- Forms -------------------------------------------------------------------------------------------------------------


def _decoded(answer: Any, contract: str, decode: Callable[[bytes], _Answer], kind: str) -> _Answer:
    octets = _octets(answer)
    try:
        return decode(octets)
    except Exception as error:
        raise ReadingFailed("chain", f"{contract} does not answer as {kind} does") from error


def _only(answers: Sequence[_Answer]) -> _Answer:
    """The answer to the one thing that was asked."""
    (answer,) = answers
    return answer


def _event(log: dict[str, Any]) -> Event | None:
    return decode_log([_octets(topic) for topic in log.get("topics") or ()], _octets(log.get("data")))


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
