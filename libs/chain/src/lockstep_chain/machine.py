"""The life of an outbound transaction: one table of states, and one function that says what to do next. Pure.

Rules, in the order in which `judge` asks them; the order is what makes recovery safe after any crash:

1. Only a receipt of one of the transaction's own attempts, in the block that is canonical at its height, counts. At finality it settles the
   transaction, whatever the receipt says; before, it only marks it as mined, and nothing is reported.
2. A transaction that was mined and is no longer goes back to sent.
3. The account's nonce is used and no attempt has a receipt: wait until it is used at finality. Then somebody else used it, and a person
   reconciles (`Reconcile`). Never is the intent signed with another nonce.
4. Otherwise the same bytes are sent again, when nothing was heard of them for some blocks; or, when their fees have gone stale, other bytes with
   the same nonce, the same effect and higher fees. A replacement pays at least 10 % more on both fee fields, and never more than the ceiling.

What is read of the chain must be read in this order: head, nonces at given blocks, receipts, canonical hashes. A receipt that is read after the nonce
cannot be missing because the transaction was mined in between.

What is lost at the edge: what was settled stays settled, also when the chain reorganises below its own finality. `final` notices that, and everything stops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from lockstep_chain.ports import Answer, Block, Fees, Receipt, Tag
from lockstep_kit.fields import require
from lockstep_kit.forms import check_evm_address, check_text
from lockstep_kit.values import dataclass


class State(StrEnum):
    """Where an outbound transaction stands."""

    #: Accepted; has no nonce yet.
    QUEUED = "queued"
    #: Nonce, bytes and hash are stored; the node may or may not have them.
    SIGNED = "signed"
    #: A node has had the bytes.
    SENT = "sent"
    #: In a canonical block that is not final.
    MINED = "mined"
    #: In a final block, receipt status 1.
    FINAL = "final"
    #: In a final block, receipt status 0.
    REVERTED = "reverted"
    #: Its nonce was used up by our own empty transaction; it will never take effect.
    CANCELLED = "cancelled"
    #: Could never be signed; has no nonce.
    DEAD = "dead"
    #: Its nonce was used by a transaction that is not ours: a person reconciles.
    MANUAL = "manual"

    @property
    def in_flight(self) -> bool:
        """Whether it has a nonce and the chain has not settled it."""
        return self in IN_FLIGHT

    @property
    def settled(self) -> bool:
        """Whether nothing happens to it by itself any more."""
        return not TRANSITIONS[self]


#: From -> where to. The database enforces the same table by a trigger (`schema`).
TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.SIGNED, State.DEAD}),
    State.SIGNED: frozenset({State.SENT, State.MINED, State.FINAL, State.REVERTED, State.CANCELLED, State.MANUAL}),
    State.SENT: frozenset({State.MINED, State.FINAL, State.REVERTED, State.CANCELLED, State.MANUAL}),
    State.MINED: frozenset({State.SENT, State.FINAL, State.REVERTED, State.CANCELLED, State.MANUAL}),
    State.FINAL: frozenset(),
    State.REVERTED: frozenset(),
    State.CANCELLED: frozenset(),
    State.DEAD: frozenset(),
    State.MANUAL: frozenset(),
}

#: States in which the machine owes the transaction its attention.
IN_FLIGHT: Final = frozenset({State.SIGNED, State.SENT, State.MINED})


class AttemptKind(StrEnum):
    """Why bytes were signed."""

    #: The first time.
    SEND = "send"
    #: The same effect with higher fees.
    BUMP = "bump"
    #: An empty transaction to oneself, so that the nonce is used up and nothing takes effect.
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Intent:
    """What a service wants on the chain."""

    #: Names the intent; the same key with the same payload is the same transaction, for ever.
    idempotency_key: str
    #: EIP-55 address of the contract.
    to: str
    #: Calldata.
    data: bytes
    #: Gas that it may use; fixed by the caller, so that no node has to be asked.
    gas_limit: int
    #: Wei sent along.
    value: int = 0
    #: What it is for, in the service's words.
    purpose: str = ""
    #: Plan that it belongs to, or that its batch begins with.
    plan_id: str | None = None
    #: Leg that it belongs to, or that its batch begins with.
    leg_id: str | None = None
    #: W3C trace context of the call that caused it.
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What real networks accept; development nodes are more lenient, so we hold to it ourselves."""

    #: Gas of one transaction at the most (EIP-7825: 2^24).
    gas_limit_max: int = 2**24
    #: Calldata at the most; geth refuses transactions above 128 KiB as a whole.
    data_bytes_max: int = 127 * 1024

    def fit(self, data: bytes, gas_limit: int) -> bool:
        """Whether a call with this calldata and gas is within the limits."""
        return len(data) <= self.data_bytes_max and intrinsic_gas(data) <= gas_limit <= self.gas_limit_max


