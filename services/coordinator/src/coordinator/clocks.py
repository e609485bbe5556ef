"""How far a participant's database clock is off the coordinator's, and what that means. Pure.

A clock is read by a call, somewhere between its sending and its answer: what is known of the offset is an interval as wide as the round trip. A plan is
prepared only with participants none of which is certainly off by more than the limit: its deadline, the authority to release that a deadline is, and
the time after which a delegated leg is not begun are read off both clocks.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from lockstep_kit.values import dataclass

#: Why a participant is waited for.
CLOCK_SKEW = "CLOCK_SKEW"


@dataclass(frozen=True, slots=True)
class Skew:
    """What is known of how far a clock is ahead; negative: behind."""

    #: Not less than this.
    least: timedelta
    #: Not more than this.
    most: timedelta

    def beyond(self, limit: timedelta) -> bool:
        """Whether the clock is certainly off by more than the limit, ahead or behind."""
        return self.least > limit or self.most < -limit


def measure(before: datetime, told: datetime, after: datetime, limit: timedelta) -> Skew | None:
    """The offset of a clock that told a time between two moments of ours.

    None where the measurement says nothing: the round trip took longer than the limit, or our own clock was put back in between.
    """
    if not timedelta() <= after - before <= limit:
        return None
    return Skew(told - after, told - before)
