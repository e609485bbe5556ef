"""A key on a PKCS#11 token, which it never leaves (PKCS#11 3.0: CKM_EDDSA over edwards25519, without prehashing).

Each signature has a session of its own, so that a token that was taken out and put back is used again. A PIN that was refused is not tried again: so many
wrong ones lock the token.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error

from lockstep_client.signers.naming import Pkcs11Key
from lockstep_client.signers.ports import SignerUnavailable
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.secret_files import read_secret_file
from lockstep_kit.signing import PublicKey, Signature
from lockstep_kit.tokens import PinRefused, find_key, find_token, log_in

#: Names the maker's library where the key's name does not.
MODULE: Final = "LOCKSTEP_PKCS11_MODULE"
#: DER of edwards25519: its object identifier (RFC 8410), the one that PKCS#11 3.0 uses too, and its name.
_CURVES: Final = tuple(bytes.fromhex(each) for each in ("06032b6570", "06092b06010401da470f01", "130c656477617264733235353139"))
#: DER of an octet string of 32 bytes: the key, as CKA_EC_POINT holds it.
_POINT_PREFIX: Final = bytes.fromhex("0420")
_PIN_BYTES_MAX: Final = 1_024
_SOURCE: Final = "pkcs11"
#: A module was not told to expect several threads.
_MODULES: Final = threading.Lock()


class Pkcs11Signer:
    """`Signer` with a key on a token."""

    def __init__(self, name: Pkcs11Key, library: Any, pin: str) -> None:
        self._name = name
        self._library = library
        self._pin = pin
        self._refused = ""
        with _MODULES, self._session() as session:
            self._check(session)
            self._public = self._found_public(session)

    @classmethod
    def open(cls, name: Pkcs11Key, environ: Mapping[str, str] = os.environ) -> Self:
        """Log in, and find the key.

        Raises:
            FieldInvalid: there is no such module, token or key, or the PIN is refused, or the key is none that this is for.
            SignerUnavailable: the token does not answer.
            OSError: the file with the PIN cannot be read.
        """
        module = name.module_path or environ.get(MODULE, "")
        require(module != "", "key", f"must name the maker's library as module-path, or {MODULE} must")
        require(name.pin_source is not None, "key", "must name the file with the token's user PIN as pin-source")
        path = Path(name.pin_source or "")
        pin = read_secret_file(path, _PIN_BYTES_MAX).decode(errors="replace").strip()
        require(pin != "", str(path), "must hold the token's user PIN")
        try:
            library = pkcs11.lib(module)
        except (PKCS11Error, RuntimeError):
            raise FieldInvalid("key", f"must name a PKCS#11 module that can be loaded, which {module} is not") from None
        return cls(name, library, pin)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._public

    def sign(self, message: bytes) -> Signature:
        """Signature over the message, checked before it is handed out.

        Raises:
            SignerUnavailable: the token does not sign, or not with this key.
        """
        with _MODULES:
            try:
                with self._session() as session:
                    octets = bytes(self._found(session, ObjectClass.PRIVATE_KEY).sign(message, mechanism=Mechanism.EDDSA))
            except FieldInvalid as finding:
                raise SignerUnavailable(_SOURCE, f"the token's key is not there any more: {finding}") from None
        if not self._public.verifies(message, octets):
            raise SignerUnavailable(_SOURCE, "the token signed something else, or with another key; its signature is not used")
        return Signature(self._public.key_id, octets)

    @contextmanager
    def _session(self) -> Iterator[Any]:
        if self._refused:
            raise SignerUnavailable(_SOURCE, f"the token refused the PIN ({self._refused}); it is not tried again")
        try:
            token = find_token(self._library, "key", self._token())
            with log_in(token, str(self._name.pin_source), self._pin) as session:
                yield session
        except PinRefused as finding:
            self._refused = finding.error
            raise
        except PKCS11Error as error:
            raise SignerUnavailable(_SOURCE, f"the token answers {type(error).__name__}; nothing was signed") from None

    def _token(self) -> dict[str, str]:
        named = {
            "label": self._name.token,
            "manufacturer_id": self._name.manufacturer,
            "serial": self._name.serial,
            "model": self._name.model,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _found(self, session: Any, kind: ObjectClass) -> Any:
        return find_key(session, "key", kind, KeyType.EC_EDWARDS, label=self._name.object, key_id=self._name.id)

    def _check(self, session: Any) -> None:
        private = self._found(session, ObjectClass.PRIVATE_KEY)
        closed = private[Attribute.SENSITIVE] and not private[Attribute.EXTRACTABLE]
        require(bool(closed), "key", "must name a key that is SENSITIVE and not EXTRACTABLE")

    def _found_public(self, session: Any) -> PublicKey:
        public = self._found(session, ObjectClass.PUBLIC_KEY)
        require(bytes(public[Attribute.EC_PARAMS]) in _CURVES, "key", "must name a key on the curve edwards25519")
        # Some tokens give the point itself, though the standard wants its DER.
        point = bytes(public[Attribute.EC_POINT])
        octets = point.removeprefix(_POINT_PREFIX) if len(point) == len(_POINT_PREFIX) + 32 else point
        require(len(octets) == 32, "key", "must name a key on the curve edwards25519")
        return PublicKey(octets)
