"""What an auditor finds who has nothing but the escrow's events, in order: every hold, every claim, and what the escrow must own. Pure.

Nothing is asked of the contract, and nothing is believed that does not follow: an event that cannot come after the ones before it is an `Inconsistent`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lockstep_contracts import LegStatus, Side
from lockstep_contracts.events import Aborted, Claimed, Committed, Executed, Prepared, Reversed, Tombstoned


class Inconsistent(AssertionError):
    """The events tell of something that cannot have happened."""


@dataclass(frozen=True)
class Hold:
    """What a leg holds, or held."""

    token: str
    payer: str
    payee: str
    amount: int


@dataclass
class Audit:
    """The books, as the events make them."""

    #: Every leg that was ever named: where it stands.
    statuses: dict[bytes, LegStatus] = field(default_factory=dict)
    #: Every leg that was ever prepared.
    holds: dict[bytes, Hold] = field(default_factory=dict)
    #: Minor units that are held, and what the escrow owns, by token.
    locked: Counter[str] = field(default_factory=Counter)
    owned: Counter[str] = field(default_factory=Counter)
    #: Minor units that wait to be claimed, by token and owner.
    claimable: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: What each account had from the escrow and its orders, less what it gave, by token and account.
    net: Counter[tuple[str, str]] = field(default_factory=Counter)


def audited(events: Iterable[object]) -> Audit:
    """The books after these events.

    Raises:
        Inconsistent: they contradict one another.
    """
    books = Audit()
    for event in events:
        match event:
            case Prepared(leg_key=key, terms=terms):
                _step(books, key, LegStatus.PREPARED)
                books.holds[key] = Hold(terms.token, terms.payer, terms.payee, terms.amount)
                books.locked[terms.token] += terms.amount
                books.owned[terms.token] += terms.amount
                books.net[terms.token, terms.payer] -= terms.amount
            case Tombstoned(leg_key=key):
                _step(books, key, LegStatus.ABORTED)
            case Committed(leg_key=key, payee=owner):
                _end(books, key, LegStatus.COMMITTED, event.token, owner, event.amount, paid=event.paid)
            case Aborted(leg_key=key, payer=owner):
                _end(books, key, LegStatus.ABORTED, event.token, owner, event.amount, paid=event.paid)
            case Executed(leg_key=key, owner=owner, pay_to=side):
                status = LegStatus.COMMITTED if side is Side.PAYEE else LegStatus.ABORTED
                _end(books, key, status, event.token, owner, event.amount, paid=event.paid)
            case Reversed():
                _reverse(books, event)
            case Claimed(token=token, owner=owner, amount=amount):
                _claim(books, token, owner, amount)
                books.owned[token] -= amount
                books.net[token, owner] += amount
            case _:
                pass
    return books


#: (status before) -> statuses that may follow; None stands for no event yet.
_FOLLOWS = {
    None: {LegStatus.PREPARED, LegStatus.ABORTED},
    LegStatus.PREPARED: {LegStatus.COMMITTED, LegStatus.ABORTED},
    LegStatus.COMMITTED: {LegStatus.REVERSED},
}


def _step(books: Audit, key: bytes, status: LegStatus) -> None:
    before = books.statuses.get(key)
    if status not in _FOLLOWS.get(before, set()):
        raise Inconsistent(f"leg {key.hex()} went from {before} to {status}")
    books.statuses[key] = status


def _end(books: Audit, key: bytes, status: LegStatus, token: str, owner: str, amount: int, *, paid: bool) -> None:
    _step(books, key, status)
    hold = books.holds.get(key)
    due = None if hold is None else hold.payee if status is LegStatus.COMMITTED else hold.payer
    if hold is None or (hold.token, due, hold.amount) != (token, owner, amount):
        raise Inconsistent(f"leg {key.hex()} held {hold}, and {amount} of {token} went to {owner}")
    books.locked[token] -= amount
    _give(books, token, owner, amount, paid=paid)


def _reverse(books: Audit, event: Reversed) -> None:
    _step(books, event.leg_key, LegStatus.REVERSED)
    if books.holds.get(event.leg_key) != Hold(event.token, event.payer, event.payee, event.amount):
        raise Inconsistent(f"leg {event.leg_key.hex()} was reversed as another one")
    if event.forced:
        books.net[event.token, event.payee] -= event.amount
        books.net[event.token, event.payer] += event.amount
    else:
        _claim(books, event.token, event.payee, event.amount)
        _give(books, event.token, event.payer, event.amount, paid=event.paid)


def _give(books: Audit, token: str, owner: str, amount: int, *, paid: bool) -> None:
    if paid:
        books.owned[token] -= amount
        books.net[token, owner] += amount
    else:
        books.claimable[token, owner] += amount


def _claim(books: Audit, token: str, owner: str, amount: int) -> None:
    if books.claimable[token, owner] < amount:
        raise Inconsistent(f"{owner} was given {amount} of {token}, more than it could claim")
    books.claimable[token, owner] -= amount
