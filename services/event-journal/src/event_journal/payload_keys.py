"""Payloads, encrypted so that they can be erased: a key for each plan, wrapped by a key that lies outside the database.

A payload is under AES-256-GCM (NIST SP 800-38D) with its plan's data key, bound to plan and sequence, so that a ciphertext in another place opens nothing.
Nonces are drawn at random: what was written in a transaction that was rolled back, or in a log that a restore has ended, had a number in the chain that
is used again, and a nonce that was made of it would be too. A data key is wrapped with AES-256-GCM as well, bound to its plan. Once a plan's wrapped key
is gone its payloads are, wherever copies of the ciphertext lie.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import PlanId
from lockstep_kit.secret_files import read_secret_file
from lockstep_kit.values import dataclass

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
PAYLOAD_DOMAIN: Final = b"lockstep/payload/v1\n"
WRAP_DOMAIN: Final = b"lockstep/payload-key/v1\n"
_ID_DOMAIN: Final = b"lockstep/wrapping-key-id/v1"
_FILE_BYTES_MAX: Final = 256


class WrappingKeyUnknown(Exception):
    """A data key is wrapped by a key that this process was not given."""


class DataKeyChanged(Exception):
    """A wrapped data key is not what was stored for its plan."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A plan's data key as it is stored."""

    #: Nonce, ciphertext and tag.
    octets: bytes
    #: Which key wraps it.
    wrapping_key_id: str


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """A payload as it is stored."""

    #: Ciphertext and tag.
    octets: bytes
    #: 96 bits, never used before under the same data key.
    nonce: bytes


class DataKey:
    """A plan's key, open."""

    __slots__ = ("_cipher", "_draw", "_scope")

    def __init__(self, plan_id: PlanId, octets: bytes, draw: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(octets)
        self._scope = PAYLOAD_DOMAIN + plan_id.encode("ascii") + b"\n"
        self._draw = draw

    def seal(self, sequence: int, payload: bytes) -> StoredPayload:
        """An entry's payload, encrypted."""
        nonce = self._draw(NONCE_BYTES)
        return StoredPayload(self._cipher.encrypt(nonce, payload, self._scope + b"%d" % sequence), nonce)

    def open(self, sequence: int, stored: StoredPayload) -> bytes | None:
        """An entry's payload; None where it is not what was stored for this entry."""
        try:
            return self._cipher.decrypt(stored.nonce, stored.octets, self._scope + b"%d" % sequence)
        except (InvalidTag, ValueError):
            # ValueError: a nonce of another length.
            return None


class PayloadVault:
    """Draws plans' data keys, wraps them and opens them again."""

    def __init__(self, keys: Sequence[bytes], *, draw: Callable[[int], bytes] = os.urandom) -> None:
        """Take the wrapping keys, 32 bytes each: the first wraps, all open. `draw` gives random bytes.

        Raises:
            FieldInvalid: no key at all, or one of another length.
        """
        require(bool(keys), "payload_key_files", "must name at least one key")
        require(all(len(key) == KEY_BYTES for key in keys), "payload_key_files", f"must hold keys of {KEY_BYTES} bytes")
        self._ciphers = {wrapping_key_id(key): AESGCM(key) for key in keys}
        self._draw = draw
        #: Id of the key that wraps new data keys.
        self.current_id: Final = wrapping_key_id(keys[0])

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the keys that it opens with."""
        return frozenset(self._ciphers)

    def draw(self, plan_id: PlanId) -> tuple[DataKey, WrappedKey]:
        """A fresh data key for a plan, open and wrapped."""
        octets = self._draw(KEY_BYTES)
        return DataKey(plan_id, octets, self._draw), self._wrap(plan_id, octets)

    def open(self, plan_id: PlanId, wrapped: WrappedKey) -> DataKey:
        """A plan's data key.

        Raises:
            WrappingKeyUnknown: it is wrapped by a key that is not here.
            DataKeyChanged: it is another plan's, or was changed.
        """
        return DataKey(plan_id, self._unwrap(plan_id, wrapped), self._draw)

    def wrap_again(self, plan_id: PlanId, wrapped: WrappedKey) -> WrappedKey:
        """The same data key, wrapped by the current key.

        Raises:
            WrappingKeyUnknown, DataKeyChanged: as `open`.
        """
        return self._wrap(plan_id, self._unwrap(plan_id, wrapped))

    def _wrap(self, plan_id: PlanId, octets: bytes) -> WrappedKey:
        nonce = self._draw(NONCE_BYTES)
        sealed = self._ciphers[self.current_id].encrypt(nonce, octets, WRAP_DOMAIN + plan_id.encode("ascii"))
        return WrappedKey(nonce + sealed, self.current_id)

    def _unwrap(self, plan_id: PlanId, wrapped: WrappedKey) -> bytes:
        cipher = self._ciphers.get(wrapped.wrapping_key_id)
        if cipher is None:
            raise WrappingKeyUnknown(
                f"the payload key of plan {plan_id} is wrapped by {wrapped.wrapping_key_id}, which is not here"
            )
        nonce, sealed = wrapped.octets[:NONCE_BYTES], wrapped.octets[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, WRAP_DOMAIN + plan_id.encode("ascii"))
        except (InvalidTag, ValueError):
            raise DataKeyChanged(f"the payload key of plan {plan_id} was changed") from None


def wrapping_key_id(key: bytes) -> str:
    """Name of a wrapping key, which gives nothing of it away."""
    return hmac.digest(key, _ID_DOMAIN, "sha256").hex()[:16]


def read_wrapping_key(path: Path) -> bytes:
    """A wrapping key from a file that its owner alone can read: 32 random bytes in base64 (`openssl rand -base64 32`).

    Raises:
        FieldInvalid: the file breaks a rule.
        OSError: it cannot be read.
    """
    octets = read_secret_file(path, _FILE_BYTES_MAX)
    try:
        key = base64.b64decode(octets.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise FieldInvalid(str(path), f"must hold {KEY_BYTES} random bytes in base64")
    return key


def read_vault(paths: Sequence[Path]) -> PayloadVault:
    """The vault over the wrapping keys in these files: the first wraps, all open.

    Raises:
        FieldInvalid: a file breaks a rule, or there is none.
        OSError: a file cannot be read.
    """
    return PayloadVault([read_wrapping_key(path) for path in paths])
