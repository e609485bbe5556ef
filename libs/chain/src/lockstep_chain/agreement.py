"""What several endpoints of one chain say together: one answer, or none. Pure.

What decides money is answered only if every endpoint that counts (`standing`) says the same: final blocks, canonical hashes, nonces, receipts, transactions of
a block, what a contract answers, logs. Anything else is `Unagreed`: unknown, never an answer. What is missing at one endpoint and there at another is not
missing; the chain is told as high as the lowest endpoint has it, so that a node that is some blocks behind is waited for and contradicts nobody.

What is guaranteed:

- As long as one of the endpoints that count tells the truth, the others can make nothing true that is not, each alone or all together: they can only keep
  everything waiting. No majority outvotes an endpoint, since nobody can tell from outside which of them is right: the finding names who said what, and a
  person takes one out of the settings.
- An endpoint that is down, stands still behind the others, or serves another chain is left out, and the rest goes on, while `agreement_min` of them count.

What is lost at the edge: while one endpoint alone counts, it is believed alone, also about which others to let in. It comes to that when all others are down;
or, on a chain that makes no blocks, when it claims some that do not exist, and the others seem to stand still. `agreement_min` says how many must count: with
1, of two endpoints one can be down and settlements go on; with 2, they wait. Of three endpoints and 2, one can be down, and none is ever believed alone.

Where a wrong answer costs time or fees but cannot make a false outcome, the answers are combined instead: see `conditions` and `answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from statistics import median_low
from typing import Final, TypeVar

from lockstep_chain.ports import Answer, Block, Conditions, Receipt
from lockstep_kit.values import dataclass

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)

#: Of what an endpoint said, so much is shown in a finding.
SHOWN_CHARACTERS: Final = 200

#: Of several answers to the same bytes the first in this order counts. That a node has them is enough; that no block can ever hold them must be said by all,
#: since an empty transaction takes their place then.
PRECEDENCE: Final = (
    Answer.ACCEPTED,
    Answer.UNCLEAR,
    Answer.NONCE_USED,
    Answer.OUTBID,
    Answer.UNDERPRICED,
    Answer.UNFUNDED,
    Answer.IMPOSSIBLE,
)


@dataclass(frozen=True, slots=True)
class Unagreed:
    """There is no answer."""

    #: One sentence that names who said what.
    finding: str
    #: Whether the endpoints contradict one another; else one of them has not come so far yet.
    contradiction: bool = True


def same(what: str, said: Mapping[int, _T]) -> _T | Unagreed:
    """What every endpoint says alike; answers by the endpoint's place in the settings."""
    first, *others = said.values()
    if all(each == first for each in others):
        return first
    return Unagreed(f"the endpoints contradict one another about {what}: {_who_said_what(said)}")


def lowest(heads: Mapping[int, Block]) -> Block:
    """The head that every endpoint has reached. Its hash is one endpoint's word: whether it is canonical is another question."""
    return min(heads.values(), key=lambda head: head.number)


def tagged(what: str, said: Mapping[int, Block | None]) -> Block | Unagreed | None:
    """The lowest of the blocks that have a tag; None where the chain has no such tag. Whether the others have it too is another question."""
    found = [each for each in said.values() if each is not None]
    if found and len(found) < len(said):
        without = ", ".join(str(place) for place, each in said.items() if each is None)
        return Unagreed(f"endpoint {without} has no {what}, others have", contradiction=False)
    return min(found, key=lambda block: block.number) if found else None


def receipts(hashes: Sequence[bytes], said: Mapping[int, Mapping[bytes, Receipt]]) -> dict[bytes, Receipt] | Unagreed:
    """Receipts that all endpoints have alike; one is missing only if all of them miss it."""
    return _entries(hashes, said, lambda key: f"the receipt of 0x{key.hex()}")


def canonical(numbers: Collection[int], said: Mapping[int, Mapping[int, bytes]]) -> dict[int, bytes] | Unagreed:
    """Hashes of canonical blocks that all endpoints have alike; one is missing only if all of them miss it."""
    return _entries(sorted(set(numbers)), said, lambda number: f"the hash of block {number}")


def conditions(said: Mapping[int, Conditions], pending_apart_max: int) -> Conditions | Unagreed:
    """What a new transaction is signed under: the lowest head, the highest pending nonce, the lower medians of tips and balances.

    A pool may not have heard of everything, so the highest count holds; but no further above the lowest than transactions of one account can be on their way,
    since a nonce far above the others could never be mined. Of two tips the lower is taken: one that is too low is raised later, one that is paid is gone.
    """
    nonces = {place: each.pending_nonce for place, each in said.items()}
    if max(nonces.values()) - min(nonces.values()) > pending_apart_max:
        return Unagreed(f"the endpoints' pending nonces are too far apart: {_who_said_what(nonces)}")
    head = lowest({place: each.head for place, each in said.items()})
    tip, balance = (median_low(values) for values in zip(*((each.tip, each.balance) for each in said.values()), strict=True))
    return Conditions(max(nonces.values()), head, tip, balance)


def answers(said: Sequence[Sequence[Answer]], count: int) -> list[Answer]:
    """What endpoints said together of bytes that each was sent; UNCLEAR where none was asked."""
    return [min((each[index] for each in said), key=PRECEDENCE.index, default=Answer.UNCLEAR) for index in range(count)]


def _entries(keys: Sequence[_K], said: Mapping[int, Mapping[_K, _T]], name: Callable[[_K], str]) -> dict[_K, _T] | Unagreed:
    found: dict[_K, _T] = {}
    for key in keys:
        by_place = {place: entries[key] for place, entries in said.items() if key in entries}
        if not by_place:
            continue
        agreed = same(name(key), by_place)
        if isinstance(agreed, Unagreed):
            return agreed
        if len(by_place) < len(said):
            without = ", ".join(str(place) for place in said if place not in by_place)
            return Unagreed(f"endpoint {without} does not have {name(key)} yet, others have", contradiction=False)
        found[key] = agreed
    return found


def _who_said_what(said: Mapping[int, object]) -> str:
    return "; ".join(f"endpoint {place} says {str(each)[:SHOWN_CHARACTERS]}" for place, each in said.items())
