"""A signer whose key lies in a hardware security module and never leaves it (PKCS#11 2.40, mechanism CKM_ECDSA over curve secp256k1).

The token gives r and s. Ethereum wants s in the lower half of the group (EIP-2), and the parity of R's y, which the token does not tell: it is found by
recovering the public key under either. A signature that recovers to no other key than the account's is the only one that is ever handed out.

A module is called by one thread of its own: it was not told to expect several, and the event loop never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self, TypeVar

import pkcs11
import structlog
from coincurve import PublicKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error

from lockstep_chain.ports import Signed, SignerUnavailable, Unsigned
from lockstep_chain.signers.envelope import sealed, signing_hash
from lockstep_chain.signers.secret_files import read_secret
from lockstep_chain.signers.settings import Pkcs11Settings
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.tokens import PinRefused, find_key, find_token, log_in

_log = structlog.get_logger()
_T = TypeVar("_T")

#: DER of the curve's object identifier, 1.3.132.0.10 (SEC 2).
SECP256K1: Final = bytes.fromhex("06052b8104000a")
#: Order of its group.
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
#: DER of an octet string of 65 bytes: an uncompressed point, as CKA_EC_POINT holds it.
_POINT_PREFIX: Final = bytes.fromhex("0441")


class _Module:
    """A module in this process, and the one thread that calls it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pkcs11")
        self._library: Any = None
        #: Grows when every session of the module has ended.
        self.generation = 0

    @property
    def library(self) -> Any:
        """The module, loaded."""
        if self._library is None:
            self._library = pkcs11.lib(self._path)
        return self._library

    def begin_anew(self) -> None:
        """End every session, as a module that lost its device wants it."""
        self.generation += 1
        with contextlib.suppress(PKCS11Error):
            self.library.finalize()
        self.library.initialize()

    async def call(self, work: Callable[[], _T], seconds_max: float) -> _T:
        """Have the thread do some work.

        Raises:
            SignerUnavailable: it took too long; whatever comes of it is dropped.
        """
        try:
            async with asyncio.timeout(seconds_max):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise SignerUnavailable(f"the token gave no answer in {seconds_max} s") from None


@functools.cache
def _module(path: str) -> _Module:
    """The one object of a module in this process: a module is initialised once."""
    return _Module(path)


