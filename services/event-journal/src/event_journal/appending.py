"""What becomes of events that are to be appended, given where their plans' chains stand. Pure.

Events of a plan are numbered densely by their writer. The same event again is answered as before; a gap is answered with the number that the chain
expects; another event with a number or an id that is taken freezes the chain, since one of the two writers must be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from event_journal.chain import GENESIS, Entry, Event, check_event, link
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.signing import SigningKey


class Verdict(StrEnum):
    """What became of an event."""

    APPENDED = "APPENDED"
    GAP = "GAP"
    CONFLICT = "CONFLICT"
    SEALED = "SEALED"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a plan's chain stands."""

    #: Plan of the chain.
    plan_id: PlanId
    #: Entries so far.
    entry_count: int
    #: Hash of the last.
    head_hash: Digest
    #: Whether a closing entry ends it.
    sealed: bool
    #: Why nothing may be appended any more, or "".
    frozen: str


@dataclass(frozen=True, slots=True)
class Known:
    """An entry that stands already, as far as a repeat is compared with it."""

    #: Id of its event.
    event_id: str
    #: Its type.
    type: str
    #: SHA-256 of its payload.
    payload_hash: Digest
    #: Its hash.
    entry_hash: Digest


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one event."""

    #: How it stands.
    verdict: Verdict
    #: APPENDED: hash of the entry.
    entry_hash: Digest | None = None
    #: GAP: the number that the chain expects.
    expected_sequence: int = 0
    #: One sentence, when it was not appended.
    message: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    """Chains after a batch."""

    #: Answers, in the order of the events.
    answers: tuple[Answer, ...]
    #: New entries, in order.
    entries: tuple[Entry, ...]
    #: Heads that changed.
    heads: tuple[Head, ...]


def append(
    events: Sequence[Event], heads: Mapping[PlanId, Head], known: Mapping[tuple[PlanId, int], Known], key: SigningKey
) -> Appended:
    """The answers to a batch, the entries that it makes, and the heads that it moves."""
    now: dict[PlanId, Head] = dict(heads)
    fresh: dict[tuple[PlanId, int], Known] = {}
    answers: list[Answer] = []
    entries: list[Entry] = []
    for event in events:
        head = now.get(event.plan_id) or Head(event.plan_id, 0, GENESIS, sealed=False, frozen="")
        place = (event.plan_id, event.sequence)
        answer, entry, after = _append_one(event, head, fresh.get(place) or known.get(place), key)
        answers.append(answer)
        if entry is not None:
            entries.append(entry)
            fresh[place] = Known(event.event_id, event.type, sha256(event.payload), entry.entry_hash)
        if after != head:
            now[event.plan_id] = after
    changed = tuple(head for plan_id, head in now.items() if heads.get(plan_id) != head)
    return Appended(tuple(answers), tuple(entries), changed)


def _append_one(event: Event, head: Head, standing: Known | None, key: SigningKey) -> tuple[Answer, Entry | None, Head]:
    invalid = check_event(event)
    if invalid is not None:
        return Answer(Verdict.INVALID, message=str(invalid)), None, head
    if standing is not None:
        if standing.event_id == event.event_id and standing.type == event.type and standing.payload_hash == sha256(event.payload):
            return Answer(Verdict.APPENDED, standing.entry_hash), None, head
        why = f"another event stands at {event.sequence}"
        return Answer(Verdict.CONFLICT, message=why), None, head if head.sealed else replace(head, frozen=why)
    if head.frozen:
        return Answer(Verdict.CONFLICT, message=head.frozen), None, head
    if head.sealed:
        return Answer(Verdict.SEALED, message="the plan's chain is sealed"), None, head
    if event.sequence != head.entry_count + 1:
        return Answer(Verdict.GAP, expected_sequence=head.entry_count + 1, message="earlier events are missing"), None, head
    entry = link(event, head.head_hash, key)
    after = replace(head, entry_count=event.sequence, head_hash=entry.entry_hash)
    return Answer(Verdict.APPENDED, entry.entry_hash), entry, after
