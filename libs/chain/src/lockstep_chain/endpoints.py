"""The chain over several JSON-RPC endpoints. Asks all that count at once; what their answers come to is said by `agreement`, who counts by `standing`.

An endpoint that has failed says again which chain it serves before its next answer counts; one that is left out is asked for that in the background, and
nobody waits for it. In logs and findings endpoints go by their place in the settings, from 1: their URLs may hold keys.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import structlog

from lockstep_chain import agreement
from lockstep_chain.agreement import Unagreed
from lockstep_chain.evm import Identity, JsonRpcEvm
from lockstep_chain.metrics import ENDPOINTS_OUT
from lockstep_chain.ports import (
    Answer,
    Block,
    CallReverted,
    ChainMismatch,
    Conditions,
    EvmUnavailable,
    PlacedLog,
    Question,
    Receipt,
    SenderTransaction,
    Tag,
    Told,
)
from lockstep_chain.rpc import JsonRpc
from lockstep_chain.standing import (
    Record,
    Rules,
    answered,
    behind,
    failed,
    failing,
    left_out,
    let_in,
    seen,
    standing_still,
)
from lockstep_kit.loops import back_off_seconds

_T = TypeVar("_T")

_log = structlog.get_logger()

#: An endpoint that is left out is asked again after at most so long.
ASK_AGAIN_SECONDS_MAX: Final = 15.0
#: What code that reads an answer raises when the answer is nonsense.
NONSENSE: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(slots=True)
class _Endpoint:
    """One endpoint."""

    place: int
    evm: JsonRpcEvm
    record: Record
    #: When it is asked again, while it is left out.
    due: float = 0.0
    asking: asyncio.Task[None] | None = None


class EvmEndpoints:
    """`Evm` over the endpoints of one chain, one of them or several."""

    def __init__(self, evms: Sequence[JsonRpcEvm], chain_id: int, rules: Rules) -> None:
        self._chain_id = chain_id
        self._rules = rules
        self._endpoints = {place: _Endpoint(place, evm, Record()) for place, evm in enumerate(evms, start=1)}
        self._genesis = b""
        #: The last block that all agreed on, other than as the latest one.
        self._agreed: Block | None = None
        #: Kinds of questions that are not agreed on, and endpoints that are waited for since they are behind: what has been said of them already.
        self._findings: set[str] = set()
        self._waited_for: set[int] = set()
        self._rng = random.Random()  # noqa: S311 - jitter, no secret

    @classmethod
    async def connect(
        cls, urls: Sequence[str], chain_id: int, *, rules: Rules | None = None, request_seconds_max: float = 5.0
    ) -> Self:
        """Endpoints that were asked which chain they serve; those that do not answer are left out until they do.

        Raises:
            ChainMismatch: one of them serves another chain, or one without EIP-1559 fees.
            EvmUnavailable: fewer of them than must count answer.
        """
        evms = [JsonRpcEvm(JsonRpc(url, request_seconds_max=request_seconds_max), chain_id) for url in urls]
        made = cls(evms, chain_id, rules or Rules())
        try:
            await made._begin()
        except BaseException:
            await made.close()
            raise
        return made

    async def close(self) -> None:
        """Stop asking, and close the connections."""
        tasks = [each.asking for each in self._endpoints.values() if each.asking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._endpoints.values():
            await each.evm.close()

    @property
    def chain_id(self) -> int:
        """EIP-155 id of the chain that the endpoints were checked to serve."""
        return self._chain_id

    @property
    def reach(self) -> tuple[int, int]:
        """How many endpoints there are, and how many of them count now."""
        return len(self._endpoints), sum(each.record.counts for each in self._endpoints.values())

    async def block(self, at: int | Tag) -> Block | None:
        """The canonical block there, if all agree on it; for LATEST the one that all have reached, by the word of one of them."""
        if at is Tag.LATEST:
            return await self._head()
        number = at if not isinstance(at, Tag) else await self._tagged(at)
        if number is None:
            return None
        said = await self._everyone("block", lambda evm: evm.block(number))
        block = self._settled("block", agreement.same(f"block {number}", said))
        if block is not None:
            self._agreed = block
        return block

    async def _tagged(self, tag: Tag) -> int | None:
        said = await self._everyone("tag", lambda evm: evm.block(tag))
        found = self._settled("tag", agreement.tagged(f"{tag.value} block", said))
        return None if found is None else found.number

    async def _head(self) -> Block | None:
        said = await self._everyone("head", lambda evm: evm.block(Tag.LATEST))
        heads = {place: head for place, head in said.items() if head is not None}
        if len(heads) < len(said):
            raise EvmUnavailable("an endpoint has no latest block")
        now = asyncio.get_running_loop().time()
        for place, head in heads.items():
            self._endpoints[place].record = seen(self._endpoints[place].record, head.number, now)
        for place in standing_still(self._records(), now, self._rules):
            self._leave_out(self._endpoints[place], f"its head stands still at {heads.pop(place).number}, behind the others")
        self._say_behind(
            {place for place, record in self._records().items() if behind(record.height, self._records(), self._rules)}
        )
        return agreement.lowest(heads)

    def _say_behind(self, places: set[int]) -> None:
        waited_for = {place for place in places if self._endpoints[place].record.counts}
        for place in waited_for - self._waited_for:
            _log.warning("endpoint_waited_for", endpoint=place, height=self._endpoints[place].record.height)
        self._waited_for = waited_for

    async def nonce(self, address: str, at: int) -> int:
        """Number of transactions that the account had sent up to and with that block."""
        said = await self._everyone("nonce", lambda evm: evm.nonce(address, at))
        return self._settled("nonce", agreement.same(f"the nonce of {address} at block {at}", said))

    async def conditions(self, address: str) -> Conditions:
        """What must be known before the account's next transaction is signed."""
        said = await self._everyone("conditions", lambda evm: evm.conditions(address))
        return self._settled("conditions", agreement.conditions(said, self._rules.pending_apart_max))

    async def receipts(self, hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
        """Receipts by transaction hash; a hash that no endpoint has one for is missing."""
        if not hashes:
            return {}
        said = await self._everyone("receipts", lambda evm: evm.receipts(hashes))
        return self._settled("receipts", agreement.receipts(hashes, said))

    async def block_hashes(self, numbers: Collection[int]) -> Mapping[int, bytes]:
        """Hashes of the canonical blocks at these heights; a height that no endpoint has is missing."""
        if not numbers:
            return {}
        said = await self._everyone("hashes", lambda evm: evm.block_hashes(numbers))
        return self._settled("hashes", agreement.canonical(numbers, said))

    async def transactions_in(self, number: int) -> Sequence[SenderTransaction]:
        """Transactions of the canonical block at that height."""
        said = await self._everyone("transactions", lambda evm: evm.transactions_in(number))
        return self._settled("transactions", agreement.same(f"the transactions of block {number}", said))

    async def broadcast(self, raws: Sequence[bytes]) -> Sequence[Answer]:
        """Send bytes to every endpoint that counts; what they said of each together. What got no answer is UNCLEAR."""
        asked = self._counting()
        said = await asyncio.gather(*(self._sent(each, raws) for each in asked))
        clear = {each.place for each, answers in zip(asked, said, strict=True) if set(answers) != {Answer.UNCLEAR}}
        self._hold_to_account("broadcast", clear, {each.place: "bytes got no answer" for each in asked if each.place not in clear})
        return agreement.answers(said, len(raws))

    async def call(self, to: str, data: bytes, *, at: Block | int, sender: str | None = None, value: int = 0) -> bytes:
        """Result of a call at a block, by its hash where a block is given.

        Raises:
            CallReverted: it was executed and reverted.
        """

        async def called(evm: JsonRpcEvm) -> tuple[bool, bytes]:
            try:
                return True, await evm.call(to, data, at=at, sender=sender, value=value)
            except CallReverted as reverted:
                return False, reverted.revert_data

        place = at.number if isinstance(at, Block) else at
        said = await self._everyone("call", called)
        returned, result = self._settled("call", agreement.same(f"a call of {to} at block {place}", said))
        if not returned:
            raise CallReverted(result)
        return result

    async def ask(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told | None]:
        """What each call, by itself, would do at a block; None where an endpoint cannot tell."""
        said = await self._everyone("ask", lambda evm: evm.ask(questions, at=at))
        return [
            None
            if None in each
            else self._settled("ask", agreement.same(f"a question at block {at.number}", dict(zip(said, each, strict=True))))
            for each in zip(*said.values(), strict=True)
        ]

    async def rehearse(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told] | None:
        """What the calls would do one after the other on top of a block; None where an endpoint cannot tell."""
        said = await self._everyone("rehearse", lambda evm: evm.rehearse(questions, at=at))
        if any(each is None for each in said.values()):
            return None
        return self._settled("rehearse", agreement.same(f"a rehearsal on block {at.number}", said))

    async def logs(self, address: str, topics: Sequence[bytes | None], first: int, last: int) -> Sequence[PlacedLog]:
        """Logs of a contract in canonical blocks `first` to `last`, both included; topics by position, None for any."""
        said = await self._everyone("logs", lambda evm: evm.logs(address, topics, first, last))
        return self._settled("logs", agreement.same(f"the logs of {address} in blocks {first} to {last}", said))

    # -- asking ----------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        found = await asyncio.gather(*(_answer(each.evm.identify()) for each in self._endpoints.values()))
        said = dict(zip(self._endpoints, found, strict=True))
        for place, answer in said.items():
            if isinstance(answer, ChainMismatch):
                raise ChainMismatch(f"endpoint {place}: {answer}")
        identities = {place: answer for place, answer in said.items() if isinstance(answer, Identity)}
        if len(identities) < self._rules.agreement_min:
            silent = "; ".join(f"endpoint {place}: {answer}" for place, answer in said.items() if place not in identities)
            raise EvmUnavailable(f"{len(identities)} endpoints answer, {self._rules.agreement_min} must: {silent}")
        genesis = agreement.same("block 0", {place: each.genesis.hex() for place, each in identities.items()})
        if isinstance(genesis, Unagreed):
            raise ChainMismatch(genesis.finding)
        self._genesis = bytes.fromhex(genesis)
        now = asyncio.get_running_loop().time()
        for place, endpoint in self._endpoints.items():
            if place in identities:
                endpoint.record = seen(let_in(endpoint.record), identities[place].head.number, now)
            else:
                self._leave_out(endpoint, str(said[place]))

    async def _everyone(self, kind: str, question: Callable[[JsonRpcEvm], Awaitable[_T]]) -> dict[int, _T]:
        """What every endpoint that counts says, by its place.

        Raises:
            EvmUnavailable: fewer count than must, or one of them gave no answer.
        """
        asked = self._counting()
        if len(asked) < self._rules.agreement_min:
            raise EvmUnavailable(f"{len(asked)} of {len(self._endpoints)} endpoints count, {self._rules.agreement_min} must")
        answers = await asyncio.gather(*(self._asked(each, question) for each in asked))
        said = {each.place: answer for each, answer in zip(asked, answers, strict=True)}
        told: dict[int, _T] = {}
        silent: dict[int, str] = {}
        for place, answer in said.items():
            if isinstance(answer, ChainMismatch):
                self._leave_out(self._endpoints[place], str(answer), other_chain=True)
                silent[place] = str(answer)
            elif isinstance(answer, EvmUnavailable):
                silent[place] = str(answer)
            else:
                told[place] = answer
        self._hold_to_account(kind, told, silent)
        if silent:
            raise EvmUnavailable("; ".join(f"endpoint {place}: {error}" for place, error in silent.items()))
        return told

    async def _asked(
        self, endpoint: _Endpoint, question: Callable[[JsonRpcEvm], Awaitable[_T]]
    ) -> _T | EvmUnavailable | ChainMismatch:
        if endpoint.record.doubted:
            found = await self._identified(endpoint)
            if not isinstance(found, Identity):
                return found
        return await _answer(question(endpoint.evm))

    async def _sent(self, endpoint: _Endpoint, raws: Sequence[bytes]) -> Sequence[Answer]:
        said = await self._asked(endpoint, lambda evm: evm.broadcast(raws))
        return [Answer.UNCLEAR] * len(raws) if isinstance(said, EvmUnavailable | ChainMismatch) else said

    async def _identified(self, endpoint: _Endpoint) -> Identity | EvmUnavailable | ChainMismatch:
        """Which chain an endpoint serves, now that it answers again; it must have the blocks that the others agreed on."""
        found = await _answer(endpoint.evm.identify())
        if not isinstance(found, Identity):
            return found
        if found.genesis != self._genesis:
            return ChainMismatch(f"the endpoint's block 0 is 0x{found.genesis.hex()}, not 0x{self._genesis.hex()}")
        agreed, others = self._agreed, [each for each in self._counting() if each is not endpoint]
        # Alone it can contradict nobody: whether the chain itself went back is for those to notice who know what they concluded from it.
        if others and agreed is not None and agreed.number <= found.head.number:
            hashes = await _answer(endpoint.evm.block_hashes([agreed.number]))
            if not isinstance(hashes, Mapping):
                return hashes
            if hashes.get(agreed.number) != agreed.hash:
                return ChainMismatch(f"the endpoint has another block {agreed.number} than the others agreed on")
        if endpoint.record.counts:
            endpoint.record = let_in(endpoint.record)
        return found

    # -- who counts --------------------------------------------------------------------------------------------------------

    def _records(self) -> dict[int, Record]:
        return {place: each.record for place, each in self._endpoints.items()}

    def _counting(self) -> list[_Endpoint]:
        """The endpoints that count; those that do not are asked again where it is time for that."""
        now = asyncio.get_running_loop().time()
        for each in self._endpoints.values():
            if not each.record.counts and each.asking is None and now >= each.due:
                each.asking = asyncio.create_task(self._ask_again(each), name=f"chain.endpoint.{each.place}")
        return [each for each in self._endpoints.values() if each.record.counts]

    def _hold_to_account(self, kind: str, told: Collection[int], silent: Mapping[int, str]) -> None:
        """Note who answered. What nobody answered is nobody's fault, and leaves nobody out."""
        for place, error in silent.items():
            endpoint = self._endpoints[place]
            endpoint.record = failed(endpoint.record, kind, held=bool(told))
            if endpoint.record.counts and failing(endpoint.record):
                self._leave_out(endpoint, error)
        for place in told:
            self._endpoints[place].record = answered(self._endpoints[place].record, kind)

    def _leave_out(self, endpoint: _Endpoint, why: str, *, other_chain: bool = False) -> None:
        endpoint.record = left_out(endpoint.record)
        ENDPOINTS_OUT.labels(str(endpoint.place)).inc()
        endpoint.due = asyncio.get_running_loop().time() + back_off_seconds(
            endpoint.record.outages, self._rng, most=ASK_AGAIN_SECONDS_MAX
        )
        if other_chain:
            _log.error("endpoint_of_another_chain", endpoint=endpoint.place, why=why)
        else:
            _log.warning("endpoint_left_out", endpoint=endpoint.place, why=why, outages=endpoint.record.outages)

    async def _ask_again(self, endpoint: _Endpoint) -> None:
        try:
            found = await self._identified(endpoint)
            if isinstance(found, Identity) and behind(found.head.number, self._records(), self._rules):
                found = EvmUnavailable(f"its head {found.head.number} is still behind the others")
            if isinstance(found, Identity):
                now = asyncio.get_running_loop().time()
                endpoint.record = let_in(seen(endpoint.record, found.head.number, now))
                _log.info("endpoint_let_in", endpoint=endpoint.place, outages=endpoint.record.outages)
            else:
                self._leave_out(endpoint, str(found), other_chain=isinstance(found, ChainMismatch))
        finally:
            endpoint.asking = None

    def _settled(self, kind: str, said: _T | Unagreed) -> _T:
        """An answer, or that there is none: said when that begins and when it ends."""
        if not isinstance(said, Unagreed):
            if kind in self._findings:
                self._findings.remove(kind)
                _log.info("endpoints_agree", about=kind)
            return said
        if kind not in self._findings:
            self._findings.add(kind)
            (_log.error if said.contradiction else _log.info)("endpoints_disagree", about=kind, finding=said.finding)
        raise EvmUnavailable(said.finding)


async def _answer(asked: Awaitable[_T]) -> _T | EvmUnavailable | ChainMismatch:
    try:
        return await asked
    except (EvmUnavailable, ChainMismatch) as error:
        return error
    except NONSENSE as error:
        _log.error("endpoint_answered_nonsense", exc_info=True)
        return EvmUnavailable(f"the endpoint answered nonsense: {type(error).__name__}")
