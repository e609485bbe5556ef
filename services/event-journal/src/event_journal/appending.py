"""What becomes of events that are to be appended, given where their plans' chains stand. Pure.

Events of a plan are numbered densely by their writer. The same event again is answered as before; a gap is answered with the number that the chain
expects; another event with a number that is taken freezes the chain, since one of the two writers must be wrong. What a writer sent under an
epoch that another one has ended is not looked at, however late it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Final

from event_journal.chain import GENESIS, Entry, Event, Finding, Verification, check_document, check_event, link
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.signing import SigningKey
from lockstep_kit.values import dataclass, replace

#: Of a chain to which nothing was ever sent.
UNFENCED: Final = Epoch(0, 0)


class Verdict(StrEnum):
    """What became of an event."""

    APPENDED = "APPENDED"
    GAP = "GAP"
    CONFLICT = "CONFLICT"
    SEALED = "SEALED"
    INVALID = "INVALID"
    STALE = "STALE"


@dataclass(frozen=True, slots=True)
class Submission:
    """An event as it was sent, held against the rules of form once, before anything is locked."""

    #: What happened.
    event: Event
    #: Epoch of the plan under which its writer sent it.
    epoch: Epoch
    #: What is wrong with its form; None: nothing. Such an event is not even looked for: its texts may be such that the database refuses them.
    malformed: FieldInvalid | None = field(init=False)
    #: What is wrong with what its payload holds; None: nothing.
    invalid: FieldInvalid | None = field(init=False)

    def __post_init__(self) -> None:
        malformed = check_event(self.event)
        object.__setattr__(self, "malformed", malformed)
        object.__setattr__(self, "invalid", check_document(self.event) if malformed is None else None)


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
    #: The highest under which anything was sent.
    epoch: Epoch = UNFENCED


@dataclass(frozen=True, slots=True)
class Known:
    """An entry that stands already, as far as a repeat is compared with it."""

    #: Plan of its chain.
    plan_id: PlanId
    #: Its place.
    sequence: int
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


def append(events: Sequence[Submission], heads: Mapping[PlanId, Head], known: Sequence[Known], key: SigningKey) -> Appended:
    """The answers to a batch, the entries that it makes, and the heads that it moves.

    Args:
        events: of any plans, those of one plan in order.
        heads: of those plans' chains; a chain without a head is empty.
        known: entries that stand at the events' places.
        key: signs the new entries.
    """
    now: dict[PlanId, Head] = dict(heads)
    places = {(each.plan_id, each.sequence): each for each in known}
    answers: list[Answer] = []
    entries: list[Entry] = []
    for sent in events:
        event = sent.event
        head = now.get(event.plan_id) or Head(event.plan_id, 0, GENESIS, sealed=False, frozen="")
        place = (event.plan_id, event.sequence)
        answer, entry, after = _append_one(sent, head, places.get(place), key)
        answers.append(answer)
        if entry is not None:
            entries.append(entry)
            places[place] = Known(*place, event.type, entry.payload_hash, entry.entry_hash)
        if after != head:
            now[event.plan_id] = after
    changed = tuple(head for plan_id, head in now.items() if heads.get(plan_id) != head)
    return Appended(tuple(answers), tuple(entries), changed)


def fenced(head: Head, epoch: Epoch) -> Head:
    """The chain once an epoch was seen. A sealed one takes nothing anyhow, and never changes."""
    return head if head.sealed or epoch <= head.epoch else replace(head, epoch=epoch)


def against_head(found: Verification, head: Head | None) -> Verification:
    """A chain's verification, held against where the journal says that the chain stands: an end that was cut off leaves every link whole."""
    if head is not None and (head.entry_count, head.head_hash, head.sealed) == (found.entry_count, found.head_hash, found.sealed):
        return found
    count = head.entry_count if head is not None else 0
    differs = Finding(found.entry_count, "HEAD_DIFFERS", f"the chain has {found.entry_count} entries, its head says {count}")
    return replace(found, findings=(*found.findings, differs))


def _append_one(sent: Submission, head: Head, standing: Known | None, key: SigningKey) -> tuple[Answer, Entry | None, Head]:
    event, epoch = sent.event, sent.epoch
    if sent.malformed is not None:
        return Answer(Verdict.INVALID, message=str(sent.malformed)), None, head
    if standing is not None and (standing.type, standing.payload_hash) == (event.type, sha256(event.payload)):
        return Answer(Verdict.APPENDED, standing.entry_hash), None, head
    if sent.invalid is not None:
        # Behind the repeat: what was appended under other rules stays appended, whoever asks.
        return Answer(Verdict.INVALID, message=str(sent.invalid)), None, head
    if epoch < head.epoch:
        return Answer(Verdict.STALE, message=f"the chain has seen epoch {head.epoch.generation}.{head.epoch.counter}"), None, head
    head = fenced(head, epoch)
    if standing is not None:
        why = f"another event stands at {event.sequence}"
        return Answer(Verdict.CONFLICT, message=why), None, head if head.sealed else replace(head, frozen=head.frozen or why)
    if head.frozen:
        return Answer(Verdict.CONFLICT, message=head.frozen), None, head
    if head.sealed:
        return Answer(Verdict.SEALED, message="the plan's chain is sealed"), None, head
    if event.sequence != head.entry_count + 1:
        return Answer(Verdict.GAP, expected_sequence=head.entry_count + 1, message="earlier events are missing"), None, head
    entry = link(event, head.head_hash, key)
    after = Head(event.plan_id, event.sequence, entry.entry_hash, sealed=False, frozen="", epoch=head.epoch)
    return Answer(Verdict.APPENDED, after.head_hash), entry, after
