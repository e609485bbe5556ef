"""Judging a root by what the registry says of it in a final block, never by a receipt alone. Pure.

Anchoring the same root again changes nothing, so a transaction whose end is not known, or that took no effect, is simply followed by another one. Only what
the registry holds against a root is an answer: a root's kind and size never change there.
"""

from __future__ import annotations

from typing import Final

from lockstep_contracts.notary import AnchorKind
from lockstep_kit.values import dataclass

#: What has to rest rests for so long at the least (`queue`).
RESTED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """The last transaction that carried a root."""

    #: From 1.
    attempt: int
    #: Whether it came to its end.
    settled: bool
    #: Name of the contract's error, or state of the transaction, when the root was skipped.
    skip_code: str
    #: The whole error as text.
    skip_detail: str
    #: Whether it is time for another one.
    rested: bool


@dataclass(frozen=True, slots=True)
class Stands:
    """The registry holds the root."""


@dataclass(frozen=True, slots=True)
class Again:
    """Send a transaction."""

    #: Why the last one was of no use; "" where there was none.
    why: str = ""


@dataclass(frozen=True, slots=True)
class Waits:
    """Its transaction is under way, or it is too early for another one."""


@dataclass(frozen=True, slots=True)
class Never:
    """The registry knows the root as something else: a person must look."""

    #: One sentence.
    why: str


def judge(kind: AnchorKind, size: int, found: tuple[AnchorKind, int], order: Order | None) -> Stands | Again | Waits | Never:
    """What the registry's word on a root, read in a final block, means for it."""
    if found == (kind, size):
        return Stands()
    known, leaves = found
    if known is not AnchorKind.NONE:
        return Never(f"the registry knows the root as {known.name} over {leaves} leaves, not as {kind.name} over {size}")
    if order is None:
        return Again()
    if not (order.settled and order.rested):
        return Waits()
    return Again(order.skip_detail or order.skip_code or "the transaction is final, and the registry does not hold the root")
