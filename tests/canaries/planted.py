"""What is looked for: what was planted in plans, and every secret that the run drew, in each form in which it could be written down."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

_PEM_BODY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+(.+?)\s+-----END", re.DOTALL)
#: What is shorter would be found by chance.
BYTES_MIN: Final = 12


class Kind(StrEnum):
    """What a canary is."""

    #: Names, accounts and texts of a plan.
    PERSONAL = "personal"
    #: Names of a plan's parties: part of the header, whose digest every participant calculates anew.
    PARTY = "party"
    #: What only its own file may hold.
    SECRET = "secret"
    #: A plan's key: sealed, and nowhere else.
    PLAN_KEY = "plan key"
    #: What somebody gave where it does not belong.
    MISPLACED = "misplaced"


@dataclass(frozen=True, slots=True)
class Canary:
    """Something to be looked for."""

    name: str
    kind: Kind
    #: Every form in which it could be written.
    forms: tuple[bytes, ...]
    #: The one file that may hold it.
    file: Path | None = None


def of_text(name: str, kind: Kind, text: str, file: Path | None = None) -> Canary:
    """A text, as it is, as part of a URL, in hex and in base64."""
    octets = text.encode()
    forms = {octets, urllib.parse.quote(text).encode(), octets.hex().encode(), *_base64(octets)}
    return Canary(name, kind, tuple(sorted(forms)), file)


def of_octets(name: str, kind: Kind, octets: bytes, file: Path | None = None) -> Canary:
    """Bytes: as they are, in hex, in base64, as Python writes them, and as a number."""
    number = str(int.from_bytes(octets, "big")).encode() if len(octets) == 32 else octets
    forms = {octets, octets.hex().encode(), octets.hex().upper().encode(), repr(octets)[2:-1].encode(), number, *_base64(octets)}
    return Canary(name, kind, tuple(sorted(each for each in forms if len(each) >= BYTES_MIN)), file)


def _base64(octets: bytes) -> Iterator[bytes]:
    """The part of its base64 that does not depend on what stands before and after, for each of the three places at which it may begin."""
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            inner = encode(bytes(shift) + octets)[(0, 4, 4)[shift] :].rstrip(b"=")[:-4]
            if len(inner) >= BYTES_MIN:
                yield inner


def of_folder(run: Path) -> Iterator[Canary]:
    """Every secret that lies in a file of a run: private keys, passwords, tokens, the key that wraps payloads."""
    for path in sorted(run.rglob("*")):
        if not path.is_file() or path.suffix == ".log":
            continue
        octets = path.read_bytes()
        name = str(path.relative_to(run))
        if found := _PEM_BODY.search(octets):
            raw = _private_octets(octets)
            yield of_octets(name, Kind.SECRET, raw, path)
            # The last line of the body alone is short, and the first says which algorithm it is of.
            body = max(found[1].split(b"\n"), key=len)
            if len(found[1].split(b"\n")) > 1:
                yield Canary(f"{name} (text)", Kind.SECRET, (body,), path)
        elif path.suffix in (".password", ".token", ".secret"):
            yield of_text(name, Kind.SECRET, octets.decode().strip(), path)
        elif name == "keys/event-journal-payload.key":
            yield of_octets(name, Kind.SECRET, base64.b64decode(octets), path)


def _private_octets(pem: bytes) -> bytes:
    """The private number of a key."""
    key = load_pem_private_key(pem, password=None)
    if isinstance(key, (ed25519.Ed25519PrivateKey, x25519.X25519PrivateKey)):
        return key.private_bytes_raw()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
    if isinstance(key, rsa.RSAPrivateKey):
        return key.private_numbers().d.to_bytes(key.key_size // 8, "big")
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
