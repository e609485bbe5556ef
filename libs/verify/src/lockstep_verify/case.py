"""What is being verified, as far as it has been read. Pure.

Checks run in the order of `checks.CHECKS`. One that reads something leaves it here for those that rely on it; those run only if it passed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lockstep_verify.documents import TERMS
from lockstep_verify.forms import octets
from lockstep_verify.notes import Note
from lockstep_verify.signatures import key_id, verifies


class NotChecked(Exception):
    """A check cannot be made; its text says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold."""

    #: Path in the bundle.
    place: str
    #: One sentence.
    message: str


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key of the trust file, or of the journal's history."""

    #: 32 bytes.
    octets: bytes
    #: From when its signatures count, inclusive; texts of the one form of a time are ordered as times are.
    not_before: str
    #: Until when, exclusive.
    not_after: str

    def valid_at(self, moment: str) -> bool:
        """Whether its signatures count at that moment."""
        return self.not_before <= moment < self.not_after

    @property
    def id(self) -> str:
        """What names the key."""
        return key_id(self.octets)

    def signed(self, mark: Mapping[str, str], message: bytes) -> bool:
        """Whether it made a signature of the bundle over the message."""
        return mark["key_id"] == self.id and verifies(self.octets, message, octets(mark["signature"]))

    def made(self, signature: str, message: bytes) -> bool:
        """Whether it made a signature of a payload, in hex, over the message."""
        return verifies(self.octets, message, bytes.fromhex(signature))


def trusted_keys(listed: list[dict[str, str]]) -> tuple[TrustedKey, ...]:
    """Keys of the trust file."""
    return tuple(TrustedKey(octets(each["public_key"]), each["not_before"], each["not_after"]) for each in listed)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the plan's chain."""

    #: Path in the bundle.
    place: str
    #: What was signed.
    signed: bytes
    #: The document in it.
    document: dict[str, Any]
    #: Bytes of its payload; None where it was erased.
    payload: bytes | None

    @property
    def hash(self) -> str:
        """Hash of the entry, in hex."""
        return hashlib.sha256(self.signed).hexdigest()


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement of a person or a participant."""

    #: Path in the bundle.
    place: str
    #: What was signed.
    octets: bytes
    #: The document in it.
    document: dict[str, Any]
    #: key_id and signature, as the bundle writes them.
    given: dict[str, str]
    #: The person that is shown to have signed, or "", and by which key.
    signer: str = ""
    key: TrustedKey | None = None

    @property
    def hash(self) -> str:
        """SHA-256 of what was signed, in hex."""
        return hashlib.sha256(self.octets).hexdigest()

    @property
    def mark(self) -> dict[str, str]:
        """key_id and signature, as statements over statements write them."""
        return {"key_id": self.given["key_id"], "signature": octets(self.given["signature"]).hex()}


@dataclass(slots=True)
class Case:
    """A bundle, what the auditor trusts, and what was read so far."""

    #: The bundle, of its form.
    bundle: dict[str, Any]
    #: The trust file, of its form.
    trust: dict[str, Any]
    #: Head of the plan, and its digest in hex.
    header: dict[str, Any] = field(default_factory=dict)
    plan_digest: str = ""
    #: Legs in plan order.
    legs: list[dict[str, Any]] = field(default_factory=list)
    #: The chain.
    entries: list[Entry] = field(default_factory=list)
    #: Payloads by index of their entry, without those that were erased.
    payloads: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: The seal's payload; None where it was erased.
    seal: dict[str, Any] | None = None
    #: Keys of the journal.
    journal_keys: tuple[TrustedKey, ...] = ()
    #: The journal's checkpoint, the witness's, and when it was cosigned.
    checkpoint: Note | None = None
    witnessed: Note | None = None
    witnessed_at: str = ""
    #: Signed statements.
    gates: list[Signed] = field(default_factory=list)
    votes: list[Signed] = field(default_factory=list)
    outcomes: list[Signed] = field(default_factory=list)
    #: The matrix of duties that the plan names.
    matrix: dict[str, Any] = field(default_factory=dict)
    #: Orders to reverse that two operators gave.
    orders: list[str] = field(default_factory=list)
    #: What banks' messages the outcomes name.
    messages: list[dict[str, str]] = field(default_factory=list)
    #: What stands on chain, as the notary and its transactions say: hash of the transaction, number and hash of the block, and who sent it.
    blocks: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)

    _owners: dict[str, tuple[dict[str, Any], TrustedKey]] = field(default_factory=dict)

    @property
    def erased(self) -> list[str]:
        """Sequences of the entries whose payload was erased."""
        return [str(each.document["sequence"]) for each in self.entries if each.payload is None]

    @property
    def settling(self) -> list[str]:
        """Ids of the legs that move value, in plan order."""
        return [each["leg_id"] for each in self.legs if each["kind"] not in ("notarisation", "journal")]

    @property
    def amounts(self) -> dict[str, int]:
        """Minor units by asset, over all legs: what a plan's signers are judged by."""
        found: dict[str, int] = {}
        for each in self.legs:
            if each["kind"] in TERMS:
                amount = each["terms"]["amount"]
                found[amount["asset"]] = found.get(amount["asset"], 0) + int(amount["minor_units"])
        return dict(sorted(found.items()))

    def person(self, actor_id: str) -> dict[str, Any]:
        """A person of the trust file who has signed something."""
        return next(each for each in self.trust["persons"] if each["actor_id"] == actor_id)

    def owner(self, key_id: str) -> tuple[dict[str, Any], TrustedKey] | None:
        """Whose key it is; None where no trusted person has it."""
        if not self._owners:
            for person in self.trust.get("persons", []):
                self._owners |= {key.id: (person, key) for key in trusted_keys(person["keys"])}
        return self._owners.get(key_id)

    def told(self, name: str) -> Iterator[tuple[Entry, Any]]:
        """What payloads say under a name, each with its entry, in the order of the chain."""
        for index, payload in sorted(self.payloads.items()):
            if name in payload:
                yield self.entries[index], payload[name]

    def require_payloads(self, findings: list[Finding]) -> list[Finding]:
        """The findings of a check that reads payloads; where none is found and some payloads were erased, the check cannot be made."""
        if not findings and self.erased:
            raise NotChecked("payloads were erased")
        return findings

    def require_trust(self, name: str, what: str) -> Any:
        """A part of the trust file."""
        if name not in self.trust:
            raise NotChecked(f"the trust file does not name {what}")
        return self.trust[name]
