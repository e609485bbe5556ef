"""How much of the queue an account may take. Pure.

What was taken has a nonce of the account, and is that account's for ever: what stands still holds up everything behind it. So an account takes nothing that it
cannot pay for, and nothing at all while its own transactions stand still; what it leaves is there for every other account.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockstep_chain.ports import Fees
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Burden:
    """What an account has signed and not mined."""

    #: So many transactions.
    unmined: int
    #: What they cost at the most, in wei.
    wei_max: int


def room(burden: Burden, *, next_nonce: int, pending_nonce: int, unmined_max: int, batch_max: int) -> int:
    """How many queued transactions an account may take, as far as its nonces go.

    Args:
        burden: what it has signed and not mined.
        next_nonce: the next nonce that it gives, by the database.
        pending_nonce: its next nonce by the node, the pool counted.
        unmined_max: so many unmined at the most.
        batch_max: so many together at the most.
    """
    # Nonces that neither the node nor we have a transaction for: a hole, which is filled once something waits above it. One is enough for that.
    if pending_nonce + burden.unmined < next_nonce:
        unmined_max = 1
    return max(0, min(unmined_max - burden.unmined, batch_max))


def cost(gas_limit: int, value: int, fees: Fees) -> int:
    """Wei that a transaction takes at the most; nodes want the account to have them before they take it."""
    return gas_limit * fees.max_fee + value


def payable(costs: Sequence[int], wei: int) -> int:
    """How many of the first transactions an account with so much can pay for."""
    for count, each in enumerate(costs):
        wei -= each
        if wei < 0:
            return count
    return len(costs)


@dataclass(frozen=True, slots=True)
class Standstill:
    """A nonce at which an account stands while transactions wait to be mined."""

    #: The account's nonce at the head.
    nonce: int
    #: Height of the head at which it was first seen there.
    since: int

    def lasts(self, head: int, blocks: int) -> bool:
        """Whether it has stood there for so many blocks."""
        return head - self.since >= blocks


def standstill(before: Standstill | None, *, waiting: bool, nonce: int, head: int) -> Standstill | None:
    """Where an account stands, given where it stood; None where nothing waits to be mined."""
    if not waiting:
        return None
    if before is not None and before.nonce == nonce:
        return before
    return Standstill(nonce, head)
