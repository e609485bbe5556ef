"""Who cancels its calls as soon as it makes them, and when the next of its calls is looked at. Pure; the clock is an argument.

A call that nobody waits for costs the server as much as one that is answered, and is over before anything that refuses calls sees it. So callers may have so
many of these, and beyond them the server takes their next calls late, one after the other. What waits fills the streams that a connection may have, and the
transport refuses what is beyond them, which costs little.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from lockstep_kit.rpc import buckets
from lockstep_kit.rpc.buckets import Bucket, Rate
from lockstep_kit.values import dataclass

#: A call that had no answer for longer than this was waited for, and whoever gave it up, or its deadline, did so with reason.
SOON_SECONDS: Final = 1.0
#: No call waits longer for its turn; one that would is never taken, and is let go then.
TURN_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of a call that has come."""

    #: When it need not be held any more.
    at: float
    #: Whether it is taken then, rather than let go.
    is_taken: bool
    #: Whether it is the first of its caller that is held, after a pause.
    begins: bool = False


@dataclass(slots=True)
class _Caller:
    """A caller that cancelled calls."""

    rate: Rate
    bucket: Bucket
    #: When the last of its calls that wait is looked at.
    turn: float = -math.inf


class Cancellations:
    """What every caller has cancelled; callers that have owed nothing for the longest are forgotten first."""

    def __init__(self, rate_of: Callable[[str], Rate], callers_max: int) -> None:
        """`rate_of` says how fast a caller may cancel calls."""
        self._rate_of = rate_of
        self._callers_max = callers_max
        self._callers: OrderedDict[str, _Caller] = OrderedDict()

    def __len__(self) -> int:
        """Callers that are kept."""
        return len(self._callers)

    def ended(self, caller: str, seconds: float, now: float) -> None:
        """A call ended without an answer so many seconds after it was taken."""
        if seconds > SOON_SECONDS:
            return
        held = self._callers.get(caller)
        if held is None:
            rate = self._rate_of(caller)
            held = self._callers[caller] = _Caller(rate, buckets.full(rate, now))
            if len(self._callers) > self._callers_max:
                self._callers.popitem(last=False)
        else:
            self._callers.move_to_end(caller)
        present = buckets.filled(held.bucket, held.rate, now)
        # Calls that were taken before it was found out are owed, but no more than another burst of them.
        held.bucket = Bucket(max(present.level - 1.0, -held.rate.burst), present.at)

    def turn(self, caller: str, now: float) -> Turn:
        """When a call that comes now is to be taken: now, or later, at the rate of the caller."""
        held = self._callers.get(caller)
        if held is None or (held.turn <= now and buckets.filled(held.bucket, held.rate, now).level >= 1.0):
            return Turn(now, is_taken=True)
        turn, last = max(held.turn, now) + 1.0 / held.rate.per_second, now + TURN_SECONDS_MAX
        if turn > last:
            return Turn(last, is_taken=False)
        begins, held.turn = held.turn < now - TURN_SECONDS_MAX, turn
        return Turn(turn, is_taken=True, begins=begins)
