"""A plan's chain: what an entry is, what it is bound to, and whether a chain holds. Pure.

Each entry's signed bytes hold the hash of the entry before, so that nothing can be changed, dropped, inserted or reordered without breaking every link
after it. The payload stands beside the signed bytes and is bound to them by its hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lockstep_kit.canonical import canonical, statement, time_text
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_text
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.registry import Registry
from lockstep_kit.signing import Signature, SigningKey

ENTRY_DOMAIN: Final = "lockstep/entry/v1"
GENESIS: Final = Digest(bytes(32))
PAYLOAD_BYTES_MAX: Final = 65_536
TEXT_LENGTH_MAX: Final = 128
JOURNAL_ACTOR: Final = "event-journal"
CREATED: Final = "plan.created"
CLOSED: Final = "plan.closed"

#: The event types; there are no others.
EVENT_TYPES: Final = frozenset(
    {
        CREATED,
        "plan.initiated",
        "plan.ready",
        "leg.prepared",
        "leg.refused",
        "plan.approved",
        "plan.released",
        "leg.executed",
        "evidence.validated",
        "plan.committed",
        "plan.aborted",
        "exception.raised",
        "exception.resolved",
        "leg.reversed",
        CLOSED,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a plan, as its writer says it."""

    #: Plan of the chain.
    plan_id: PlanId
    #: Place in the chain, from 1.
    sequence: int
    #: Drawn by the writer.
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
        check_text(self.event_id, "event_id", length_max=TEXT_LENGTH_MAX)
        require(self.type in EVENT_TYPES, "type", "must be one of the journal's event types")
        require(self.type != CLOSED, "type", "must not be plan.closed, which the journal writes itself")
        require((self.type == CREATED) == (self.sequence == 1), "type", "must be plan.created for the first event and only for it")
        check_text(self.actor, "actor", length_max=TEXT_LENGTH_MAX)
        check_text(self.actor_role, "actor_role", length_max=TEXT_LENGTH_MAX)
        require(len(self.payload) <= PAYLOAD_BYTES_MAX, "payload", f"must have at most {PAYLOAD_BYTES_MAX} bytes")
        try:
            document = json.loads(self.payload)
            same = isinstance(document, dict) and canonical(document) == self.payload
        except (ValueError, TypeError, RecursionError):
            same = False
        require(same, "payload", "must be the RFC 8785 bytes of an object without floats and nulls")


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

    @property
    def entry_hash(self) -> Digest:
        """SHA-256 of the signed bytes."""
        return sha256(self.canonical_bytes)


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

    @property
    def valid(self) -> bool:
        """Whether everything holds."""
        return not self.findings


def entry_bytes(event: Event, previous_hash: Digest, key_id: str) -> bytes:
    """The bytes of an entry that are hashed and signed."""
    return statement(
        ENTRY_DOMAIN,
        {
            "version": 1,
            "plan_id": event.plan_id,
            "sequence": event.sequence,
            "event_id": event.event_id,
            "type": event.type,
            "actor": event.actor,
            "actor_role": event.actor_role,
            "event_time": time_text(event.event_time),
            "payload_hash": sha256(event.payload).hex(),
            "previous_hash": previous_hash.hex(),
            "key_id": key_id,
        },
    )


def link(event: Event, previous_hash: Digest, key: SigningKey) -> Entry:
    """The event as the next entry of a chain."""
    signed = entry_bytes(event, previous_hash, key.public.key_id)
    return Entry(event, previous_hash, signed, key.sign(signed))


def verify(entries: Iterable[Entry], registry: Registry) -> Verification:
    """Recompute a whole chain: places, links, bytes, signatures, first and last entry."""
    findings: list[Finding] = []
    previous, count, sealed = GENESIS, 0, False
    for entry in entries:
        count += 1
        findings.extend(_entry_findings(entry, count, previous, registry, sealed=sealed))
        sealed = sealed or entry.event.type == CLOSED
        previous = entry.entry_hash
    if count == 0:
        findings.append(Finding(0, "CHAIN_EMPTY", "the plan has no entries"))
    return Verification(count, previous, sealed, tuple(findings))


def _entry_findings(entry: Entry, place: int, previous: Digest, registry: Registry, *, sealed: bool) -> Sequence[Finding]:
    event, found = entry.event, []
    if event.sequence != place:
        found.append(Finding(event.sequence, "SEQUENCE_GAP", f"entry {place} of the chain has the sequence {event.sequence}"))
    if entry.previous_hash != previous:
        found.append(Finding(event.sequence, "LINK_BROKEN", "the entry does not name the hash of the entry before"))
    if entry.canonical_bytes != entry_bytes(event, entry.previous_hash, entry.signature.key_id):
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
        document = json.loads(first.event.payload)
    except ValueError:
        return ""
    found = document.get("plan_digest") if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""


def check_event(event: Event) -> FieldInvalid | None:
    """What is wrong with an event's form, or None."""
    try:
        event.check()
    except FieldInvalid as finding:
        return finding
    return None
