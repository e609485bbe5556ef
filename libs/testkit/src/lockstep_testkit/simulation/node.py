"""A node of an EVM chain, which outlives every crash: blocks, a pool of transactions, and what the contracts hold after each block.

Blocks come by the clock. Until they are final they may be taken back: what was in them comes again, later, in another order, as another attempt under
the same nonce, or not at all. The pool has the rules of real ones: one transaction per account and nonce, replaced only by one that pays a tenth more on
both fees; what the next block does not pay for waits, and so does everything of the account behind it.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from lockstep_chain.machine import REPLACEMENT_PERCENT_MIN
from lockstep_chain.ports import Answer, Block, Fees, Receipt, Signed, Unsigned
from lockstep_testkit.simulation.chain_contracts import Circumstances, Contracts, Effect, State
from lockstep_testkit.simulation.loop import VirtualLoop
from lockstep_testkit.simulation.memory import EPOCH

#: Blocks on top of one that make it final; a reorganisation takes back that many at the most, and none that ever was final.
FINAL_DEPTH: Final = 8
BLOCK_SECONDS: Final = 0.25
#: States of older blocks are forgotten.
STATES_KEPT: Final = 64
GWEI: Final = 10**9
#: An account that has funds has so much, in wei.
PLENTY: Final = 10**30
#: A base fee rises or falls by an eighth from block to block at the most (EIP-1559).
_FEE_STEP: Final = 8
_HEADER: Final = struct.Struct(">Q42sQ42s32sQ16s16s")
_TAG_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction as a node reads it from its bytes."""

    hash: bytes
    sender: str
    nonce: int
    to: str
    data: bytes
    gas_limit: int
    fees: Fees

    @property
    def place(self) -> tuple[str, int]:
        """What only one transaction can have."""
        return self.sender, self.nonce


def read(raw: bytes) -> Sent:
    """A transaction from its bytes."""
    _, sender, nonce, to, _, gas_limit, max_fee, tip = _HEADER.unpack_from(raw)
    fees = Fees(int.from_bytes(max_fee, "big"), int.from_bytes(tip, "big"))
    data = raw[_HEADER.size : -_TAG_BYTES]
    return Sent(hashlib.sha256(raw).digest(), sender.decode(), nonce, to.decode(), data, gas_limit, fees)


class PlainSigner:
    """A `Signer` whose signatures cost next to nothing; as with a hardware module, the same transaction never gives the same bytes again."""

    def __init__(self, address: str, drawn: Iterator[int]) -> None:
        self._address = address
        #: What nonces of signatures are drawn from; one for all the incarnations of a process.
        self._drawn = drawn

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        return self._address

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        """Sign, in order."""
        return [self._sign(each) for each in transactions]

    def _sign(self, each: Unsigned) -> Signed:
        value, fees = each.value.to_bytes(32, "big"), each.fees
        max_fee, tip = fees.max_fee.to_bytes(16, "big"), fees.tip.to_bytes(16, "big")
        names = self._address.encode(), each.to.encode()
        unsigned = _HEADER.pack(each.chain_id, names[0], each.nonce, names[1], value, each.gas_limit, max_fee, tip) + each.data
        raw = unsigned + hashlib.sha256(b"signed %d" % next(self._drawn) + unsigned).digest()
        return Signed(hashlib.sha256(raw).digest(), raw)


@dataclass(slots=True)
class NodeTrouble:
    """What goes wrong on the chain and on the way to the node; changed while a simulation runs."""

    #: Share of the questions that never arrive, and of the answers.
    lost: float = 0.0
    #: Share of the questions that take time, and the longest.
    slow: float = 0.0
    slow_seconds_max: float = 0.0
    #: Share of the bytes that arrive again later, and how much later at the most.
    doubled: float = 0.0
    doubled_seconds_max: float = 20.0
    #: Share of the transactions that the pool forgets, that it takes into no block for a while, and that it refuses for want of funds.
    dropped: float = 0.0
    stuck: float = 0.0
    unfunded: float = 0.0
    #: Share of the transactions that the node says no block can ever hold.
    impossible: float = 0.0
    #: Share of the blocks after which some are taken back.
    reorganised: float = 0.0
    #: Share of the receipts that the node does not find, though they are there.
    unindexed: float = 0.0
    #: Share of the transactions that run out of gas, and of the batches that do so on their way.
    out_of_gas: float = 0.0
    #: No block is made.
    halted: bool = False
    #: The node answers nothing.
    down: bool = False
    #: What is answered is so many blocks old.
    lag: int = 0
    #: What base fees move towards.
    base_fee: int = GWEI
    #: The escrow's pauser refuses further prepares; the token pays some people nothing.
    paused: bool = False
    unpaid: frozenset[str] = frozenset()
    #: What was done, by kind.
    counts: dict[str, int] = field(default_factory=dict)

    def clear(self) -> None:
        """Let everything pass."""
        self.lost = self.slow = self.doubled = self.dropped = self.stuck = self.unfunded = self.impossible = 0.0
        self.reorganised = self.unindexed = self.out_of_gas = 0.0
        self.halted = self.down = self.paused = False
        self.lag, self.base_fee, self.unpaid = 0, GWEI, frozenset()

    def count(self, kind: str) -> None:
        """Note that something was done."""
        self.counts[kind] = self.counts.get(kind, 0) + 1


