"""Identifiers: their types, their forms, and those that are derived from others. Pure."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final, NewType

from lockstep_kit.fields import require

PlanId = NewType("PlanId", str)
LegId = NewType("LegId", str)
PartyId = NewType("PartyId", str)
ActorId = NewType("ActorId", str)
KeyId = NewType("KeyId", str)
Digest = NewType("Digest", bytes)

DIGEST_BYTES: Final = 32
NONCE_BYTES: Final = 16
SALT_BYTES: Final = 16
#: Octets of chance in an id that begins with the time.
TIMELY_BYTES: Final = 10

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_LEG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_PARTY: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_NAMESPACE: Final = uuid.UUID("6f0d3c5e-8a41-5d0e-9c77-2f1b7a3e4d10")


def plan_id(text: str, field: str = "plan_id") -> PlanId:
    """A plan id: a lower-case UUID (RFC 9562).

    Raises:
        FieldInvalid: it has another form.
    """
    require(_UUID.fullmatch(text) is not None, field, "must be a lower-case UUID")
    return PlanId(text)


def request_id(text: str, field: str = "request_id") -> str:
    """A request id: a lower-case UUID.

    Raises:
        FieldInvalid: it has another form.
    """
    require(_UUID.fullmatch(text) is not None, field, "must be a lower-case UUID")
    return text


def leg_id(text: str, field: str = "leg_id") -> LegId:
    """A leg id, unique in its plan.

    Raises:
        FieldInvalid: it has another form.
    """
    require(_LEG.fullmatch(text) is not None, field, "must match [a-z0-9][a-z0-9-]{0,30}")
    return LegId(text)


def party_id(text: str, field: str = "party_id") -> PartyId:
    """A party's id inside a plan.

    Raises:
        FieldInvalid: it has another form.
    """
    require(_PARTY.fullmatch(text) is not None, field, "must match [a-z0-9][a-z0-9-]{0,62}")
    return PartyId(text)


def key_id(text: str, field: str = "key_id") -> KeyId:
    """Id of a signing key.

    Raises:
        FieldInvalid: it has another form.
    """
    require(_KEY.fullmatch(text) is not None, field, "must be 16 lower-case hex digits")
    return KeyId(text)


def digest(octets: bytes, field: str) -> Digest:
    """A SHA-256 digest.

    Raises:
        FieldInvalid: it has another length.
    """
    require(len(octets) == DIGEST_BYTES, field, "must be 32 bytes")
    return Digest(octets)


def derived(*parts: str) -> str:
    """A UUIDv5 over the parts: the same parts give the same id, on any replica."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))


def timely(milliseconds: int, drawn: bytes) -> str:
    """A UUID of version 7 (RFC 9562): it begins with the time, in milliseconds since 1970, and goes on with 74 of the 80 drawn bits.

    Ids that are drawn one after the other lie side by side in an index, so that a database writes to the same few pages of it however old it is.

    Raises:
        OverflowError: the time does not fit into 48 bits.
        ValueError: it is not 10 octets that were drawn.
    """
    if len(drawn) != TIMELY_BYTES:
        raise ValueError(f"{len(drawn)} octets were drawn, not {TIMELY_BYTES}")
    octets = bytearray(milliseconds.to_bytes(6, "big") + drawn)
    octets[6] = 0x70 | octets[6] & 0x0F
    octets[8] = 0x80 | octets[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(octets)))


def sha256(octets: bytes) -> Digest:
    """SHA-256 (FIPS 180-4)."""
    return Digest(hashlib.sha256(octets).digest())


def uetr(plan: PlanId, leg: LegId) -> str:
    """A leg's one unique end-to-end transaction reference: 128 bits of SHA-256, marked as UUID version 4, which is the form that ISO 20022 asks for.

    The gateway pays under it, and whoever checks the bank's book works it out again, so that no other payment can stand for the leg's.
    """
    digest = sha256(b"\x1f".join((b"lockstep/v1", plan.encode("ascii"), leg.encode("ascii"))))
    return str(uuid.UUID(bytes=digest[:16], version=4))


def journal_event_id(plan: PlanId, sequence: int) -> str:
    """Id of a plan's nth journal event: the coordinator and the journal draw the same."""
    return derived("journal", plan, str(sequence))
