"""Judging a leg whose effect is an entry of a contract: by the entry's status in a final block, never by a receipt alone. Pure.

A participant brings a table keyed on (phase, status of the entry). What a table says is one of: found (with the finding), try again, wait, or stuck.
A transaction of ours that is final and left the entry as it was, was skipped for a reason; a phase that can be tried again is. A transaction whose
nonce somebody else used is neither: nobody knows yet what became of the account, so it is never an answer and never sent anew; a person looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from lockstep_chain.machine import State
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.statements import ChainEvidence, Promise, PromiseKind, Refusal
from lockstep_kit.values import dataclass

#: A leg is sent this often at the most; then a person looks.
ATTEMPTS_MAX: Final = 5
#: `Order.skip_code` of a transaction whose nonce was used by one that is not ours.
MANUAL: Final = "MANUAL"
#: Of one that could never be signed, and of one that reverts whenever it is tried: another one would fare no better.
DEAD: Final = "DEAD"
REVERTED: Final = "REVERTED"
#: Of one that reverted for a reason that may be gone, such as the gas that a block left it.
REVERTED_ONCE: Final = "REVERTED_ONCE"


class Unmoved(StrEnum):
    """What it means that the entry has not the status that the phase is after."""

    #: The transaction, once final, was skipped for good.
    REFUSES = "REFUSES"
    #: Send another transaction, once the last one is final.
    AGAIN = "AGAIN"
    #: Nothing that happens by itself leads from here to there.
    STUCK = "STUCK"


@dataclass(frozen=True, slots=True)
class Rules:
    """How one kind of entry is judged."""

    #: (phase, status) -> what it means.
    table: Mapping[tuple[Phase, str], Finding | Unmoved]
    #: Reason of docs/errors.md for each phase that can be refused.
    reasons: Mapping[Phase, str]
    #: Errors that say nothing about the leg itself, such as a batch that ran out of gas before its turn came.
    passing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry was read."""

    #: CAIP-2.
    chain: str
    #: EIP-55 address of the contract.
    contract: str
    #: Block whose state was read; final.
    block_number: int
    #: Its hash.
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """The last transaction that carried the leg in this phase."""

    #: From 1.
    attempt: int
    #: Whether it is final, or will never be.
    settled: bool
    #: Its hash, once known; b"" before.
    transaction_hash: bytes
    #: Name of the contract's error, or state of the transaction, when the leg was skipped.
    skip_code: str
    #: The whole error as text.
    skip_detail: str


@dataclass(frozen=True, slots=True)
class Again:
    """Send another transaction."""

    #: One sentence for a person, who is told at once when the last one was a dead letter; or "".
    why: str = ""


@dataclass(frozen=True, slots=True)
class Releases:
    """Nothing is promised: end what is held, and say NO once it is ended."""

    #: One sentence.
    why: str


@dataclass(frozen=True, slots=True)
class Waits:
    """Nothing can be said yet."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A person must look."""

    #: One sentence.
    why: str


def judge(
    work: LegWork, key: bytes, status: str, place: Place, order: Order | None, rules: Rules, unpayable: str = ""
) -> Completion | Again | Releases | Waits | Stuck:
    """What a status, read in a final block, says about a leg; `unpayable` says why what is held there could not be paid out."""
    told = rules.table.get((work.phase, status), Unmoved.STUCK)
    evidence = ChainEvidence(
        chain=place.chain,
        contract=place.contract,
        entry_key=key,
        entry_status=status,
        # A transaction that skipped the leg shows nothing of what stands there.
        transaction_hash=order.transaction_hash if order is not None and not order.skip_code else b"",
        block_number=place.block_number,
        block_hash=place.block_hash,
    )
    if told is Finding.VOTED_YES and unpayable:
        if order is not None and order.attempt >= ATTEMPTS_MAX:
            return Stuck(f"{unpayable}, and {order.attempt} transactions left it held")
        return Releases(unpayable)
    if isinstance(told, Finding):
        return _found(work, told, evidence, order, rules)
    if told is Unmoved.STUCK:
        return Stuck(f"the contract says {status} while the leg is {work.phase}")
    if order is None:
        return Again()
    if not order.settled:
        return Waits()
    if order.skip_code == MANUAL:
        return Stuck(f"the contract says {status}; the nonce of the leg's transaction was used by another one: {order.skip_detail}")
    if _refuses(work.phase, told, order.skip_code, rules):
        return Completion(work.plan_id, work.leg_id, _REFUSALS[work.phase], refusal=_refusal(work, order, rules))
    if order.attempt >= ATTEMPTS_MAX:
        return Stuck(f"{order.attempt} transactions left the contract at {status}: {order.skip_detail or 'no reason was given'}")
    if order.skip_code in (DEAD, REVERTED):
        return Again(f"the leg's transaction is a dead letter, and is sent anew: {order.skip_detail or order.skip_code}")
    return Again()


def promised(phase: Phase, status: str, rules: Rules) -> bool:
    """Whether a leg would be promised for what is held now. What is executed already was promised and paid out: it is not asked for again."""
    executed = rules.table.get((Phase.COMMITTING, status)) is Finding.EXECUTED
    return rules.table.get((phase, status)) is Finding.VOTED_YES and not executed


def failure_code(state: State, evidence: Mapping[str, Any]) -> str:
    """`Order.skip_code` of a transaction that came to its end without taking effect."""
    if state is State.REVERTED and not evidence.get("revert_data"):
        return REVERTED_ONCE
    return state.value.upper()


def _refuses(phase: Phase, told: Unmoved, code: str, rules: Rules) -> bool:
    """Whether a leg that was not moved, for that reason, is refused at once."""
    if told is Unmoved.REFUSES:
        return bool(code) and code not in rules.passing
    # Nothing is promised yet, or nothing is taken back: a dead letter is told, not tried again.
    return phase in (Phase.PREPARING, Phase.REVERSING) and code in (DEAD, REVERTED)


_REFUSALS: Final = {
    Phase.PREPARING: Finding.VOTED_NO,
    Phase.COMMITTING: Finding.REFUSED,
    Phase.REVERSING: Finding.REVERSAL_REFUSED,
}


def _found(work: LegWork, finding: Finding, evidence: ChainEvidence, order: Order | None, rules: Rules) -> Completion:
    if finding is Finding.VOTED_YES:
        promise = Promise(PromiseKind.GUARANTEED, expires_at=None, evidence=evidence)
        return Completion(work.plan_id, work.leg_id, finding, promise=promise)
    if finding in (Finding.VOTED_NO, Finding.REFUSED):
        refusal = _refusal(work, order, rules) if order is not None and order.skip_code else None
        refusal = refusal or Refusal(rules.reasons[work.phase], evidence.entry_status, f"the contract says {evidence.entry_status}")
        return Completion(work.plan_id, work.leg_id, finding, refusal=refusal)
    return Completion(work.plan_id, work.leg_id, finding, evidence=evidence)


def _refusal(work: LegWork, order: Order, rules: Rules) -> Refusal:
    return Refusal(rules.reasons[work.phase], order.skip_code, order.skip_detail)
