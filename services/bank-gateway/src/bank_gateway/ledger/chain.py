"""How entries are hashed and linked, and what a ledger must be to be right. Pure: an auditor needs the rows and this, and believes no database.

The octets of an entry are its fields as lines of UTF-8, the first of them CONTENT. Its content hash is their SHA-256. Its hash is SHA-256 over the hash of the
entry before (32 zero octets before the first), its sequence and its time in microseconds since 1970 (both as eight octets, big-endian), and its content hash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from bank_gateway.ledger.rules import AccountKind, Entry, kind_of
from lockstep_kit.ids import sha256
from lockstep_kit.values import dataclass

#: First line of an entry's octets.
CONTENT: Final = "lockstep/ledger/v1"
#: What the first entry of a ledger is linked to.
GENESIS: Final = bytes(32)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Accounts whose balance is never negative; SUSPENSE is never positive, and a LINE goes no lower than its limit.
NEVER_NEGATIVE: Final = frozenset({AccountKind.INSTRUCTED, AccountKind.HELD, AccountKind.SETTLED, AccountKind.FEES})


@dataclass(frozen=True, slots=True)
class PostedEntry:
    """An entry in its place."""

    #: Place in its ledger, from 1 without gaps.
    sequence: int
    #: What it says.
    entry: Entry
    #: When it was posted, by the database's clock.
    recorded_at: datetime
    #: Hash of the entry before.
    previous: bytes
    #: Hash of what it says.
    content: bytes
    #: Its hash.
    hash: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the database keeps it."""

    #: Minor units: credited less debited.
    balance: int
    #: Lowest balance, negated, of a LINE; None: no limit.
    limit: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a ledger's chain."""

    #: Sequence of the last entry; 0: there is none.
    sequence: int = 0
    #: Its hash.
    hash: bytes = GENESIS


def content_of(entry: Entry) -> bytes:
    """Hash of what an entry says."""
    lines = (
        CONTENT, entry.ledger, entry.reference, entry.kind, entry.uetr, entry.debit, entry.credit, str(entry.amount),
    )  # fmt: skip
    return sha256("\n".join(lines).encode())


def link(previous: bytes, sequence: int, recorded_at: datetime, content: bytes) -> bytes:
    """Hash of an entry in its place."""
    micros = (recorded_at - _EPOCH) // timedelta(microseconds=1)
    return sha256(previous + struct.pack(">qq", sequence, micros) + content)


@dataclass
class Audit:
    """Reads one ledger's entries in their order, and then says whether its head and accounts are what they come to."""

    #: The ledger's name.
    ledger: str
    #: The end of what was read.
    head: Head = Head()

    def __post_init__(self) -> None:
        """Begin with nothing read."""
        self._balances: dict[str, int] = {}
        self._references: set[str] = set()

    def read(self, posted: Iterable[PostedEntry]) -> Iterator[str]:
        """What is wrong with the next entries, one sentence each."""
        for each in posted:
            entry, at = each.entry, f"entry {each.sequence} of {self.ledger}"
            if entry.ledger != self.ledger:
                yield f"{at} is of {entry.ledger}"
            if each.sequence != self.head.sequence + 1:
                yield f"{at} follows {self.head.sequence}"
            if each.previous != self.head.hash:
                yield f"{at} is not linked to the one before"
            if each.content != content_of(entry):
                yield f"{at} does not say what was hashed"
            if each.hash != link(each.previous, each.sequence, each.recorded_at, each.content):
                yield f"{at} has another hash than its link"
            if entry.reference in self._references:
                yield f"{at} repeats the reference {entry.reference}"
            if entry.amount <= 0 or entry.debit == entry.credit:
                yield f"{at} moves nothing"
            self._references.add(entry.reference)
            self._balances[entry.debit] = self._balances.get(entry.debit, 0) - entry.amount
            self._balances[entry.credit] = self._balances.get(entry.credit, 0) + entry.amount
            self.head = Head(each.sequence, each.hash)

    def close(self, head: Head, accounts: Mapping[str, Account]) -> Iterator[str]:
        """What is wrong with the ledger's head and accounts, now that every entry was read."""
        if head != self.head:
            yield f"the head of {self.ledger} is {head.sequence}, and its last entry {self.head.sequence}, or their hashes differ"
        for name in sorted(self._balances.keys() - accounts.keys()):
            yield f"account {name} of {self.ledger} has entries and is not open"
        for name, account in accounts.items():
            expected = self._balances.get(name, 0)
            if account.balance != expected:
                yield f"account {name} of {self.ledger} stands at {account.balance}, and its entries come to {expected}"
            kind = kind_of(name)
            if (kind in NEVER_NEGATIVE and account.balance < 0) or (kind is AccountKind.SUSPENSE and account.balance > 0):
                yield f"account {name} of {self.ledger} is on the wrong side: {account.balance}"
        if sum(account.balance for account in accounts.values()):
            yield f"the accounts of {self.ledger} do not balance"
