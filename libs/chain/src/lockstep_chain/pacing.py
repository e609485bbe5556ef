"""When the next legs go out in a transaction. Pure; times are seconds of one clock, block times those that the blocks tell.

Legs that come while nothing goes on go at once. Under load they come one by one, and all that come between two blocks stand in the same block, whether in
one transaction or in many. So what comes after others is gathered for the greater part of the time to the next block, which nobody waits for any longer by
that; and then for a moment only. In the same way nobody looks for a block soon after the one before.

What is lost at the edge: a chain whose blocks come sooner than its blocks have told makes what was gathered wait for the one after.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lockstep_chain.ports import Block
from lockstep_kit.values import dataclass

#: Part of the time between two blocks for which legs are gathered, and the most in seconds: what is waited for may come at any time where blocks are seldom.
GATHERED_PART: Final = 0.6
GATHERED_SECONDS_MAX: Final = 0.6
#: What comes later waits for that part of it after what was sent last, and for so long in seconds at the least.
MOMENT_PART: Final = 0.2
MOMENT_SECONDS_MIN: Final = 0.02
#: Part of it in which no other block is looked for, and the most in seconds.
QUIET_PART: Final = 0.7
QUIET_SECONDS_MAX: Final = 5.0
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
        self._blocks: deque[tuple[Block, float]] = deque(maxlen=BLOCKS_REMEMBERED)

    def note(self, head: Block, now: float) -> None:
        """There is a new head."""
        if self._blocks and head.number <= self._blocks[-1][0].number:
            # A chain that goes back tells nothing of what comes.
            self._blocks.clear()
        self._blocks.append((head, now))

    @property
    def beat(self) -> Beat:
        """How blocks come, as far as was seen: by what they tell, or by our clock where that is less."""
        pairs = zip(self._blocks, list(self._blocks)[1:], strict=False)
        between = [
            min(after.timestamp - before.timestamp, seen - seen_before) / (after.number - before.number)
            for (before, seen_before), (after, seen) in pairs
        ]
        return Beat(self._blocks[-1][1] if self._blocks else 0.0, max(0.0, min(between, default=0.0)))


def quiet_until(beat: Beat) -> float:
    """When another block may come."""
    return beat.seen_at + min(QUIET_PART * beat.interval, QUIET_SECONDS_MAX)


def pause(now: float, sent_at: float | None, beat: Beat) -> float:
    """For how long legs are gathered before they are sent; 0: for no time.

    Args:
        now: the clock.
        sent_at: when others were sent last; None: never.
        beat: how blocks come.
    """
    moment = max(min(MOMENT_PART * beat.interval, GATHERED_SECONDS_MAX), MOMENT_SECONDS_MIN)
    if sent_at is None or now - sent_at >= max(beat.interval, moment):
        return 0.0
    gathered_until = beat.seen_at + min(GATHERED_PART * beat.interval, GATHERED_SECONDS_MAX)
    return max(0.0, gathered_until - now, sent_at + moment - now)
