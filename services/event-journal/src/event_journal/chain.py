"""A plan's chain: what an entry is, what it is bound to, and whether a chain holds. Pure.

Each entry's signed bytes hold the hash of the entry before, so that nothing can be changed, dropped, inserted or reordered without breaking every link
after it. The payload stands beside the signed bytes and is bound to them by its hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import field
from datetime import datetime
from typing import Final

import orjson

from lockstep_kit.canonical import Document, canonical, statement, time_text
from lockstep_kit.document_forms import INTEGER_MAX
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.foreign_json import read_json
from lockstep_kit.forms import check_text
from lockstep_kit.ids import Digest, PlanId, journal_event_id, sha256
from lockstep_kit.journal_payloads import PAYLOADS, check_payload
from lockstep_kit.key_history import HistoryFinding, KeyHistory, empty
from lockstep_kit.registry import Registry
from lockstep_kit.signing import Signature, SigningKey
from lockstep_kit.values import dataclass

ENTRY_DOMAIN: Final = "lockstep/entry/v1"
_ENTRY_PREFIX: Final = ENTRY_DOMAIN.encode("ascii") + b"\n"
GENESIS: Final = Digest(bytes(32))
PAYLOAD_BYTES_MAX: Final = 65_536
TEXT_LENGTH_MAX: Final = 128
JOURNAL_ACTOR: Final = "event-journal"
CREATED: Final = "plan.created"
CLOSED: Final = "plan.closed"

#: Where no history of the journal's keys is kept.
NO_HISTORY: Final = empty(JOURNAL_ACTOR)

#: The event types; there are no others.
EVENT_TYPES: Final = frozenset(PAYLOADS)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a plan, as its writer says it."""

    #: Plan of the chain.
    plan_id: PlanId
    #: Place in the chain, from 1.
    sequence: int
    #: `journal_event_id` of plan and place, drawn by the writer, so that it stands once wherever its place does.
    event_id: str
    #: One of `EVENT_TYPES`.
    type: str
    #: Who acted.
    actor: str
    #: In which role.
    actor_role: str
    #: When it happened.
    event_time: datetime
    #: RFC 8785 bytes.
    payload: bytes

    def check(self) -> None:
        """Form rules of an event.

        Raises:
            FieldInvalid: the first rule that is broken.
        """
        require(self.sequence >= 1, "sequence", "must be at least 1")
        require(
            self.event_id == journal_event_id(self.plan_id, self.sequence), "event_id", "must be the UUIDv5 of plan and sequence"
        )
        require(self.type in EVENT_TYPES, "type", "must be one of the journal's event types")
        require(self.type != CLOSED, "type", "must not be plan.closed, which the journal writes itself")
        require((self.type == CREATED) == (self.sequence == 1), "type", "must be plan.created for the first event and only for it")
        check_text(self.actor, "actor", length_max=TEXT_LENGTH_MAX)
        check_text(self.actor_role, "actor_role", length_max=TEXT_LENGTH_MAX)
        require(len(self.payload) <= PAYLOAD_BYTES_MAX, "payload", f"must have at most {PAYLOAD_BYTES_MAX} bytes")

    def check_document(self) -> None:
        """Hold the payload against its form, and against what its event type holds.

        Raises:
            FieldInvalid: the first rule that is broken.
        """
        try:
            document = orjson.loads(self.payload)
            if self.payload.isascii() and orjson.dumps(document, option=orjson.OPT_SORT_KEYS) == self.payload:
                with suppress(FieldInvalid):
                    # No event type holds floats, nulls or integers of more than 53 bits: sorted ASCII bytes of what it does hold are RFC 8785's.
                    check_payload(self.type, document)
                    return
            same = isinstance(document, dict) and canonical(document) == self.payload
        except (ValueError, TypeError, RecursionError):
            same = False
        require(same, "payload", "must be the RFC 8785 bytes of an object without floats and nulls")
        check_payload(self.type, document)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in its place in the chain, signed."""

    #: What happened.
    event: Event
    #: Hash of the entry before; `GENESIS` for the first.
    previous_hash: Digest
    #: The exact bytes that are hashed and signed.
    canonical_bytes: bytes
    #: The journal's signature over them.
    signature: Signature
    #: SHA-256 of the payload, as stored beside it.
    payload_hash: Digest
    #: Whether the plan's payloads were erased: this one is empty, and its hash is what is left.
    erased: bool = False
    #: SHA-256 of the signed bytes.
    entry_hash: Digest = field(init=False)

    def __post_init__(self) -> None:
        # Worked out once: the next entry, the head and the row all ask for it.
        object.__setattr__(self, "entry_hash", sha256(self.canonical_bytes))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold."""

    #: Entry that it is about.
    sequence: int
    #: UPPER_SNAKE name of the rule.
    rule: str
    #: One sentence.
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a chain's verification found."""

    #: Entries read.
    entry_count: int
    #: Hash of the last entry.
    head_hash: Digest
    #: Whether a closing entry ends it.
    sealed: bool
    #: What does not hold.
    findings: tuple[Finding, ...]
    #: Whether payloads were erased, so that no more than their hashes can be held against what was signed.
    payloads_erased: bool = False

    @property
    def valid(self) -> bool:
        """Whether everything holds."""
        return not self.findings


