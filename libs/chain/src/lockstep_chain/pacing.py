"""When the next legs go out in a transaction. Pure; times are seconds of one clock, block times those that the blocks tell.

Legs that come while nothing goes on go at once. Under load they come one by one, and all that come between two blocks stand in the same block, whether in
one transaction or in many. So what comes after others is gathered for the first half of the time to the next block, which nobody waits for any longer by
that; and then for a moment only.

What is lost at the edge: a chain whose blocks come sooner than its blocks have told makes what was gathered wait for the one after.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from lockstep_chain.ports import Block

#: Part of the time between two blocks for which legs are gathered.
GATHERED_PART: Final = 0.5
#: They are gathered for so long at the most: what is waited for may come at any time where blocks are seldom.
GATHERED_SECONDS_MAX: Final = 0.5
#: What comes later waits for so long after what was sent last.
MOMENT_SECONDS: Final = 0.1
#: The time between two blocks is the least of so many.
BLOCKS_REMEMBERED: Final = 8


@dataclass(frozen=True, slots=True)
class Beat:
    """How blocks come."""

    #: When the newest one was seen.
    seen_at: float
    #: Seconds between two of them at the least; 0 where that is not known.
    interval: float


class Metronome:
    """Notes how blocks come."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque(maxlen=BLOCKS_REMEMBERED)
        self._seen_at = 0.0

    def note(self, head: Block, now: float) -> None:
        """There is a new head."""
        if self._blocks and head.number <= self._blocks[-1].number:
            # A chain that goes back tells nothing of what comes.
            self._blocks.clear()
        self._blocks.append(head)
        self._seen_at = now

    @property
    def beat(self) -> Beat:
        """How blocks come, as far as was seen."""
        pairs = zip(self._blocks, list(self._blocks)[1:], strict=False)
        between = [(after.timestamp - before.timestamp) / (after.number - before.number) for before, after in pairs]
        return Beat(self._seen_at, max(0.0, min(between, default=0.0)))


def pause(now: float, sent_at: float | None, beat: Beat) -> float:
    """For how long legs are gathered before they are sent; 0: for no time.

    Args:
        now: the clock.
        sent_at: when others were sent last; None: never.
        beat: how blocks come.
    """
    if sent_at is None or now - sent_at >= max(beat.interval, MOMENT_SECONDS):
        return 0.0
    gathered_until = beat.seen_at + min(GATHERED_PART * beat.interval, GATHERED_SECONDS_MAX)
    return max(0.0, gathered_until - now, sent_at + MOMENT_SECONDS - now)
