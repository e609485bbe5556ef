"""Keys of persons and services, and the registry that says whose they are.

Private keys are Ed25519 in PKCS #8 PEM, mode 0600, one file each: `keys/<name>.pem`. The registry holds public keys only.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
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
    #: Whether it is a process that signs by itself.
    agent: bool = False


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
    Person("second-approver", ("approver",)),
    Person("second-releaser", ("releaser",)),
    Person("approver-agent", ("approver",), agent=True),
    Person("releaser-agent", ("releaser",), agent=True),
)
#: By the second version of the matrix of duties agents approve and release below so many euro cents, and from so many on two persons do.
FOUR_EYES_FROM = 50_000_00
AGENTS_MAX = 1_000_00
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


def draw_payload_key(directory: Path) -> Path:
    """The key that the journal wraps plans' payload keys by."""
    return write_secret(directory / "event-journal-payload.key", base64.b64encode(secrets.token_bytes(32)) + b"\n")


def _private_pem(key: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def draw_keys(directory: Path) -> dict[str, KeyFile]:
    """A key pair for every person and every signing service, by name."""
    names = [person.actor_id for person in PEOPLE] + list(SIGNING_SERVICES)
    return {name: draw_key(name, directory) for name in names}


def matrix(version: int, rule: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A version of the matrix of duties; what is added to the rules of approving and releasing."""
    return {
        "version": version,
        "gates": {
            "MAKE": {"roles": ["maker"]},
            "APPROVE": {"roles": ["approver"], **(rule or {})},
            "RELEASE": {"roles": ["releaser"], **(rule or {})},
            "VALIDATE": {"roles": ["validator"]},
            "CANCEL": {"roles": ["maker", "approver", "releaser", "operator"]},
        },
        "different_persons": [["MAKE", "APPROVE", "RELEASE", "VALIDATE"]],
    }


def four_eyes(tokens: Sequence[str]) -> dict[str, Any]:
    """Two persons from an amount on, and agents up to a smaller one; of tokens as much as there is."""
    limits = [{"asset": "EUR", "minor_units_max": AGENTS_MAX}, *({"asset": each, "minor_units_max": 2**96 - 1} for each in tokens)]
    return {"thresholds": [{"asset": "EUR", "from_minor_units": FOUR_EYES_FROM, "signatures": 2}], "agents": limits}


def write_registry(
    path: Path, keys: Mapping[str, KeyFile], not_before: datetime, not_after: datetime, *, tokens: Sequence[str] = ()
) -> Path:
    """Writes the registry that every service is given: persons and agents with their roles, participants, their public keys, and the matrices of duties.

    Every key counts from `not_before`, inclusive, until `not_after`, exclusive; both in UTC.
    """

    def keys_of(name: str) -> list[dict[str, Any]]:
        public = base64.b64encode(keys[name].public).decode()
        return [{"public_key": public, "not_before": not_before, "not_after": not_after}]

    document = {
        "actors": [
            {
                "actor_id": person.actor_id,
                "roles": list(person.roles),
                "keys": keys_of(person.actor_id),
                "agent": person.agent,
                "limits": dict.fromkeys((role for role in person.roles if role != "operator"), "unlimited"),
            }
            for person in PEOPLE
        ],
        "participants": [{"name": name, "keys": keys_of(name)} for name in SIGNING_SERVICES],
        "matrices": [matrix(1), matrix(2, four_eyes(tokens))],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
