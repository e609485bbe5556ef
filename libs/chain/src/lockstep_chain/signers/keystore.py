"""A signer whose key comes out of an encrypted keystore, and stays in this process's memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from coincurve import PrivateKey
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from lockstep_chain.ports import Signed, Unsigned
from lockstep_chain.signers.envelope import sealed, signing_hash
from lockstep_chain.signers.secret_files import read_secret
from lockstep_kit.fields import FieldInvalid


class KeystoreSigner:
    """`Signer` with a key from an encrypted keystore file."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        point = key.public_key.format(compressed=False)
        self._address = to_checksum_address(keccak(point[1:])[-20:])

    @classmethod
    async def open(cls, keystore_file: Path, password_file: Path) -> Self:
        """The key of a keystore (Web3 Secret Storage version 3), decrypted with the password that another file holds.

        Raises:
            FieldInvalid: a file cannot be read, or can be read by others than its owner, or the password does not open the keystore.
        """
        # Key derivation is slow on purpose: not in the event loop.
        return cls(await asyncio.to_thread(_read_key, keystore_file, password_file))

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        return self._address

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        """Sign, in order."""
        return await asyncio.to_thread(lambda: [self._sign(each) for each in transactions])

    def _sign(self, transaction: Unsigned) -> Signed:
        # 32 bytes of r, 32 of s, which is in the lower half, and the parity.
        signature = self._key.sign_recoverable(signing_hash(transaction), hasher=None)
        return sealed(transaction, signature[64], int.from_bytes(signature[:32]), int.from_bytes(signature[32:64]))

    async def close(self) -> None:
        """Nothing is held but memory."""


def _read_key(keystore_file: Path, password_file: Path) -> PrivateKey:
    keystore, password = read_secret("keystore_file", keystore_file), read_secret("password_file", password_file)
    try:
        document = json.loads(keystore)
    except json.JSONDecodeError:
        raise FieldInvalid("keystore_file", "must be a keystore (Web3 Secret Storage version 3)") from None
    try:
        return PrivateKey(bytes(Account.decrypt(document, password)))
    except (ValueError, KeyError, TypeError):
        raise FieldInvalid("password_file", "must hold the password of the keystore") from None
