"""A signer whose key comes out of an encrypted keystore, and stays in this process's memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32
from eth_utils.address import to_checksum_address

from lockstep_chain.ports import Signed, Unsigned
from lockstep_chain.signers.envelope import sealed, signing_hash
from lockstep_chain.signers.secret_files import read_secret
from lockstep_kit.fields import FieldInvalid


class KeystoreSigner:
    """`Signer` with a key from an encrypted keystore file."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self._address = to_checksum_address(account.address)

    @classmethod
    async def open(cls, keystore_file: Path, password_file: Path) -> Self:
        """The key of a keystore (Web3 Secret Storage version 3), decrypted with the password that another file holds.

        Raises:
            FieldInvalid: a file cannot be read, or can be read by others than its owner, or the password does not open the keystore.
        """
        # Key derivation is slow on purpose: not in the event loop.
        return cls(await asyncio.to_thread(_read_account, keystore_file, password_file))

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        return self._address

    async def sign(self, transactions: Sequence[Unsigned]) -> Sequence[Signed]:
        """Sign, in order."""
        return await asyncio.to_thread(lambda: [self._sign(each) for each in transactions])

    def _sign(self, transaction: Unsigned) -> Signed:
        signature = self._account.unsafe_sign_hash(Hash32(signing_hash(transaction)))
        # Account signs messages: v is the parity and 27.
        return sealed(transaction, signature.v - 27, signature.r, signature.s)

    async def close(self) -> None:
        """Nothing is held but memory."""


def _read_account(keystore_file: Path, password_file: Path) -> LocalAccount:
    keystore, password = read_secret("keystore_file", keystore_file), read_secret("password_file", password_file)
    try:
        document = json.loads(keystore)
    except json.JSONDecodeError:
        raise FieldInvalid("keystore_file", "must be a keystore (Web3 Secret Storage version 3)") from None
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(document, password))
    except (ValueError, KeyError, TypeError):
        raise FieldInvalid("password_file", "must hold the password of the keystore") from None
    return account
