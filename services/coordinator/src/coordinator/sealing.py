"""Plans' keys, sealed: to the service, which opens them after the decision, and to an offline recovery key, which never comes near it.

A sealed key (X25519 sealed box) holds its plan's id too, so that one plan's key, put into another plan's row, opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from coordinator.store.plans import SealedKey
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import PlanId
from lockstep_kit.keys import PLAN_KEY_BYTES
from lockstep_kit.secret_files import read_secret_file

#: Plans' keys that are remembered open, beside the private key that opens all of them; those opened longest ago give way.
OPENED_MAX: Final = 1_024
_FILE_BYTES_MAX: Final = 4_096


class KeySealed(Exception):
    """A plan's key cannot be opened with the keys that this service has."""


class KeyBox:
    """Draws plans' keys, seals them, and opens them again."""

    def __init__(self, service: Sequence[bytes], recovery: bytes) -> None:
        """Take the service's private keys (the first seals, all open) and the recovery key's public half; 32 bytes each.

        Raises:
            FieldInvalid: no private key at all.
        """
        require(bool(service), "seal_key_files", "must name at least one key")
        keys = [PrivateKey(octets) for octets in service]
        self._private: Final = tuple(bytes(key) for key in keys)
        self._opening = {_key_id(bytes(key.public_key)): SealedBox(key) for key in keys}
        self._service_key_id: Final = _key_id(bytes(keys[0].public_key))
        self._service: Final = SealedBox(keys[0].public_key)
        self._recovery_key_id: Final = _key_id(recovery)
        self._recovery: Final = SealedBox(PublicKey(recovery))
        self._opened: Final[OrderedDict[tuple[PlanId, str, bytes], bytes]] = OrderedDict()

    def draw(self, plan_id: PlanId) -> tuple[bytes, SealedKey]:
        """A fresh key for a plan, and the same sealed."""
        plan_key = os.urandom(PLAN_KEY_BYTES)
        return plan_key, self.seal(plan_id, plan_key)

    def seal(self, plan_id: PlanId, plan_key: bytes) -> SealedKey:
        """A plan's key, sealed to the service's first key and to the recovery key."""
        message = plan_key + plan_id.encode("ascii")
        return SealedKey(
            self._service_key_id, self._service.encrypt(message), self._recovery_key_id, self._recovery.encrypt(message)
        )

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """Keys of 32 bytes for another purpose, the same at every replica: one of each private key, the current one first."""
        return tuple(hmac.digest(each, purpose.encode("ascii"), "sha256") for each in self._private)

    def is_current(self, sealed: SealedKey) -> bool:
        """Whether it is sealed to the keys that `seal` seals to."""
        return (sealed.service_key_id, sealed.recovery_key_id) == (self._service_key_id, self._recovery_key_id)

    def open(self, plan_id: PlanId, key_id: str, sealed: bytes) -> bytes:
        """A plan's key. What was opened is remembered for a while: a decision is delivered to each participant after it was seen that the key opens.

        Raises:
            KeySealed: it was sealed to a key that this service has not, or is another plan's.
        """
        asked = plan_id, key_id, sealed
        if asked not in self._opened:
            self._opened[asked] = self._open(plan_id, key_id, sealed)
            if len(self._opened) > OPENED_MAX:
                self._opened.popitem(last=False)
        return self._opened[asked]

    def _open(self, plan_id: PlanId, key_id: str, sealed: bytes) -> bytes:
        box = self._opening.get(key_id)
        try:
            message = b"" if box is None else box.decrypt(sealed)
        except CryptoError:
            message = b""
        if message[PLAN_KEY_BYTES:] != plan_id.encode("ascii"):
            raise KeySealed(f"the key of plan {plan_id} cannot be opened with the keys of this service")
        return message[:PLAN_KEY_BYTES]


def _key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def read_private_key(path: Path) -> bytes:
    """An X25519 private key in a PKCS8 PEM file that its owner alone can read; 32 bytes.

    Raises:
        FieldInvalid: others may read the file, or it holds no such key. The field is the path.
        OSError: the file cannot be read.
    """
    octets = read_secret_file(path, _FILE_BYTES_MAX)
    try:
        key = load_pem_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    # Raised outside the handler: the library's error may quote what is in the file.
    if not isinstance(key, X25519PrivateKey):
        raise FieldInvalid(str(path), "must be an X25519 private key, PKCS8 PEM without a passphrase")
    return key.private_bytes_raw()


def read_public_key(path: Path) -> bytes:
    """An X25519 public key in a PEM file; 32 bytes.

    Raises:
        FieldInvalid: the file holds no such key. The field is the path.
        OSError: the file cannot be read.
    """
    try:
        key = load_pem_public_key(path.read_bytes()[:_FILE_BYTES_MAX])
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FieldInvalid(str(path), "must be an X25519 public key, PEM") from error
    if not isinstance(key, X25519PublicKey):
        raise FieldInvalid(str(path), "must be an X25519 public key, PEM")
    return key.public_bytes_raw()
