"""Ed25519 (RFC 8032) keys and signatures. Pure: drawing a key takes its seed as an argument."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as _SigningKey
from nacl.signing import VerifyKey as _VerifyKey

from lockstep_kit.ids import KeyId


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature and the key that made it."""

    #: Key that made it.
    key_id: KeyId
    #: 64 bytes.
    octets: bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key."""

    #: 32 bytes.
    octets: bytes

    @property
    def key_id(self) -> KeyId:
        """First 16 hex digits of the SHA-256 of the raw key."""
        return KeyId(hashlib.sha256(self.octets).hexdigest()[:16])

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature over the message is this key's."""
        try:
            _VerifyKey(self.octets).verify(message, signature)
        except (BadSignatureError, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key. Its text form shows nothing of it."""

    #: 32 bytes.
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(bytes(_SigningKey(self.seed).verify_key))

    def sign(self, message: bytes) -> Signature:
        """Signature over the message."""
        key = _SigningKey(self.seed)
        return Signature(PublicKey(bytes(key.verify_key)).key_id, bytes(key.sign(message).signature))