class Pkcs11Signer:
    """`Signer` with a key on a token."""

    def __init__(self, settings: Pkcs11Settings, module: _Module) -> None:
        self._settings = settings
        self._module = module
        self._session: Any = None
        self._key: Any = None
        self._generation = 0
        self._address = ""
        #: Why the token's PIN is not tried again: so many wrong ones lock it.
        self._refused = ""

    @classmethod
    async def open(cls, settings: Pkcs11Settings) -> Self:
        """Log in, find the key, and have it sign once.

        Raises:
            FieldInvalid: the module cannot be loaded, or there is no such token or key, or the PIN is refused, or the key is none that this is for.
            SignerUnavailable: the token does not answer.
        """
        signer = cls(settings, _module(str(settings.module_file)))
        await signer._module.call(signer._open, settings.request_seconds_max)
        return signer

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        return self._address

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        """Sign, in order. The same transaction signed twice gives other bytes: the token draws a nonce for each signature.

        Raises:
            SignerUnavailable: the token gives no signature, though its session was opened anew.
        """
        return await self._module.call(lambda: self._sign_all(transactions), self._settings.request_seconds_max)

    async def close(self) -> None:
        """End the session."""
        await self._module.call(self._drop, self._settings.request_seconds_max)

    # -- in the module's thread ------------------------------------------------------------------------------------------

    def _sign_all(self, transactions: Sequence[Unsigned]) -> list[Signed]:
        if self._session is not None and self._generation == self._module.generation:
            try:
                return [self._sign(each) for each in transactions]
            except PKCS11Error as error:
                _log.warning("signer_session_lost", address=self._address, error=type(error).__name__)
        try:
            self._reopen()
            return [self._sign(each) for each in transactions]
        except PKCS11Error as error:
            raise SignerUnavailable(f"the token answers {type(error).__name__}") from None

    def _sign(self, transaction: Unsigned) -> Signed:
        return sealed(transaction, *self._signature(signing_hash(transaction)))

    def _signature(self, digest: bytes) -> tuple[int, int, int]:
        """Parity, r and s (in the lower half) of a signature that recovers to the account."""
        octets = bytes(self._key.sign(digest, mechanism=Mechanism.ECDSA))
        r, s = int.from_bytes(octets[:32]), int.from_bytes(octets[32:])
        s = min(s, ORDER - s)
        compact = octets[:32] + s.to_bytes(32)
        for parity in (0, 1):
            if _recovered(compact + bytes([parity]), digest) == self._address:
                return parity, r, s
        raise pkcs11.exceptions.SignatureInvalid

    def _open(self) -> None:
        settings = self._settings
        key_field = "key_label" if settings.key_label is not None else "key_id"
        try:
            library = self._module.library
        except PKCS11Error:
            raise FieldInvalid("module_file", "must be a PKCS#11 module that can be loaded") from None
        try:
            self._generation = self._module.generation
            self._session = self._logged_in(library)
            self._key = self._found(ObjectClass.PRIVATE_KEY, key_field)
            public = self._found(ObjectClass.PUBLIC_KEY, key_field)
            self._check(key_field, public)
            self._address = _address_of(bytes(public[Attribute.EC_POINT]), key_field)
            self._signature(keccak(b"lockstep: the key can sign"))
        except pkcs11.exceptions.SignatureInvalid:
            self._drop()
            raise FieldInvalid(
                key_field, "must name one key pair: what its private key signs, its public key does not bear out"
            ) from None
        except PKCS11Error as error:
            self._drop()
            raise FieldInvalid("token_label", f"must name a token that can be used; it answers {type(error).__name__}") from None
        except FieldInvalid:
            self._drop()
            raise

    def _logged_in(self, library: Any) -> Any:
        token = find_token(library, "token_label", {"label": self._settings.token_label})
        pin = read_secret("pin_file", self._settings.pin_file)
        require(pin != "", "pin_file", "must hold the token's user PIN")
        try:
            # Another account of this process may have logged in.
            return log_in(token, "pin_file", pin)
        except PinRefused as finding:
            self._refused = finding.error
            raise

    def _found(self, kind: ObjectClass, key_field: str) -> Any:
        label, key_id = self._settings.key_label, self._settings.key_id_bytes
        return find_key(self._session, key_field, kind, KeyType.EC, label=label, key_id=key_id)

    def _check(self, key_field: str, public: Any) -> None:
        require(bytes(public[Attribute.EC_PARAMS]) == SECP256K1, key_field, "must name a key on the curve secp256k1")
        closed = self._key[Attribute.SENSITIVE] and not self._key[Attribute.EXTRACTABLE]
        require(bool(closed), key_field, "must name a key that is SENSITIVE and not EXTRACTABLE")

    def _reopen(self) -> None:
        """A new session, and the same key.

        Raises:
            SignerUnavailable: there is none, or it is another key.
        """
        if self._refused:
            raise SignerUnavailable(f"the token refused the PIN ({self._refused}); it is not tried again")
        before = self._address
        self._drop()
        try:
            self._open()
        except FieldInvalid as first:
            if self._refused:
                raise SignerUnavailable(str(first)) from None
            try:
                self._module.begin_anew()
                self._open()
            except (FieldInvalid, PKCS11Error) as finding:
                raise SignerUnavailable(str(finding) or type(finding).__name__) from None
        finally:
            found, self._address = self._address, before
        if found != before:
            self._drop()
            raise SignerUnavailable(f"the token has the key of {found} now, not of {before}")

    def _drop(self) -> None:
        session, self._session, self._key = self._session, None, None
        if session is None or self._generation != self._module.generation:
            return
        try:
            session.close()
        except PKCS11Error as error:
            _log.debug("session_not_closed", error=type(error).__name__)


def _address_of(point: bytes, key_field: str) -> str:
    # Some tokens give the point itself, though the standard wants its DER.
    octets = point.removeprefix(_POINT_PREFIX) if len(point) == len(_POINT_PREFIX) + 65 else point
    try:
        return _address(PublicKey(octets))
    except ValueError:
        raise FieldInvalid(key_field, "must name a key on the curve secp256k1") from None


def _recovered(signature: bytes, digest: bytes) -> str | None:
    try:
        return _address(PublicKey.from_signature_and_message(signature, digest, hasher=None))
    except ValueError:
        return None


def _address(key: PublicKey) -> str:
    return to_checksum_address(keccak(key.format(compressed=False)[1:])[-20:])
