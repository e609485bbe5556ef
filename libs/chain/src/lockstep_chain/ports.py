"""What the transaction machine needs from outside: a chain and a signer; and the values that pass between. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from lockstep_kit.values import dataclass


class EvmUnavailable(Exception):
    """The chain gave no answer that anything may be concluded from; wait and ask again."""


class SignerUnavailable(Exception):
    """The account's key store gave no signature; nothing was stored, and nothing sent: wait and ask again."""


class ChainMismatch(Exception):
    """The endpoint serves another chain than the one configured, or one that this machine cannot work with; nothing may be sent."""


class CallReverted(Exception):
    """A call was executed and reverted.

    Attributes:
        revert_data: what the contract returned: selector and arguments of its error; b"" when it gave none.
    """

    def __init__(self, revert_data: bytes) -> None:
        super().__init__(f"the call reverted with {revert_data.hex() or 'no reason'}")
        self.revert_data = revert_data


class Tag(StrEnum):
    """Names of blocks (execution-apis, "Block tag")."""

    LATEST = "latest"
    SAFE = "safe"
    FINALIZED = "finalized"


class Answer(StrEnum):
    """What a node said of bytes that it was sent. No answer proves that a transaction will, or will not, be mined."""

    #: It has them, now or already before.
    ACCEPTED = "accepted"
    #: The nonce is used: by these very bytes, by another attempt, or by somebody else. Never an answer by itself.
    NONCE_USED = "nonce_used"
    #: The fee is below what the next block asks.
    UNDERPRICED = "underpriced"
    #: Another transaction of this nonce is in the pool and this one does not pay enough more.
    OUTBID = "outbid"
    #: The account cannot pay value and gas.
    UNFUNDED = "unfunded"
    #: No block of this chain can ever hold these bytes.
    IMPOSSIBLE = "impossible"
    #: Anything else, a lost connection among it.
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Fees:
    """Fees of one attempt, in wei per unit of gas (EIP-1559)."""

    #: maxFeePerGas.
    max_fee: int
    #: maxPriorityFeePerGas; at most `max_fee`.
    tip: int


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header, as far as it matters here."""

    #: Height.
    number: int
    #: Hash (32 bytes).
    hash: bytes
    #: baseFeePerGas in wei.
    base_fee: int
    #: Seconds since 1970, as the block says.
    timestamp: int


@dataclass(frozen=True, slots=True)
class Log:
    """One log of a receipt."""

    #: EIP-55 address of the contract that wrote it.
    address: str
    #: Its topics (32 bytes each).
    topics: tuple[bytes, ...]
    #: Its data.
    data: bytes


@dataclass(frozen=True, slots=True)
class PlacedLog:
    """A log, and where it stands."""

    #: What was logged.
    log: Log
    #: Height of its block.
    block_number: int
    #: Hash of its block.
    block_hash: bytes
    #: Transaction that wrote it.
    transaction_hash: bytes
    #: Position in the block.
    index: int


@dataclass(frozen=True, slots=True)
class Question:
    """A call that is put to a node alone: it changes nothing."""

    #: EIP-55 address of the contract.
    to: str
    #: Calldata.
    data: bytes
    #: Who is supposed to call.
    sender: str
    #: Gas that the call may use.
    gas_limit: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a node says that a call would do."""

    #: Whether it would succeed.
    succeeded: bool
    #: What it would return, or revert with.
    output: bytes
    #: What it would log; none where a call is asked by itself.
    logs: tuple[Log, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction, in the block that the receipt names."""

    #: Hash of the transaction.
    transaction_hash: bytes
    #: Height of the block.
    block_number: int
    #: Hash of the block; counts only if this is the canonical block at that height.
    block_hash: bytes
    #: Receipt status 1. Says nothing about the items of a batch.
    succeeded: bool
    #: Gas used.
    gas_used: int
    #: Wei paid per unit of gas.
    effective_gas_price: int
    #: Its logs, in order.
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must be known before an account's next transaction is signed; read in one round trip."""

    #: The account's next nonce, its transactions in the pool counted.
    pending_nonce: int
    #: The latest block.
    head: Block
    #: What the node suggests as tip, in wei.
    tip: int
    #: What the account has at the head, in wei.
    balance: int


@dataclass(frozen=True, slots=True)
class SenderTransaction:
    """A transaction in a block: who sent it."""

    #: Its hash.
    hash: bytes
    #: EIP-55 address.
    sender: str
    #: Its nonce.
    nonce: int


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A transaction of type 2 (EIP-1559) before it is signed."""

    #: Chain that it is for (EIP-155).
    chain_id: int
    #: Nonce of the signer's account.
    nonce: int
    #: EIP-55 address of the recipient.
    to: str
    #: Wei sent along.
    value: int
    #: Calldata.
    data: bytes
    #: Gas that it may use.
    gas_limit: int
    #: Fees.
    fees: Fees


@dataclass(frozen=True, slots=True)
class Signed:
    """Bytes ready to be sent, and the hash they are known by."""

    #: Hash of the transaction (32 bytes).
    hash: bytes
    #: What eth_sendRawTransaction takes.
    raw: bytes


class Evm(Protocol):
    """One chain. Every method raises EvmUnavailable when there is no answer to conclude from."""

    @property
    def chain_id(self) -> int:
        """EIP-155 id of the chain that the endpoint was checked to serve."""
        ...

    @property
    def reach(self) -> tuple[int, int]:
        """How many endpoints there are, and how many of them count now."""
        ...

    async def block(self, at: int | Tag) -> Block | None:
        """The canonical block there; None when there is none (yet)."""
        ...

    async def nonce(self, address: str, at: int) -> int:
        """Number of transactions that the account had sent up to and with that block."""
        ...

    async def conditions(self, address: str) -> Conditions:
        """What must be known before the account's next transaction is signed."""
        ...

    async def receipts(self, hashes: Sequence[bytes]) -> Mapping[bytes, Receipt]:
        """Receipts by transaction hash; a hash without one is missing."""
        ...

    async def block_hashes(self, numbers: Collection[int]) -> Mapping[int, bytes]:
        """Hashes of the canonical blocks at these heights; a height without one is missing."""
        ...

    async def transactions_in(self, number: int) -> Sequence[SenderTransaction]:
        """Transactions of the canonical block at that height."""
        ...

    async def broadcast(self, raws: Sequence[bytes]) -> Sequence[Answer]:
        """Send bytes, in this order, in one round trip where the node allows; what it said of each.

        Never raises EvmUnavailable: what got no answer is UNCLEAR, since it may have arrived.
        """
        ...

    async def call(self, to: str, data: bytes, *, at: Block | int, sender: str | None = None, value: int = 0) -> bytes:
        """Result of a call at a block; by hash where a block is given, so that a reorganisation cannot change what is read.

        Raises:
            CallReverted: it was executed and reverted.
        """
        ...

    async def ask(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told | None]:
        """What each call, by itself, would do at a block (eth_call); None where the node cannot tell."""
        ...

    async def rehearse(self, questions: Sequence[Question], *, at: Block) -> Sequence[Told] | None:
        """What the calls would do one after the other in a block on top of this one (eth_simulateV1); None where the node cannot tell."""
        ...

    async def logs(self, address: str, topics: Sequence[bytes | None], first: int, last: int) -> Sequence[PlacedLog]:
        """Logs of a contract in canonical blocks `first` to `last`, both included; topics by position, None for any."""
        ...


class Signer(Protocol):
    """Holds one account's key, and never shows it."""

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        ...

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        """Sign, in order. The same transaction signed twice may give other bytes: store what is signed before it is sent.

        Raises:
            SignerUnavailable: the key store gives no signature now.
        """
        ...
