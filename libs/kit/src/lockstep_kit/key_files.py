"""Private keys in files: Ed25519, PKCS8 PEM (RFC 8410), readable by their owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.secret_files import read_secret_file
from lockstep_kit.signing import SigningKey

#: A PKCS8 PEM of an Ed25519 key has 119 bytes; a file far beyond that is none.
_FILE_BYTES_MAX: Final = 4_096


def read_signing_key(path: Path) -> SigningKey:
    """The key in a file.

    Raises:
        FieldInvalid: others may read the file, or it holds no Ed25519 key as unencrypted PKCS8 PEM. The field is the path.
        OSError: the file cannot be read.
    """
    octets = read_secret_file(path, _FILE_BYTES_MAX + 1)
    try:
        key = load_pem_private_key(octets, password=None) if len(octets) <= _FILE_BYTES_MAX else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    # Raised outside the handler: the library's error may quote what is in the file.
    if not isinstance(key, Ed25519PrivateKey):
        raise FieldInvalid(str(path), "must be an Ed25519 private key, PKCS8 PEM without a passphrase")
    return SigningKey(key.private_bytes_raw())


def write_signing_key(path: Path, key: SigningKey) -> None:
    """Write a key to a new file with mode 0600.

    Raises:
        FileExistsError: there is such a file; a key is never overwritten.
    """
    octets = Ed25519PrivateKey.from_private_bytes(key.seed).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
