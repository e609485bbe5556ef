"""Checkpoints as signed notes: C2SP signed-note, tlog-checkpoint, tlog-cosignature. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lockstep_verify.signatures import verifies

_NOTE: Final = re.compile(
    r"(?P<text>(?P<origin>[!-*,-~]{1,255})\n(?P<size>0|[1-9][0-9]{0,18})\n(?P<root>[A-Za-z0-9+/]{43}=)\n)\n"
    r"(?P<lines>(?:— [!-*,-~]{1,255} [A-Za-z0-9+/]{8,4096}={0,2}\n){1,16})"
)
#: A time with more digits than four for the year is none.
_SECONDS_END: Final = 253_402_300_800


class NoteBroken(ValueError):
    """The bytes are no signed checkpoint."""


@dataclass(frozen=True, slots=True)
class Note:
    """A signed checkpoint."""

    #: What is signed.
    text: bytes
    #: Name of the log.
    origin: str
    #: Number of leaves.
    size: int
    #: Root over them.
    root: bytes
    #: Name, and 4 bytes of the key's hash with what stands behind them, of each signature.
    signatures: tuple[tuple[str, bytes], ...]

    def signed_by(self, name: str, key: bytes) -> bool:
        """Whether the key of that name has signed the text."""
        mark = _key_hash(name, b"\x01", key)
        found = (each[4:] for signer, each in self.signatures if signer == name and each[:4] == mark)
        return any(verifies(key, self.text, each) for each in found)

    def cosigned_at(self, name: str, key: bytes) -> str | None:
        """When the witness's key of that name cosigned it (RFC 3339); None if it is not shown to have."""
        mark = _key_hash(name, b"\x04", key)
        for signer, each in self.signatures:
            if signer != name or each[:4] != mark or len(each) != 4 + 8 + 64:
                continue
            seconds = int.from_bytes(each[4:12], "big")
            signed = b"cosignature/v1\ntime %d\n" % seconds + self.text
            if seconds < _SECONDS_END and verifies(key, signed, each[12:]):
                return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return None


def _key_hash(name: str, kind: bytes, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + key).digest()[:4]


def parse(octets: bytes) -> Note:
    """The signed checkpoint in the bytes.

    Raises:
        NoteBroken: there is none, or it is written in another way.
    """
    try:
        found = _NOTE.fullmatch(octets.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise NoteBroken from error
    if found is None or int(found["size"]) >= 2**63:
        raise NoteBroken
    signatures = tuple(_signature(line) for line in found["lines"][:-1].split("\n"))
    return Note(found["text"].encode(), found["origin"], int(found["size"]), _base64(found["root"]), signatures)


def _signature(line: str) -> tuple[str, bytes]:
    _, name, coded = line.split(" ")
    return name, _base64(coded)


def _base64(text: str) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise NoteBroken from error
    if base64.b64encode(octets).decode() != text:
        raise NoteBroken
    return octets
