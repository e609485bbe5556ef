"""Private keys in files: written once, for the owner alone, and read only when that is still so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.key_files import read_signing_key, write_signing_key
from lockstep_testkit.factories import key_of


def test_written_and_read(tmp_path: Path) -> None:
    """A key that was written reads back as itself, from a file of mode 0600 whatever the umask was."""
    path = tmp_path / "key.pem"
    before = os.umask(0)
    try:
        write_signing_key(path, key_of("alice"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert read_signing_key(path) == key_of("alice")


def test_never_overwritten(tmp_path: Path) -> None:
    """A key is never written over another."""
    path = tmp_path / "key.pem"
    write_signing_key(path, key_of("alice"))
    with pytest.raises(FileExistsError):
        write_signing_key(path, key_of("bob"))
    assert read_signing_key(path) == key_of("alice")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o610])
def test_others_may_read(tmp_path: Path, mode: int) -> None:
    """A key that group or others can touch is refused, and the error says nothing of it."""
    path = tmp_path / "key.pem"
    write_signing_key(path, key_of("alice"))
    path.chmod(mode)
    with pytest.raises(FieldInvalid, match="0600") as caught:
        read_signing_key(path)
    assert caught.value.field == str(path)


@pytest.mark.parametrize("kind", ["empty", "text", "huge", "another curve", "passphrase", "folder"])
def test_no_key(tmp_path: Path, kind: str) -> None:
    """What is no unencrypted Ed25519 key is refused by name."""
    path = tmp_path / "key.pem"
    key = Ed25519PrivateKey.from_private_bytes(key_of("alice").seed)
    octets = {
        "empty": b"",
        "text": b"secret secret",
        "huge": b"x" * 100_000,
        "another curve": ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "passphrase": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")),
        "folder": b"",
    }[kind]
    if kind == "folder":
        with pytest.raises(OSError, match="directory"):
            read_signing_key(tmp_path)
        return
    path.write_bytes(octets)
    path.chmod(0o600)
    with pytest.raises(FieldInvalid) as caught:
        read_signing_key(path)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