def entry_bytes(event: Event, previous_hash: Digest, key_id: str, payload_hash: Digest) -> bytes:
    """The bytes of an entry that are hashed and signed."""
    # In the order of RFC 8785: what is ASCII throughout is written as it stands here.
    document: dict[str, Document] = {
        "actor": event.actor,
        "actor_role": event.actor_role,
        "event_id": event.event_id,
        "event_time": time_text(event.event_time),
        "key_id": key_id,
        "payload_hash": payload_hash.hex(),
        "plan_id": event.plan_id,
        "previous_hash": previous_hash.hex(),
        "sequence": event.sequence,
        "type": event.type,
        "version": 1,
    }
    texts = f"{event.actor}{event.actor_role}{event.event_id}{key_id}{event.plan_id}{event.type}"
    if texts.isascii() and event.sequence <= INTEGER_MAX:
        return _ENTRY_PREFIX + orjson.dumps(document)
    return statement(ENTRY_DOMAIN, document)


def link(event: Event, previous_hash: Digest, key: SigningKey) -> Entry:
    """The event as the next entry of a chain."""
    payload_hash = sha256(event.payload)
    signed = entry_bytes(event, previous_hash, key.public.key_id, payload_hash)
    return Entry(event, previous_hash, signed, key.sign(signed), payload_hash)


def verify(entries: Iterable[Entry], registry: Registry, keys: KeyHistory | HistoryFinding = NO_HISTORY) -> Verification:
    """Recompute a whole chain: places, links, bytes, signatures, first and last entry.

    Where a history of the journal's keys is kept, each entry must be signed by one of them that counts at its time.
    """
    findings: list[Finding] = []
    if isinstance(keys, HistoryFinding):
        findings.append(
            Finding(0, "KEY_HISTORY_BROKEN", f"statement {keys.number} on the journal's keys: {keys.rule}: {keys.message}")
        )
        keys = NO_HISTORY
    previous, count, sealed, erased = GENESIS, 0, False, False
    for entry in entries:
        count += 1
        erased = erased or entry.erased
        findings.extend(_entry_findings(entry, count, previous, registry, sealed=sealed))
        if keys.keys and not keys.has(entry.signature.key_id, entry.event.event_time):
            told = "the entry is not signed by a key that the history of the journal's keys has for its time"
            findings.append(Finding(entry.event.sequence, "KEY_NOT_IN_HISTORY", told))
        sealed = sealed or entry.event.type == CLOSED
        previous = entry.entry_hash
    if count == 0:
        findings.append(Finding(0, "CHAIN_EMPTY", "the plan has no entries"))
    return Verification(count, previous, sealed, tuple(findings), payloads_erased=erased)


def _entry_findings(entry: Entry, place: int, previous: Digest, registry: Registry, *, sealed: bool) -> Sequence[Finding]:
    event, found = entry.event, []
    if event.sequence != place:
        found.append(Finding(event.sequence, "SEQUENCE_GAP", f"entry {place} of the chain has the sequence {event.sequence}"))
    if entry.previous_hash != previous:
        found.append(Finding(event.sequence, "LINK_BROKEN", "the entry does not name the hash of the entry before"))
    hashed = entry.erased or entry.payload_hash == sha256(event.payload)
    said = entry_bytes(event, entry.previous_hash, entry.signature.key_id, entry.payload_hash)
    if not hashed or entry.canonical_bytes != said:
        found.append(Finding(event.sequence, "ENTRY_CHANGED", "the signed bytes do not say what the entry says"))
    signer = registry.participant_of(entry.signature, entry.canonical_bytes, event.event_time)
    if signer is None or signer.name != JOURNAL_ACTOR:
        found.append(Finding(event.sequence, "SIGNATURE_INVALID", "the entry is not signed by the journal's key"))
    if event.type not in EVENT_TYPES or (event.type == CREATED) != (place == 1):
        found.append(Finding(event.sequence, "TYPE_MISPLACED", f"an entry of the type {event.type} cannot stand there"))
    if sealed:
        found.append(Finding(event.sequence, "AFTER_SEAL", "the entry stands behind the seal"))
    return found


def created_digest(first: Entry) -> str:
    """The plan digest (hex) that the first entry of a chain carries, or "" when it carries none."""
    try:
        document = read_json(first.event.payload)
    except ValueError:
        return ""
    found = document.get("plan_digest") if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""


def check_event(event: Event) -> FieldInvalid | None:
    """What is wrong with an event's form, or None. What its payload holds is `check_document`'s."""
    try:
        event.check()
    except FieldInvalid as finding:
        return finding
    return None


def check_document(event: Event) -> FieldInvalid | None:
    """What is wrong with the payload of an event whose form is right, or None."""
    try:
        event.check_document()
    except FieldInvalid as finding:
        return finding
    return None
