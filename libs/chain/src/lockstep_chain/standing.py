"""Whose answers count: how an endpoint has behaved, and what follows from it. Pure; times are seconds of one clock.

An endpoint is left out when it fails at what another one answers, again and again; when its head stands still far behind the highest; or when it serves
another chain. It is asked again after a back-off, and counts once it has shown that it serves the same chain and is not behind.

A single lost answer leaves nobody out, so that losing one is not enough to have another endpoint believed alone. A node that is behind and moves is waited for
rather than left out: else one that claims heights that do not exist would be left as the only one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from lockstep_kit.values import dataclass, replace

#: What a failure adds, what an answer takes away, and where an endpoint is left out: three failures in a row, or every fifth question for long.
FAILURE: Final = 4
ANSWER: Final = 1
LEFT_OUT_AT: Final = 3 * FAILURE


@dataclass(frozen=True, slots=True)
class Rules:
    """When endpoints count, and how many must."""

    #: So many must count for anything to be concluded.
    agreement_min: int = 1
    #: A head that is further below the highest and does not move is behind.
    lag_blocks_max: int = 8
    #: A head that has not moved for so long does not move.
    lag_seconds_max: float = 10.0
    #: Pending nonces that are further apart are a contradiction.
    pending_apart_max: int = 200


@dataclass(frozen=True, slots=True)
class Record:
    """How one endpoint has behaved."""

    #: Whether its answers count.
    counts: bool = False
    #: Whether it must say again which chain it serves before its next answer counts: it has failed since it said so.
    doubted: bool = True
    #: Failures by kind of question, weighed.
    demerits: Mapping[str, int] = field(default_factory=dict)
    #: How often in a row it was left out, or not let in again, without doing well in between.
    outages: int = 0
    #: Its head, and since when it has been there.
    height: int = 0
    moved_at: float = 0.0


def failed(record: Record, kind: str, *, held: bool) -> Record:
    """It did not answer; held against it only where another endpoint answered."""
    demerits = dict(record.demerits)
    if held:
        demerits[kind] = min(demerits.get(kind, 0) + FAILURE, LEFT_OUT_AT)
    return replace(record, doubted=True, demerits=demerits)


def answered(record: Record, kind: str) -> Record:
    """It answered."""
    if not record.outages and kind not in record.demerits:
        return record
    left = record.demerits.get(kind, 0) - ANSWER
    demerits = {each: value for each, value in record.demerits.items() if each != kind} | ({kind: left} if left > 0 else {})
    return replace(record, demerits=demerits, outages=record.outages if demerits else 0)


def failing(record: Record) -> bool:
    """Whether it has failed so often that it is left out."""
    return max(record.demerits.values(), default=0) >= LEFT_OUT_AT


def left_out(record: Record) -> Record:
    """Its answers no longer count."""
    return replace(record, counts=False, doubted=True, outages=record.outages + 1)


def let_in(record: Record) -> Record:
    """Its answers count; at the next failure of the kind that it was left out for it is left out again."""
    demerits = {kind: min(value, LEFT_OUT_AT - FAILURE) for kind, value in record.demerits.items()}
    return replace(record, counts=True, doubted=False, demerits=demerits)


def seen(record: Record, height: int, now: float) -> Record:
    """It told of its head."""
    return replace(record, height=height, moved_at=now) if height != record.height else record


def behind(height: int, others: Mapping[int, Record], rules: Rules) -> bool:
    """Whether a head is far below the highest of the endpoints that count."""
    highest = max((each.height for each in others.values() if each.counts), default=0)
    return height < highest - rules.lag_blocks_max


def standing_still(records: Mapping[int, Record], now: float, rules: Rules) -> list[int]:
    """The places of endpoints that are far behind and do not move."""
    return [
        place
        for place, record in records.items()
        if record.counts and behind(record.height, records, rules) and now - record.moved_at > rules.lag_seconds_max
    ]
