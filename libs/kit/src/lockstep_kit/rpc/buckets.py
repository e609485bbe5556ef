"""Token buckets: how much a caller may do at once and how fast it may go on. Pure arithmetic; the clock is an argument.

A bucket fills at a rate up to its burst. What is taken is there or it is not: a refusal takes nothing, and says how long it takes until there is enough. A
clock that steps back fills nothing and takes nothing away.
"""

from __future__ import annotations

from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """How a bucket fills."""

    #: Tokens that come in a second.
    per_second: float
    #: Tokens that it holds at the most.
    burst: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket at a moment."""

    #: Tokens in it.
    level: float
    #: When it had them, in seconds of the caller's clock.
    at: float


def full(rate: Rate, now: float) -> Bucket:
    """A bucket that nothing was taken of."""
    return Bucket(rate.burst, now)


def filled(bucket: Bucket, rate: Rate, now: float) -> Bucket:
    """The bucket as it stands now."""
    elapsed = max(now - bucket.at, 0.0)
    return Bucket(min(bucket.level + elapsed * rate.per_second, rate.burst), max(now, bucket.at))


def taken(bucket: Bucket, rate: Rate, tokens: float, now: float) -> tuple[Bucket, float]:
    """The bucket after tokens were taken, and 0.0; or the bucket as it stands, and the seconds until there are enough.

    What costs more than the bucket ever holds is let through a full one and leaves it owing, so that it is slow and not impossible.
    """
    present = filled(bucket, rate, now)
    needed = min(tokens, rate.burst)
    if present.level >= needed:
        return Bucket(present.level - tokens, present.at), 0.0
    return present, (needed - present.level) / rate.per_second


def is_full(bucket: Bucket, rate: Rate, now: float) -> bool:
    """Whether forgetting the bucket would change nothing."""
    return filled(bucket, rate, now).level >= rate.burst