@dataclass(frozen=True, slots=True)
class Mined:
    """A block, and everything as it is after it."""

    header: Block
    transactions: tuple[Sent, ...]
    receipts: tuple[Receipt, ...]
    effects: tuple[Effect, ...]
    #: What the contracts hold, and how many transactions each account has sent.
    state: State
    nonces: dict[str, int]


class Node:
    """The chain, as its only node knows it."""

    def __init__(
        self, loop: VirtualLoop, chance: random.Random, contracts: Contracts, state: State, counts: dict[str, int]
    ) -> None:
        self.contracts: Final = contracts
        self.trouble: Final = NodeTrouble(counts=counts)
        self._loop = loop
        self._chance = chance
        genesis = Block(0, bytes(32), GWEI, self._clock())
        #: The canonical blocks; each one's number is its place.
        self.blocks: Final = [Mined(genesis, (), (), (), state, {})]
        #: The highest block that is final, for good.
        self.final_height = 0
        self._made = 0
        #: Where each transaction of the canonical chain is: number of the block, place in it.
        self._placed: dict[bytes, tuple[int, int]] = {}
        #: Transactions that wait, with the moment from which they may be taken into a block.
        self._pool: dict[tuple[str, int], tuple[Sent, float]] = {}
        #: Every attempt that ever arrived, by account and nonce.
        self._heard: dict[tuple[str, int], list[Sent]] = {}
        #: Transactions that came from somebody else who has an account's key.
        self.foreign: Final[set[bytes]] = set()

    def _clock(self) -> int:
        return int(EPOCH.timestamp() + self._loop.time())

    @property
    def head(self) -> Mined:
        """The last block."""
        return self.blocks[-1]

    @property
    def final(self) -> Mined:
        """The last final block."""
        return self.blocks[self.final_height]

    def final_blocks(self) -> Iterator[Mined]:
        """Every final block."""
        return iter(self.blocks[: self.final_height + 1])

    def receipt(self, transaction: bytes, upto: int) -> Receipt | None:
        """The receipt of a transaction in a block up to a height."""
        place = self._placed.get(transaction)
        return None if place is None or place[0] > upto else self.blocks[place[0]].receipts[place[1]]

    def pending_nonce(self, account: str, upto: int) -> int:
        """The account's next nonce, with what waits without a hole."""
        nonce = self.blocks[upto].nonces.get(account, 0)
        while (account, nonce) in self._pool:
            nonce += 1
        return nonce

    def balance(self) -> int:
        """What an account is said to have: enough, or nothing while funds are wanting."""
        return 0 if self._chance.random() < self.trouble.unfunded else PLENTY

    # -- the pool --------------------------------------------------------------------------------------------------------

    def submit(self, raw: bytes) -> Answer:
        """Take a transaction's bytes; what a node says of them."""
        sent, trouble = read(raw), self.trouble
        if sent.nonce < self.head.nonces.get(sent.sender, 0):
            return Answer.NONCE_USED
        if self._chance.random() < trouble.unfunded:
            trouble.count("transaction_unfunded")
            return Answer.UNFUNDED
        if sent.data and self._chance.random() < trouble.impossible:
            trouble.count("transaction_impossible")
            return Answer.IMPOSSIBLE
        held = self._pool.get(sent.place)
        if held is not None:
            if held[0].hash == sent.hash:
                return Answer.ACCEPTED
            if not _outbids(sent.fees, held[0].fees):
                return Answer.OUTBID
        if sent not in self._heard.setdefault(sent.place, []):
            self._heard[sent.place].append(sent)
        if self._chance.random() < trouble.dropped:
            # Said to be there, and forgotten, with what it replaced.
            trouble.count("transaction_dropped")
            self._pool.pop(sent.place, None)
            return Answer.ACCEPTED
        due = self._loop.time()
        if self._chance.random() < trouble.stuck:
            trouble.count("transaction_stuck")
            due += self._chance.random() * 20
        self._pool[sent.place] = sent, due
        return Answer.ACCEPTED

    def use_nonce(self, account: str) -> None:
        """Somebody else who has the account's key sends a transaction of their own under its next nonce, at any price."""
        nonce = self.head.nonces.get(account, 0)
        found = hashlib.sha256(f"foreign {account} {nonce}".encode()).digest()
        self.foreign.add(found)
        self._pool[account, nonce] = Sent(found, account, nonce, account, b"", 21_000, Fees(10**6 * GWEI, GWEI)), 0.0

    def forget(self) -> None:
        """The node starts again with an empty pool."""
        self._pool.clear()

    # -- blocks ------------------------------------------------------------------------------------------------------------

    def mine(self) -> None:
        """Make a block, perhaps instead of some that were there."""
        if self.trouble.halted:
            return
        if self.trouble.reorganised and self._chance.random() < self.trouble.reorganised:
            self._reorganise()
        self._append()

    def _reorganise(self) -> None:
        depth = min(self._chance.randint(0, FINAL_DEPTH), self.head.header.number - self.final_height)
        if not depth:
            return
        self.trouble.count("blocks_taken_back")
        back = [each for _ in range(depth) for each in self.blocks.pop().transactions]
        for each in back:
            del self._placed[each.hash]
            if self._chance.random() < self.trouble.dropped:
                continue
            # The other branch may have had another attempt, and it may have come in another order.
            again = self._chance.choice(self._heard.get(each.place) or [each])
            if each.place not in self._pool:
                self._pool[each.place] = again, self._loop.time() + self._chance.random() * self._chance.choice((0.0, 1.0, 5.0))
        for _ in range(self._chance.randint(0, depth)):
            self._append()

    def _append(self) -> None:
        above, trouble = self.head, self.trouble
        self._made += 1
        number, now = above.header.number + 1, max(above.header.timestamp, self._clock())
        step = max(1, above.header.base_fee // _FEE_STEP)
        base_fee = min(max(trouble.base_fee, above.header.base_fee - step), above.header.base_fee + step)
        header = Block(number, hashlib.sha256(self._made.to_bytes(8, "big")).digest(), base_fee, now)
        taken = self._taken(base_fee) if self._pool else []
        if not taken:
            self.blocks.append(Mined(header, (), (), (), above.state, above.nonces))
        else:
            self.blocks.append(self._executed(header, taken, above))
        self.final_height = max(self.final_height, number - FINAL_DEPTH)

    def _taken(self, base_fee: int) -> list[Sent]:
        """What the next block takes: of each account in the order of its nonces, the accounts in any."""
        accounts = list(dict.fromkeys(account for account, _ in self._pool))
        self._chance.shuffle(accounts)
        taken: list[Sent] = []
        for account in accounts:
            nonce = self.head.nonces.get(account, 0)
            while (waiting := self._pool.get((account, nonce))) is not None:
                sent, due = waiting
                if due > self._loop.time() or sent.fees.max_fee < base_fee:
                    break
                taken.append(sent)
                nonce += 1
        for place in [place for place in self._pool if place[1] < self.head.nonces.get(place[0], 0)]:
            del self._pool[place]
        return taken

    def _executed(self, header: Block, taken: Sequence[Sent], above: Mined) -> Mined:
        state, nonces, receipts, effects = above.state.copy(), dict(above.nonces), list[Receipt](), list[Effect]()
        for place, sent in enumerate(taken):
            nonces[sent.sender] = sent.nonce + 1
            self._pool.pop(sent.place, None)
            self._placed[sent.hash] = header.number, place
            price = min(sent.fees.max_fee, header.base_fee + sent.fees.tip)
            if sent.data and self._chance.random() < self.trouble.out_of_gas / 2:
                self.trouble.count("transaction_out_of_gas")
                failed = Receipt(sent.hash, header.number, header.hash, False, sent.gas_limit, price, ())
                receipts.append(failed)
                continue
            ended = self.contracts.execute(state, sent.sender, sent.to, sent.data, self._circumstances(header))
            whole = ended.reverted is None
            receipts.append(Receipt(sent.hash, header.number, header.hash, whole, sent.gas_limit // 2, price, ended.logs))
            effects.extend(ended.effects)
        return Mined(header, tuple(taken), tuple(receipts), tuple(effects), state, nonces)

    def _circumstances(self, header: Block) -> Circumstances:
        trouble, items = self.trouble, None
        if trouble.out_of_gas and self._chance.random() < trouble.out_of_gas:
            trouble.count("batch_out_of_gas")
            items = self._chance.randint(0, 1)
        return Circumstances(header.timestamp, trouble.paused, trouble.unpaid, items)


def _outbids(fees: Fees, held: Fees) -> bool:
    """Whether a pool replaces one transaction by another."""
    percent = 100 + REPLACEMENT_PERCENT_MIN
    return fees.max_fee * 100 >= held.max_fee * percent and fees.tip * 100 >= held.tip * percent
