"""An entry as it was delivered, and what its signed bytes say. Pure.

It starts from the signed bytes and holds everything else against them, so that what was only delivered vouches for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import orjson

from lockstep_kit.canonical import canonical, statement, time_from_text, time_text
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.journal_payloads import check_payload
from lockstep_kit.registry import Registry
from lockstep_kit.signing import Signature
from lockstep_kit.values import dataclass
from lockstep_monitor.findings import Rule

JOURNAL: Final = "event-journal"
ENTRY_DOMAIN: Final = "lockstep/entry/v1"
_ENTRY_PREFIX: Final = ENTRY_DOMAIN.encode() + b"\n"
_HEX: Final = frozenset("0123456789abcdef")
GENESIS: Final = Digest(bytes(32))


@dataclass(frozen=True, slots=True)
class Delivered:
    """An entry as the journal delivers it."""

    #: Place in the log, from 1.
    position: int
    #: Plan of the chain.
    plan_id: str
    #: Place in the chain, from 1.
    sequence: int
    #: Event type.
    type: str
    #: Who acted.
    actor: str
    #: When, by the writer's clock.
    event_time: datetime
    #: RFC 8785 bytes, or b"" where they were erased.
    payload: bytes
    #: Bytes that were hashed and signed.
    canonical_bytes: bytes
    #: Over them.
    signature: Signature
    #: Whether the journal says that the payload was erased.
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry's signed bytes say."""

    #: As it was delivered.
    delivered: Delivered
    #: Hash of the entry before.
    previous_hash: Digest
    #: Hash of this one.
    hash: Digest
    #: What happened; None where the payload was erased or cannot be read.
    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold of an entry by itself."""

    #: Which.
    rule: Rule
    #: One sentence.
    message: str


def read_entry(given: Delivered, registry: Registry) -> tuple[Entry | None, tuple[Broken, ...]]:
    """The entry, and what does not hold of it by itself; None where its signed bytes cannot be read."""
    told = _told(given)
    if told is None:
        return None, (Broken(Rule.ENTRY_MALFORMED, "the signed bytes are no statement of an entry, or say something else"),)
    broken = []
    signer = registry.participant_of(given.signature, given.canonical_bytes, given.event_time)
    if signer is None or signer.name != JOURNAL:
        broken.append(Broken(Rule.ENTRY_SIGNATURE, "no key of the journal that counts at the entry's time signed it"))
    payload: dict[str, Any] | None = None
    if given.erased:
        if given.payload:
            broken.append(Broken(Rule.PAYLOAD_CHANGED, "the payload is said to be erased, and is there"))
    elif sha256(given.payload).hex() != told["payload_hash"]:
        broken.append(Broken(Rule.PAYLOAD_CHANGED, "the payload is not the one that was hashed"))
    else:
        payload = _payload(given)
        if payload is None:
            broken.append(Broken(Rule.PAYLOAD_INVALID, f"the payload is none of the type {given.type}"))
    previous = Digest(bytes.fromhex(told["previous_hash"]))
    return Entry(given, previous, sha256(given.canonical_bytes), payload), tuple(broken)


def _told(given: Delivered) -> dict[str, Any] | None:
    domain, _, written = given.canonical_bytes.partition(b"\n")
    try:
        told = orjson.loads(written) if domain == ENTRY_DOMAIN.encode() else None
        if isinstance(told, dict) and _as_written(given, told):
            return told
        if not isinstance(told, dict) or statement(ENTRY_DOMAIN, told) != given.canonical_bytes:
            return None
        said = (told["plan_id"], told["sequence"], told["type"], told["actor"], told["key_id"], time_from_text(told["event_time"]))
        hashes = [bytes.fromhex(told[name]) for name in ("payload_hash", "previous_hash")]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    delivered = (given.plan_id, given.sequence, given.type, given.actor, given.signature.key_id, given.event_time)
    return told if said == delivered and all(len(each) == 32 for each in hashes) else None


def _as_written(given: Delivered, told: dict[str, Any]) -> bool:
    """Whether the signed bytes are what the journal writes for what was delivered, given what is not delivered beside them: then all of it is said."""
    role, event_id, hashes = told.get("actor_role"), told.get("event_id"), (told.get("payload_hash"), told.get("previous_hash"))
    if not isinstance(role, str) or not isinstance(event_id, str):
        return False
    if not all(isinstance(each, str) and len(each) == 64 and _HEX.issuperset(each) for each in hashes):
        return False
    said: dict[str, str | int] = {
        "actor": given.actor,
        "actor_role": role,
        "event_id": event_id,
        "event_time": time_text(given.event_time),
        "key_id": given.signature.key_id,
        "payload_hash": told["payload_hash"],
        "plan_id": given.plan_id,
        "previous_hash": told["previous_hash"],
        "sequence": given.sequence,
        "type": given.type,
        "version": 1,
    }
    # Of ASCII throughout, sorted as it stands here, and of texts and one number of the chain: RFC 8785 has no other bytes for it.
    return given.canonical_bytes.isascii() and _ENTRY_PREFIX + orjson.dumps(said) == given.canonical_bytes


def _payload(given: Delivered) -> dict[str, Any] | None:
    try:
        document: Any = orjson.loads(given.payload)
        # What is of its type's form, as is seen below, holds neither floats nor nulls: sorted ASCII bytes of it are RFC 8785's.
        plain = given.payload.isascii() and orjson.dumps(document, option=orjson.OPT_SORT_KEYS) == given.payload
        if not isinstance(document, dict) or not (plain or canonical(document) == given.payload):
            return None
        # What was written before payloads had versions holds the same otherwise.
        check_payload(given.type, document | {"version": document.get("version", 1)})
    except (ValueError, KeyError, TypeError, RecursionError, FieldInvalid):
        return None
    return document


def legs_of(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The legs that a payload records."""
    if "leg" in payload:
        yield payload["leg"]


def gates_of(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The gates that a payload records, but for those that a decision repeats."""
    if "gate" in payload:
        yield payload["gate"]
    yield from payload.get("further_gates", ())
