"""Checkpoints of a log as signed notes: C2SP signed-note, tlog-checkpoint and tlog-cosignature. Pure.

    <origin>
    <size>
    <root, base64>
                                    (an empty line)
    — <name of a key> <base64 of 4 bytes of the key's hash and the signature>

A witness's cosignature is over the same text behind a line with its time, so that it says when the witness had seen no other log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from lockstep_kit.ids import Digest
from lockstep_kit.signing import PublicKey, SigningKey
from lockstep_kit.values import dataclass

NOTE_BYTES_MAX: Final = 16_384
SIGNATURES_MAX: Final = 16
NAME_LENGTH_MAX: Final = 255
_MARK: Final = "— "
#: Kinds of signatures: Ed25519 over the text, and a cosignature with its time.
_ED25519: Final = b"\x01"
_COSIGNATURE: Final = b"\x04"
_SIZE_END: Final = 2**63


class NoteInvalid(ValueError):
    """The bytes are no signed note, or its text is no checkpoint; the message says which rule is broken."""


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line of signature."""

    #: Name of the key.
    name: str
    #: 4 bytes.
    key_hash: bytes
    #: What stands behind the hash.
    octets: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at one size."""

    #: Name of the log.
    origin: str
    #: Number of leaves.
    size: int
    #: Root over them.
    root: Digest

    @property
    def text(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with its signatures."""

    #: What is signed.
    checkpoint: Checkpoint
    #: In the order of their lines.
    signatures: tuple[NoteSignature, ...]

    @property
    def note(self) -> bytes:
        """The whole note."""
        lines = "".join(
            f"{_MARK}{each.name} {base64.b64encode(each.key_hash + each.octets).decode()}\n" for each in self.signatures
        )
        return self.checkpoint.text + b"\n" + lines.encode()

    def signed_by(self, name: str, key: PublicKey) -> bool:
        """Whether the log's key of this name has signed it."""
        wanted = (name, key_hash(name, key, _ED25519))
        return any(
            (each.name, each.key_hash) == wanted and key.verifies(self.checkpoint.text, each.octets) for each in self.signatures
        )

    def cosigned_at(self, name: str, key: PublicKey) -> datetime | None:
        """When the witness's key of this name cosigned it; None if it is not shown to have."""
        wanted = (name, key_hash(name, key, _COSIGNATURE))
        for each in self.signatures:
            if (each.name, each.key_hash) != wanted or len(each.octets) != 8 + 64:
                continue
            seconds = int.from_bytes(each.octets[:8], "big")
            if key.verifies(_cosigned(self.checkpoint, seconds), each.octets[8:]):
                try:
                    return datetime.fromtimestamp(seconds, UTC)
                except (OverflowError, ValueError, OSError):
                    return None
        return None


def key_hash(name: str, key: PublicKey, kind: bytes) -> bytes:
    """First 4 bytes of SHA-256(name, line feed, kind, key): tells a reader which key to try."""
    return hashlib.sha256(name.encode() + b"\n" + kind + key.octets).digest()[:4]


def sign(checkpoint: Checkpoint, key: SigningKey) -> SignedCheckpoint:
    """The checkpoint signed by its log, whose key has the log's name.

    Raises:
        NoteInvalid: the origin cannot be a key's name.
    """
    _check_name(checkpoint.origin)
    line = NoteSignature(checkpoint.origin, key_hash(checkpoint.origin, key.public, _ED25519), key.sign(checkpoint.text).octets)
    return SignedCheckpoint(checkpoint, (line,))


def cosign(signed: SignedCheckpoint, name: str, key: SigningKey, now: datetime) -> SignedCheckpoint:
    """The checkpoint with a witness's cosignature behind what it has.

    Raises:
        NoteInvalid: the name cannot be a key's name.
    """
    _check_name(name)
    seconds = int(now.timestamp())
    octets = seconds.to_bytes(8, "big") + key.sign(_cosigned(signed.checkpoint, seconds)).octets
    line = NoteSignature(name, key_hash(name, key.public, _COSIGNATURE), octets)
    return SignedCheckpoint(signed.checkpoint, (*signed.signatures, line))


def _cosigned(checkpoint: Checkpoint, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n".encode() + checkpoint.text


def parse(note: bytes) -> SignedCheckpoint:
    """A signed checkpoint, strictly read: no line more than origin, size and root, and no second way to write any of them.

    Raises:
        NoteInvalid: it is none.
    """
    if len(note) > NOTE_BYTES_MAX:
        raise NoteInvalid(f"a note has at most {NOTE_BYTES_MAX} bytes")
    try:
        text = note.decode()
    except UnicodeDecodeError as error:
        raise NoteInvalid("a note is UTF-8") from error
    head, blank, tail = text.partition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise NoteInvalid("a note is a text, an empty line, and lines of signatures")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteInvalid(f"a note has at most {SIGNATURES_MAX} signatures")
    return SignedCheckpoint(_checkpoint(head.split("\n")), tuple(_signature(line) for line in lines))


def _checkpoint(lines: Sequence[str]) -> Checkpoint:
    if len(lines) != 3:
        raise NoteInvalid("a checkpoint has three lines: origin, size, root")
    origin, size, root = lines
    _check_name(origin)
    if not size.isascii() or not size.isdigit() or str(int(size[:20])) != size or int(size) >= _SIZE_END:
        raise NoteInvalid("the size is a number without leading zeros, below 2^63")
    octets = _base64(root, "the root")
    if len(octets) != 32:
        raise NoteInvalid("the root has 32 bytes")
    return Checkpoint(origin, int(size), Digest(octets))


def _signature(line: str) -> NoteSignature:
    name, space, coded = line.removeprefix(_MARK).partition(" ")
    if not line.startswith(_MARK) or not space:
        raise NoteInvalid("a line of signature is a dash, the key's name, and base64")
    _check_name(name)
    octets = _base64(coded, "a signature")
    if len(octets) < 5:
        raise NoteInvalid("a signature stands behind 4 bytes of its key's hash")
    return NoteSignature(name, octets[:4], octets[4:])


def _check_name(name: str) -> None:
    if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable() or any(char.isspace() or char == "+" for char in name):
        raise NoteInvalid(f"a name has 1 to {NAME_LENGTH_MAX} printable characters, no space and no plus")


def _base64(text: str, what: str) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise NoteInvalid(f"{what} is base64") from error
    if base64.b64encode(octets).decode() != text:
        raise NoteInvalid(f"{what} is base64 in its one form")
    return octets
