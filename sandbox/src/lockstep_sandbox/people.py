"""Keys of persons and services, and the registry that says whose they are.

Private keys are Ed25519 in PKCS #8 PEM, mode 0600, one file each: `keys/<name>.pem`. The registry holds public keys only.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lockstep_sandbox.runtime import write_secret


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs."""

    #: Registered id.
    actor_id: str
    #: What he or she may do, as the registry calls it.
    roles: tuple[str, ...]


#: One person for each gate, since no two gates may be opened by the same; two operators, since every resolution needs two; and a deputy
#: with several roles, who may take each of them, but never two in one plan.
PEOPLE = (
    Person("maker", ("maker",)),
    Person("approver", ("approver",)),
    Person("releaser", ("releaser",)),
    Person("validator", ("validator",)),
    Person("operator-one", ("operator",)),
    Person("operator-two", ("operator",)),
    Person("deputy", ("maker", "approver", "releaser")),
)
#: Services that sign what they vote, report or append.
SIGNING_SERVICES = ("dlt-gateway", "bank-gateway", "notary", "event-journal")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key pair whose private half lies in a file."""

    #: Person or service.
    name: str
    #: PKCS #8 PEM, mode 0600.
    private_file: Path
    #: 32 bytes.
    public: bytes


def draw_key(name: str, directory: Path) -> KeyFile:
    """Draws a key pair and writes its private half."""
    key = Ed25519PrivateKey.generate()
    private = _private_pem(key)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return KeyFile(name, write_secret(directory / f"{name}.pem", private), public)


def draw_sealing_keys(directory: Path) -> tuple[Path, Path]:
    """X25519 keys for plans' keys: the coordinator's private one, and the public half of an offline one, whose private half lies beside it."""
    service, recovery = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    private = write_secret(directory / "coordinator-seal.pem", _private_pem(service))
    write_secret(directory / "offline-recovery.pem", _private_pem(recovery))
    public = recovery.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private, write_secret(directory / "offline-recovery-public.pem", public)


def _private_pem(key: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def draw_keys(directory: Path) -> dict[str, KeyFile]:
    """A key pair for every person and every signing service, by name."""
    names = [person.actor_id for person in PEOPLE] + list(SIGNING_SERVICES)
    return {name: draw_key(name, directory) for name in names}


def write_registry(path: Path, keys: Mapping[str, KeyFile], not_before: datetime, not_after: datetime) -> Path:
    """Writes the registry that every service is given: persons with their roles, participants, and their public keys in base64.

    Every key counts from `not_before`, inclusive, until `not_after`, exclusive; both in UTC.
    """

    def keys_of(name: str) -> list[dict[str, Any]]:
        public = base64.b64encode(keys[name].public).decode()
        return [{"public_key": public, "not_before": not_before, "not_after": not_after}]

    document = {
        "actors": [
            {"actor_id": person.actor_id, "roles": list(person.roles), "keys": keys_of(person.actor_id)} for person in PEOPLE
        ],
        "participants": [{"name": name, "keys": keys_of(name)} for name in SIGNING_SERVICES],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
