"""The history of a service's signing keys: each key introduced by the one before it, so that whoever trusts the first can follow to the last. Pure.

A statement names the key, its place and the time in which its signatures count. It is signed by the key before it, which hands over, and by the key itself,
which shows that its holder has it; the first is signed by itself alone, and is trusted by its id, which is told on another way. Times overlap or meet, so
that there is no moment without a key; while two count, either may sign. What a stolen key can do is bounded by its time and by whoever drops it from his
own registry, never by the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from lockstep_kit.canonical import Document, canonical, statement, time_from_text, time_text
from lockstep_kit.document_forms import Hex, Shape, Text, Time, Whole
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.foreign_json import read_json
from lockstep_kit.ids import Digest, KeyId, sha256
from lockstep_kit.registry import RegisteredKey
from lockstep_kit.signing import PublicKey, Signature, SigningKey
from lockstep_kit.values import dataclass

KEY_DOMAIN: Final = "lockstep/key/v1"
#: What the first statement names as the one before it.
GENESIS: Final = Digest(bytes(32))
STATEMENT: Final = Shape(
    "key statement",
    {
        "version": Whole(1, 1),
        "holder": Text(),
        "number": Whole(1),
        "key_id": Hex(8),
        "public_key": Hex(32),
        "not_before": Time(),
        "not_after": Time(),
        "previous_hash": Hex(32),
    },
    {},
)


@dataclass(frozen=True, slots=True)
class SignedKey:
    """A statement and its signatures, as they are stored and sent."""

    #: The exact bytes that are hashed and signed.
    statement: bytes
    #: By the key before, unless it is the first; then by the key itself.
    signatures: tuple[Signature, ...]

    @property
    def hash(self) -> Digest:
        """What the next statement names."""
        return sha256(self.statement)


@dataclass(frozen=True, slots=True)
class HistoryFinding:
    """What first does not hold of a history."""

    #: Place of the statement, from 1.
    number: int
    #: UPPER_SNAKE.
    rule: str
    #: One sentence.
    message: str


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """A history that holds."""

    #: Whose keys.
    holder: str
    #: The keys, in their order.
    keys: tuple[RegisteredKey, ...]
    #: Hash of the last statement; `GENESIS` where there is none.
    head: Digest

    def signed(self, signature: Signature, message: bytes, moment: datetime) -> bool:
        """Whether a key of this history that counts at that moment made the signature."""
        return any(
            key.public.key_id == signature.key_id and key.valid_at(moment) and key.public.verifies(message, signature.octets)
            for key in self.keys
        )

    def has(self, key_id: KeyId, moment: datetime) -> bool:
        """Whether a key counts at that moment."""
        return any(key.public.key_id == key_id and key.valid_at(moment) for key in self.keys)


def empty(holder: str) -> KeyHistory:
    """A history without keys."""
    return KeyHistory(holder, (), GENESIS)


def introduce(
    history: KeyHistory, key: SigningKey, not_before: datetime, not_after: datetime, before: SigningKey | None = None
) -> SignedKey:
    """The statement that brings a new key into a history; `before` is its newest key, and None for the first.

    Raises:
        FieldInvalid: the result would not be a history that holds; the field is `not_before`, `not_after`, `key` or `before`.
    """
    number = len(history.keys) + 1
    document: dict[str, Document] = {
        "version": 1,
        "holder": history.holder,
        "number": number,
        "key_id": key.public.key_id,
        "public_key": key.public.octets.hex(),
        "not_before": time_text(not_before),
        "not_after": time_text(not_after),
        "previous_hash": history.head.hex(),
    }
    newest = history.keys[-1] if history.keys else None
    if (newest.public if newest else None) != (before.public if before else None):
        raise FieldInvalid("before", "must be the newest key of the history, and absent for the first")
    signed = statement(KEY_DOMAIN, document)
    signatures = (key.sign(signed),) if before is None else (before.sign(signed), key.sign(signed))
    made = SignedKey(signed, signatures)
    followed = _follow(history, made)
    if isinstance(followed, HistoryFinding):
        field = {"KEY_REPEATED": "key", "VALIDITY_EMPTY": "not_after", "VALIDITY_BACKWARDS": "not_after"}.get(
            followed.rule, "not_before"
        )
        raise FieldInvalid(field, f"must be such that the history holds: {followed.message}")
    return made


def verify(statements: Sequence[SignedKey], holder: str) -> KeyHistory | HistoryFinding:
    """The keys of a history with their times, or what first does not hold of it."""
    history = empty(holder)
    for each in statements:
        followed = _follow(history, each)
        if isinstance(followed, HistoryFinding):
            return followed
        history = followed
    return history


def _follow(history: KeyHistory, signed: SignedKey) -> KeyHistory | HistoryFinding:
    """The history with one statement more."""
    number = len(history.keys) + 1
    try:
        told = _read(signed.statement)
    except FieldInvalid as finding:
        return HistoryFinding(number, "STATEMENT_MALFORMED", str(finding))
    public = PublicKey(bytes.fromhex(told["public_key"]))
    key = RegisteredKey(public, time_from_text(told["not_before"]), time_from_text(told["not_after"]))
    newest = history.keys[-1] if history.keys else None
    signers = [public] if newest is None else [newest.public, public]
    rules = (
        ("HOLDER_DIFFERS", told["holder"] == history.holder, f"the statement is about {told['holder']}"),
        ("NUMBER_GAP", told["number"] == number, f"statement {number} has the number {told['number']}"),
        ("LINK_BROKEN", told["previous_hash"] == history.head.hex(), "the statement does not name the hash of the one before"),
        ("KEY_ID_WRONG", told["key_id"] == public.key_id, "the id is not that of the key"),
        ("KEY_REPEATED", all(each.public != public for each in history.keys), "the key was in the history before"),
        ("VALIDITY_EMPTY", key.not_before < key.not_after, "the time ends before it begins"),
        ("VALIDITY_GAP", newest is None or key.not_before <= newest.not_after, "between this key and the one before no key counts"),
        (
            "VALIDITY_BACKWARDS",
            newest is None or (newest.not_before <= key.not_before and newest.not_after <= key.not_after),
            "the time begins or ends before that of the key before",
        ),
        (
            "SIGNATURE_INVALID",
            [each.key_id for each in signed.signatures] == [each.key_id for each in signers]
            and all(
                signer.verifies(signed.statement, each.octets) for signer, each in zip(signers, signed.signatures, strict=False)
            ),
            "it is not signed by the key before and by the key itself",
        ),
    )
    for rule, holds, message in rules:
        if not holds:
            return HistoryFinding(number, rule, message)
    return KeyHistory(history.holder, (*history.keys, key), signed.hash)


def _read(octets: bytes) -> dict[str, Any]:
    domain, _, written = octets.partition(b"\n")
    document: Any = None
    try:
        document = read_json(written) if domain == KEY_DOMAIN.encode() else None
        same = isinstance(document, dict) and canonical(document) == written
    except (ValueError, TypeError, RecursionError):
        same = False
    if not same:
        raise FieldInvalid("statement", f"must be {KEY_DOMAIN}, a line feed, and the RFC 8785 bytes of an object")
    found: dict[str, Any] = document
    STATEMENT.check(found)
    return found
