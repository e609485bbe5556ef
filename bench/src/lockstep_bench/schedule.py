"""What a load is made of, drawn from a seed: the same seed gives the same plans at the same moments. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from lockstep_kit.ids import TIMELY_BYTES, timely

#: Minor units of a plan's tokens and money: small, so that nobody in the sandbox runs out of either.
_QUANTITY_MAX: Final = 1_00
_PRICE_MAX: Final = 25_00
#: The time in the first plan's id, as clients draw ids that begin with the time; each next plan's is a millisecond later.
_FIRST_MILLISECOND: Final = 1_790_000_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """One plan that is to be settled."""

    #: Its place in the load, from 0 on.
    number: int
    #: Decimal text of the tokens.
    quantity: str
    #: Decimal text of the money.
    price: str
    #: Its id.
    plan_id: str
    #: Of which its salts and nonces are drawn.
    seed: str
    #: Settling legs: tokens, and money from the second on.
    legs: int = 2

    @property
    def reference(self) -> str:
        """What a person would call it."""
        return f"Bench {self.number}"


@dataclass(frozen=True, slots=True)
class Load:
    """One level of load: so many plans a second, or so many at a time."""

    #: Plans that arrive in a second, whatever became of those before; None: a closed loop.
    rate: float | None
    #: Plans at a time, each followed by the next; None: an open loop.
    concurrency: int | None
    #: How long there is load before anything counts.
    warm_up_seconds: float
    #: How long is measured after that.
    seconds: float
    #: How long what was begun may take after that.
    grace_seconds: float
    #: Of which everything is drawn.
    seed: str
    #: Settling legs of each plan.
    legs: int = 2

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.rate:g} a second" if self.rate is not None else f"{self.concurrency} at a time"

    @property
    def until(self) -> float:
        """When the last plan is begun, in seconds from the start."""
        return self.warm_up_seconds + self.seconds


def arrivals(load: Load) -> list[float]:
    """When plans arrive, in seconds from the start: independent of one another, as customers are (a Poisson process), `rate` a second in the mean.

    Raises:
        ValueError: the load is a closed loop.
    """
    if load.rate is None:
        raise ValueError("a closed loop has no arrivals")
    rng = Random(f"{load.seed}/arrivals")  # noqa: S311 - a schedule, no secret
    found, at = [], rng.expovariate(load.rate)
    while at < load.until:
        found.append(at)
        at += rng.expovariate(load.rate)
    return found


def work(seed: str, number: int, legs: int = 2) -> Work:
    """The plan in this place of what a seed gives."""
    seed = f"{seed}/{number}"
    rng = Random(seed)  # noqa: S311 - amounts and ids of a test, no secret
    quantity, price = rng.randint(1, _QUANTITY_MAX), rng.randint(1, _PRICE_MAX)
    plan_id = timely(_FIRST_MILLISECOND + number, rng.randbytes(TIMELY_BYTES))
    return Work(number, f"{quantity / 100:.2f}", f"{price / 100:.2f}", plan_id, seed, legs)