@dataclass(frozen=True, slots=True)
class Attempt:
    """Bytes that were signed for a transaction."""

    #: From 1.
    number: int
    #: Why.
    kind: AttemptKind
    #: Hash that they are known by.
    transaction_hash: bytes
    #: Their fees.
    fees: Fees
    #: Head when they were last sent; None: never, as far as is known.
    broadcast_block: int | None
    #: What the node last said of them; None: nothing yet.
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Outbound:
    """A transaction in flight, as stored."""

    #: SIGNED, SENT or MINED.
    state: State
    #: Its nonce.
    nonce: int
    #: Oldest first; never empty.
    attempts: tuple[Attempt, ...]
    #: MINED: which attempt, and in which block; None otherwise.
    mined: tuple[bytes, bytes] | None = None
    #: Whether somebody asked to have it cancelled.
    cancel_requested: bool = False


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was read of the chain, in the order of the module's docstring."""

    #: The latest block.
    head: Block
    #: Height up to which blocks are final; None: none is.
    final_number: int | None
    #: The account's nonce at the head.
    latest_nonce: int
    #: The account's nonce at `final_number`; 0 where nothing is final.
    final_nonce: int
    #: What a new transaction would offer now.
    suggested: Fees
    #: Receipts of attempts by transaction hash; asked for where the nonce was used at the head.
    receipts: Mapping[bytes, Receipt]
    #: Hash of the canonical block at each height that a receipt names.
    canonical: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient and how generous the machine is."""

    #: The same bytes are sent again after so many blocks without a receipt.
    resend_blocks: int = 3
    #: A replacement offers so much more, in percent.
    bump_percent: int = 25
    #: maxFeePerGas is never above this, in wei.
    max_fee_ceiling: int = 500 * 10**9
    #: Tip of a first attempt at the least, in wei.
    tip_min: int = 0
    #: A transaction is signed so often at the most.
    attempts_max: int = 32


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before the next block."""


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the last attempt's bytes again."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Sign another attempt with the same nonce, store it, then send it."""

    #: BUMP or CANCEL.
    kind: AttemptKind
    #: Its fees.
    fees: Fees


@dataclass(frozen=True, slots=True)
class Mine:
    """Note the block; report nothing."""

    #: What shows it.
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Settle:
    """It came to its end, at finality."""

    #: FINAL, REVERTED or CANCELLED.
    state: State
    #: What shows it.
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Reorganised:
    """It was mined and is no longer: back to sent."""


@dataclass(frozen=True, slots=True)
class Reconcile:
    """At finality its nonce is used by somebody else. Ask every endpoint again, gather evidence, hand over to a person."""


Action = Wait | Resend | Replace | Mine | Settle | Reorganised | Reconcile

#: A node refuses a replacement that pays less than this much more on either field (geth, Besu: 10 %).
REPLACEMENT_PERCENT_MIN: Final = 10


def judge(tx: Outbound, seen: Sighting, policy: Policy) -> Action:
    """What to do with a transaction in flight, given what was read of the chain."""
    receipt = _own_receipt(tx, seen)
    if receipt is not None:
        if seen.final_number is not None and receipt.block_number <= seen.final_number:
            return Settle(_outcome(tx, receipt), receipt)
        known = tx.state is State.MINED and tx.mined == (receipt.transaction_hash, receipt.block_hash)
        return Wait() if known else Mine(receipt)
    if tx.state is State.MINED:
        return Reorganised()
    if seen.latest_nonce > tx.nonce:
        return Reconcile() if seen.final_nonce > tx.nonce else Wait()
    return _deliver(tx, seen, policy)


def _own_receipt(tx: Outbound, seen: Sighting) -> Receipt | None:
    for attempt in tx.attempts:
        receipt = seen.receipts.get(attempt.transaction_hash)
        if receipt is not None and seen.canonical.get(receipt.block_number) == receipt.block_hash:
            return receipt
    return None


def _outcome(tx: Outbound, receipt: Receipt) -> State:
    mined = next(attempt for attempt in tx.attempts if attempt.transaction_hash == receipt.transaction_hash)
    if mined.kind is AttemptKind.CANCEL:
        return State.CANCELLED
    return State.FINAL if receipt.succeeded else State.REVERTED


def _deliver(tx: Outbound, seen: Sighting, policy: Policy) -> Action:
    """What to do with bytes whose nonce is free."""
    last = tx.attempts[-1]
    if last.kind is not AttemptKind.CANCEL and (tx.cancel_requested or last.answer is Answer.IMPOSSIBLE):
        return _replace(tx, AttemptKind.CANCEL, seen, policy)
    if last.answer is None or last.answer is Answer.UNCLEAR or last.broadcast_block is None:
        return Resend()
    kind = AttemptKind.CANCEL if last.kind is AttemptKind.CANCEL else AttemptKind.BUMP
    blocks = seen.head.number - last.broadcast_block
    if last.answer is Answer.OUTBID or (last.answer is Answer.UNDERPRICED and _stale(last.fees, seen)):
        return _replace(tx, kind, seen, policy)
    if last.answer in (Answer.UNDERPRICED, Answer.UNFUNDED):
        return Resend() if blocks >= 1 else Wait()
    if blocks < policy.resend_blocks:
        return Wait()
    # Only the lowest nonce can be stuck by its own fees; the others wait for it.
    if tx.nonce == seen.latest_nonce and _stale(last.fees, seen):
        return _replace(tx, kind, seen, policy)
    return Resend()


