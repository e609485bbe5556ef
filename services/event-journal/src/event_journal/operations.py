"""When the journal's leg of a plan is done, and with what. Pure.

Prepare: the plan's chain stands, begins with this very plan, and verifies: YES; it does not verify: NO; it is not there yet: wait.
Commit and Abort: once every entry before the closing one stands, the journal writes `plan.closed` itself and seals the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from event_journal.appending import Head, against_head
from event_journal.chain import CLOSED, JOURNAL_ACTOR, Entry, Event, created_digest, link, verify
from lockstep_kit.canonical import canonical
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import PlanId, journal_event_id
from lockstep_kit.journal_payloads import VERSION
from lockstep_kit.key_history import HistoryFinding, KeyHistory
from lockstep_kit.participant.ports import Capabilities, Closing, Completion, LegWork
from lockstep_kit.registry import Registry
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import JournalEvidence, Promise, PromiseKind, Refusal
from lockstep_kit.values import dataclass, replace

CAPABILITIES: Final = Capabilities(leg_kinds=("journal",), promise_kind=PromiseKind.GUARANTEED, promise_max=None)


@dataclass(frozen=True, slots=True)
class Waits:
    """The leg waits for entries."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """The leg cannot be done as ordered; a person must look."""

    #: One sentence.
    why: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """The leg is done by sealing the chain with this entry."""

    #: The closing entry.
    entry: Entry
    #: The chain behind it.
    head: Head
    #: What is found of the leg.
    completion: Completion


def judge_prepare(
    work: LegWork, chain: Sequence[Entry], head: Head, registry: Registry, keys: KeyHistory | HistoryFinding
) -> Completion | Waits:
    """Vote on a plan whose chain stands."""
    if head.frozen:
        return _no(work, "JOURNAL_CHAIN_FROZEN", head.frozen)
    if not head.entry_count:
        return Waits()
    if not chain:
        return _no(work, "JOURNAL_CHAIN_INVALID", f"the chain is empty, its head says {head.entry_count}")
    if chain[0].erased:
        # Only what is sealed is erased.
        return _no(work, "JOURNAL_CHAIN_SEALED", "the plan's chain is sealed, and its payloads were erased")
    if created_digest(chain[0]) != work.binding.header.digest.hex():
        return _no(work, "JOURNAL_PLAN_DIFFERS", "the chain was opened for another plan with this id")
    found = against_head(verify(chain, registry, keys), head)
    if not found.valid:
        return _no(work, "JOURNAL_CHAIN_INVALID", found.findings[0].message)
    if found.sealed:
        return _no(work, "JOURNAL_CHAIN_SEALED", "the plan's chain is sealed")
    evidence = JournalEvidence(found.entry_count, found.head_hash, sealed=False)
    return Completion(
        work.plan_id, work.leg_id, Finding.VOTED_YES, promise=Promise(PromiseKind.GUARANTEED, expires_at=None, evidence=evidence)
    )


def _no(work: LegWork, reason: str, detail: str) -> Completion:
    return Completion(work.plan_id, work.leg_id, Finding.VOTED_NO, refusal=Refusal(reason, detail=detail))


def judge_closing(work: LegWork, head: Head, key: SigningKey, now: datetime) -> Completion | Sealed | Waits | Stuck:
    """Seal a plan's chain as ordered."""
    if work.closing is None:
        return Stuck("the order to close names no closing entry")
    if head.sealed:
        return _closed(work, head)
    if head.frozen:
        return Stuck(f"the chain is frozen: {head.frozen}")
    if work.closing.journal_sequence == 1:
        return Stuck("the closing entry was ordered at 1, but a chain begins with its plan")
    if head.entry_count + 1 < work.closing.journal_sequence:
        return Waits()
    if head.entry_count + 1 > work.closing.journal_sequence:
        return Stuck(
            f"the closing entry was ordered at {work.closing.journal_sequence}, but the chain has {head.entry_count} entries"
        )
    entry = link(closing_event(work.plan_id, work.closing, head, now), head.head_hash, key)
    after = replace(head, entry_count=work.closing.journal_sequence, head_hash=entry.entry_hash, sealed=True)
    return Sealed(entry, after, _closed(work, after))


def _closed(work: LegWork, head: Head) -> Completion:
    finding = Finding.EXECUTED if work.phase is Phase.COMMITTING else Finding.RELEASED
    return Completion(work.plan_id, work.leg_id, finding, evidence=JournalEvidence(head.entry_count, head.head_hash, sealed=True))


def closing_event(plan_id: PlanId, closing: Closing, head: Head, now: datetime) -> Event:
    """The seal: what the chain holds, and how the plan ended."""
    payload = canonical(
        {
            "version": VERSION,
            "outcome": closing.outcome.value,
            "evidence_digest": closing.evidence_digest.hex(),
            "transition": {
                "transition_no": closing.transition_no,
                "from": closing.from_state,
                "to": "CLOSED",
            },
            "entry_count": head.entry_count,
            "head_hash": head.head_hash.hex(),
        }
    )
    return Event(
        plan_id=plan_id,
        sequence=closing.journal_sequence,
        event_id=journal_event_id(plan_id, closing.journal_sequence),
        type=CLOSED,
        actor=JOURNAL_ACTOR,
        actor_role="journal",
        event_time=now,
        payload=payload,
    )
