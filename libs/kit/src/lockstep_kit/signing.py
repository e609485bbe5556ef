"""Ed25519 (RFC 8032) keys and signatures. Pure: drawing a key takes its seed as an argument."""

from __future__ import annotations

import hashlib
from dataclasses import field
from typing import Final, Protocol

from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as _SigningKey

from lockstep_kit.ids import KeyId
from lockstep_kit.values import dataclass

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
#: Signatures that are remembered to hold, a hundred octets or so each.
CHECKED_MAX: Final = 32_768


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
        """Whether the signature over the message is this key's. What was checked before, or made here, is remembered for a while."""
        if len(self.octets) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        checked = _name(self.octets, signature, message)
        if checked in _checked:
            return True
        try:
            crypto_sign_open(signature + message, self.octets)
        except BadSignatureError:
            return False
        _checked.add(checked)
        return True


def _name(key: bytes, signature: bytes, message: bytes) -> bytes:
    """What a signature is remembered by: with lengths that are fixed no two of key, signature and message make the same octets."""
    return hashlib.sha256(key + signature + message).digest()


class _Checked:
    """Signatures that held, each by the hash of key, signature and message: it holds for ever, whoever's the key is and whether it still counts.

    A signature is checked when it comes and again with every certificate that shows it: a hash is a fiftieth of a check. What was made here comes back, as
    a vote does in the decision's certificate, and holds as it was made; with an octet changed it is another. Refusals are not remembered.
    """

    def __init__(self) -> None:
        self._recent: set[bytes] = set()
        self._before: set[bytes] = set()

    def __contains__(self, checked: bytes) -> bool:
        return checked in self._recent or checked in self._before

    def add(self, checked: bytes) -> None:
        """Remember one; the oldest half gives way where there are too many."""
        if len(self._recent) >= CHECKED_MAX // 2:
            self._before, self._recent = self._recent, set()
        self._recent.add(checked)


_checked: Final = _Checked()


class Signer(Protocol):
    """Whatever signs with one Ed25519 key, wherever the key lies."""

    @property
    def public(self) -> PublicKey:
        """The public half of its key."""
        ...

    def sign(self, message: bytes) -> Signature:
        """Signature over the message."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key. Its text form shows nothing of it."""

    #: 32 bytes.
    seed: bytes = field(repr=False)
    #: The public half.
    public: PublicKey = field(init=False, compare=False)
    #: Seed and public half, as libsodium takes them.
    _secret: bytes = field(init=False, repr=False, compare=False)
    _key_id: KeyId = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Worked out once: to derive the public half takes as long as to sign.
        key = _SigningKey(self.seed)
        public = PublicKey(bytes(key.verify_key))
        for name, value in (("_secret", self.seed + public.octets), ("public", public), ("_key_id", public.key_id)):
            object.__setattr__(self, name, value)

    def sign(self, message: bytes) -> Signature:
        """Signature over the message."""
        signature = crypto_sign(message, self._secret)[:SIGNATURE_BYTES]
        _checked.add(_name(self.public.octets, signature, message))
        return Signature(self._key_id, signature)
