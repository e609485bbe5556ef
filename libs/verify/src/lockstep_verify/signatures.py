"""Ed25519 (RFC 8032). Pure."""

from __future__ import annotations

import hashlib

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


def verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature over the message is the key's."""
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def key_id(key: bytes) -> str:
    """First 16 hex digits of the SHA-256 of the raw key."""
    return hashlib.sha256(key).hexdigest()[:16]
