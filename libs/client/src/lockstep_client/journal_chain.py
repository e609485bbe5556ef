"""A plan's chain in the journal, recomputed by whoever reads it, with nothing but the journal's public key. Pure.

This is on purpose not the journal's own code: it starts from the signed bytes and holds everything else that was delivered against them, so that an error or
a lie on the other side does not vouch for itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import orjson

from lockstep_kit.canonical import Document, statement, time_text
from lockstep_kit.foreign_json import read_json
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.registry import Registry
from lockstep_kit.signing import Signature
from lockstep_kit.values import dataclass

ENTRY_DOMAIN: Final = "lockstep/entry/v1"
_ENTRY_PREFIX: Final = ENTRY_DOMAIN.encode() + b"\n"
#: First integer that a reader of JSON may round.
_INTEGER_END: Final = 2**53
GENESIS: Final = Digest(bytes(32))
CREATED: Final = "plan.created"
CLOSED: Final = "plan.closed"
JOURNAL: Final = "event-journal"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it was delivered."""

    #: Plan of the chain.
    plan_id: PlanId
    #: Place in the chain, from 1.
    sequence: int
    #: Drawn by the writer.
    event_id: str
    #: Event type.
    type: str
    #: Who acted.
    actor: str
    #: In which role.
    actor_role: str
    #: When, by the writer's clock.
    event_time: datetime
    #: What happened, RFC 8785 bytes.
    payload: bytes
    #: SHA-256 of the payload, as delivered.
    payload_hash: Digest
    #: Hash of the entry before, as delivered.
    previous_hash: Digest
    #: Hash of this entry, as delivered.
    entry_hash: Digest
    #: Bytes that were hashed and signed.
    canonical_bytes: bytes
    #: The journal's signature over them.
    signature: Signature
    #: Whether the journal says that the plan's payloads were erased; then this one is empty, and its hash is what is left of it.
    erased: bool = False


@dataclass(frozen=True, slots=True)
class ChainFinding:
    """One thing that does not hold."""

    #: Entry that it is about.
    sequence: int
    #: UPPER_SNAKE.
    rule: str
    #: One sentence.
    message: str


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """What was found of a chain."""

    #: Entries read.
    entry_count: int
    #: Recomputed hash of the last entry.
    head_hash: Digest
    #: Whether a closing entry ends it.
    sealed: bool
    #: Plan digest (hex) that the first entry carries, or "".
    plan_digest: str
    #: What does not hold.
    findings: tuple[ChainFinding, ...]
    #: Whether payloads were erased: all that is signed holds, and what the payloads said cannot be seen.
    payloads_erased: bool = False

    @property
    def valid(self) -> bool:
        """Whether everything holds."""
        return not self.findings


def signed_bytes(entry: Entry) -> bytes:
    """The bytes that the journal signs for what the entry says."""
    payload_hash = entry.payload_hash if entry.erased else sha256(entry.payload)
    # In the order of RFC 8785: what is ASCII throughout is written as it stands here.
    document: dict[str, Document] = {
        "actor": entry.actor,
        "actor_role": entry.actor_role,
        "event_id": entry.event_id,
        "event_time": time_text(entry.event_time),
        "key_id": entry.signature.key_id,
        "payload_hash": payload_hash.hex(),
        "plan_id": entry.plan_id,
        "previous_hash": entry.previous_hash.hex(),
        "sequence": entry.sequence,
        "type": entry.type,
        "version": 1,
    }
    texts = f"{entry.actor}{entry.actor_role}{entry.event_id}{entry.signature.key_id}{entry.plan_id}{entry.type}"
    if texts.isascii() and entry.sequence < _INTEGER_END:
        return _ENTRY_PREFIX + orjson.dumps(document)
    return statement(ENTRY_DOMAIN, document)


def verify_chain(entries: Iterable[Entry], plan_id: str, registry: Registry) -> ChainVerdict:
    """Recompute a chain: whose it is, places, links, hashes, signatures, first and last entry. Of erased payloads only the hashes are held against it."""
    findings: list[ChainFinding] = []
    previous, place, sealed, plan_digest, erased = GENESIS, 0, False, "", False
    for entry in entries:
        place += 1
        erased = erased or entry.erased
        entry_hash = sha256(entry.canonical_bytes)
        broken = _broken(entry, entry_hash, place, previous, plan_id, registry)
        if sealed:
            broken["AFTER_SEAL"] = "the entry stands behind the seal"
        findings.extend(ChainFinding(entry.sequence, rule, message) for rule, message in broken.items())
        if place == 1:
            plan_digest = _plan_digest(entry)
        sealed = sealed or entry.type == CLOSED
        previous = entry_hash
    if place == 0:
        findings.append(ChainFinding(0, "CHAIN_EMPTY", "the plan has no entries"))
    return ChainVerdict(place, previous, sealed, plan_digest, tuple(findings), payloads_erased=erased)


def _broken(entry: Entry, entry_hash: Digest, place: int, previous: Digest, plan_id: str, registry: Registry) -> dict[str, str]:
    signer = registry.participant_of(entry.signature, entry.canonical_bytes, entry.event_time)
    whole = not entry.payload if entry.erased else entry.payload_hash == sha256(entry.payload)
    rules = (
        ("PLAN_DIFFERS", entry.plan_id == plan_id, "the entry belongs to another plan"),
        ("SEQUENCE_GAP", entry.sequence == place, f"entry {place} of the chain has the sequence {entry.sequence}"),
        ("LINK_BROKEN", entry.previous_hash == previous, "the entry does not name the hash of the entry before"),
        ("ENTRY_CHANGED", entry.canonical_bytes == signed_bytes(entry), "the signed bytes do not say what the entry says"),
        ("PAYLOAD_CHANGED", whole, "the payload is not the one that was hashed"),
        ("HASH_WRONG", entry.entry_hash == entry_hash, "the hash is not that of the signed bytes"),
        ("SIGNATURE_INVALID", signer is not None and signer.name == JOURNAL, "the entry is not signed by the journal's key"),
        ("TYPE_MISPLACED", (entry.type == CREATED) == (place == 1), f"an entry of the type {entry.type} cannot stand there"),
    )
    return {rule: message for rule, holds, message in rules if not holds}


def _plan_digest(first: Entry) -> str:
    try:
        document = read_json(first.payload)
    except ValueError:
        return ""
    found = document.get("plan_digest") if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""