def _stale(fees: Fees, seen: Sighting) -> bool:
    return seen.head.base_fee > fees.max_fee or seen.suggested.tip > fees.tip


def _replace(tx: Outbound, kind: AttemptKind, seen: Sighting, policy: Policy) -> Action:
    last = tx.attempts[-1]
    fees = replacement_fees(last.fees, seen.suggested, policy)
    if fees is not None and len(tx.attempts) < policy.attempts_max:
        return Replace(kind, fees)
    waited = last.broadcast_block is None or seen.head.number - last.broadcast_block >= 1
    return Resend() if waited else Wait()


def replacement_fees(last: Fees, suggested: Fees, policy: Policy) -> Fees | None:
    """Fees that replace others; None if the ceiling does not leave room for what nodes want."""
    max_fee = min(max(_raised(last.max_fee, policy.bump_percent), suggested.max_fee), policy.max_fee_ceiling)
    tip = min(max(_raised(last.tip, policy.bump_percent), suggested.tip), max_fee)
    if max_fee < _raised(last.max_fee, REPLACEMENT_PERCENT_MIN) or tip < _raised(last.tip, REPLACEMENT_PERCENT_MIN):
        return None
    return Fees(max_fee, tip)


def _raised(wei: int, percent: int) -> int:
    # At least one wei: on a network without fees ten percent of nothing would replace nothing.
    return max(-(-wei * (100 + percent) // 100), wei + 1)


def first_fees(base_fee: int, tip: int, policy: Policy) -> Fees | None:
    """Fees of a first attempt: two base fees and the tip; None while the ceiling does not even reach the next block."""
    tip = max(tip, policy.tip_min)
    if base_fee + tip > policy.max_fee_ceiling:
        return None
    return Fees(min(2 * base_fee + tip, policy.max_fee_ceiling), tip)


@dataclass(frozen=True, slots=True)
class ByTag:
    """The chain itself says which blocks are final."""

    #: FINALIZED, or SAFE where that is enough.
    tag: Tag


@dataclass(frozen=True, slots=True)
class ByDepth:
    """A block is final under so many others; 0 where a block is final at once (QBFT)."""

    #: Blocks above it.
    blocks: int


Finality = ByTag | ByDepth


def final_number(finality: Finality, head: int, tagged: int | None) -> int | None:
    """Height up to which blocks are final; None: none is yet.

    Args:
        finality: the chain's rule.
        head: height of the latest block.
        tagged: height of the block with the rule's tag; None when there is none.
    """
    match finality:
        case ByTag():
            return None if tagged is None else min(tagged, head)
        case ByDepth(blocks):
            return head - blocks if head >= blocks else None


def check_intent(intent: Intent, limits: Limits) -> None:
    """Refuse what no network would ever take.

    Raises:
        FieldInvalid: a field breaks a rule; it names both.
    """
    check_text(intent.idempotency_key, "idempotency_key", length_max=200)
    check_text(intent.purpose, "purpose", length_max=64, empty=True)
    check_evm_address(intent.to, "to")
    require(0 <= intent.value < 2**256, "value", "must be an unsigned 256-bit number of wei")
    require(len(intent.data) <= limits.data_bytes_max, "data", f"must have at most {limits.data_bytes_max} bytes")
    least = intrinsic_gas(intent.data)
    require(least <= intent.gas_limit <= limits.gas_limit_max, "gas_limit", f"must be from {least} to {limits.gas_limit_max}")


def intrinsic_gas(data: bytes) -> int:
    """Gas that a call with this calldata needs before anything is executed (EIP-2028, floor of EIP-7623)."""
    zeros = data.count(0)
    tokens = zeros + 4 * (len(data) - zeros)
    return 21_000 + max(4 * tokens, 10 * tokens)


def payload_hash(chain_id: int, intent: Intent) -> bytes:
    """SHA-256 over what an intent does: chain, recipient, value, calldata.

    Gas limit, purpose and references are not among it: a release that measures gas anew still means the same by the same key.
    """
    parts = (chain_id.to_bytes(32, "big"), bytes.fromhex(intent.to[2:]), intent.value.to_bytes(32, "big"), intent.data)
    return hashlib.sha256(b"lockstep/evm-intent/v1" + b"".join(parts)).digest()
