"""What one caller may have of a server: so many calls a second, so many at once, so many streams, and never more than its share of the whole.

`Limiter` keeps what each caller has now. It does no I/O and reads no clock: `now` is an argument, in seconds. Its memory has a limit: a caller that has nothing
open and whose buckets are full is forgotten, and callers beyond `callers_max` have one entry between them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import field
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from lockstep_kit.rpc import buckets
from lockstep_kit.rpc.buckets import Bucket, Rate
from lockstep_kit.values import dataclass

#: What callers beyond the number that is kept share.
OTHERS: Final = ""
#: Callers that are looked at for being idle when one more comes.
_LOOKED_AT_MAX: Final = 8


class CallerLimits(BaseModel):
    """What one caller may have of one replica."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls_per_second: float = Field(
        default=50.0, gt=0, description="how fast unary calls are served; a heavy method counts for several"
    )
    calls_burst: float = Field(default=100.0, ge=1, description="calls that may come at once after a pause")
    calls_at_once_max: int = Field(default=16, ge=1, description="unary calls under way")
    streams_per_second: float = Field(default=5.0, gt=0, description="how fast streams are begun")
    streams_burst: float = Field(default=64.0, ge=1, description="streams that may be begun at once after a pause")
    streams_max: int = Field(default=64, ge=1, description="open streams")
    cancelled_per_second: float = Field(
        default=50.0,
        gt=0,
        description="how fast calls may be cancelled within a second of their coming, beside streams; beyond it the next are taken late",
    )
    cancelled_burst: float = Field(default=256.0, ge=1, description="calls that may be cancelled so after a pause")


class ServingLimits(BaseModel):
    """What callers may have of one replica of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: CallerLimits = Field(default_factory=CallerLimits, description="each client")
    services: CallerLimits = Field(
        default_factory=lambda: CallerLimits(
            calls_per_second=20_000.0,
            calls_burst=40_000.0,
            calls_at_once_max=256,
            streams_per_second=50.0,
            streams_burst=256.0,
            streams_max=256,
            cancelled_per_second=500.0,
            cancelled_burst=2_000.0,
        ),
        description="each of the services, all replicas of it together",
    )
    named: dict[str, CallerLimits] = Field(
        default_factory=dict, description="SPIFFE id -> what this caller may have, instead of the two before"
    )
    share_max: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of `concurrent_calls_max` that one caller may have, streams and refusals included",
    )
    callers_max: int = Field(default=1_024, ge=1, description="callers that are kept apart; more share one entry")
    refusals_per_second: float = Field(
        default=100.0, gt=0, description="how fast one caller is answered that it is over its limits; the next one waits"
    )
    refusal_seconds_max: float = Field(default=1.0, ge=0, le=10, description="longest wait of such an answer")
    refusals_waiting_max: int = Field(
        default=512, ge=0, description="such answers that wait, of all callers; more are given at once"
    )


class Excess(StrEnum):
    """What a caller has too much of: the reason of the refusal."""

    CALLS_TOO_FAST = "CALLS_TOO_FAST"
    CALLS_TOO_MANY = "CALLS_TOO_MANY"
    WATCHERS_TOO_FAST = "WATCHERS_TOO_FAST"
    WATCHERS_TOO_MANY = "WATCHERS_TOO_MANY"
    SHARE_TAKEN = "SHARE_TAKEN"


@dataclass(frozen=True, slots=True)
class Over:
    """A call that is one too many."""

    #: Of what.
    excess: Excess
    #: When another may be tried.
    retry_seconds: float
    #: How long the answer is kept back.
    hold_seconds: float


@dataclass(slots=True)
class _Held:
    """What a caller has now."""

    limits: CallerLimits
    calls_bucket: Bucket
    streams_bucket: Bucket
    calls: int = 0
    streams: int = 0
    #: Refusals that wait.
    waiting: int = 0
    #: When the last refusal is answered.
    refused_until: float = field(default=0.0)

    @property
    def calls_rate(self) -> Rate:
        return Rate(self.limits.calls_per_second, self.limits.calls_burst)

    @property
    def streams_rate(self) -> Rate:
        return Rate(self.limits.streams_per_second, self.limits.streams_burst)

    def is_idle(self, now: float) -> bool:
        return (
            not (self.calls or self.streams or self.waiting)
            and now >= self.refused_until
            and buckets.is_full(self.calls_bucket, self.calls_rate, now)
            and buckets.is_full(self.streams_bucket, self.streams_rate, now)
        )


class Limiter:
    """What every caller has of a server."""

    def __init__(self, settings: ServingLimits, concurrent_calls_max: int, services: Collection[str]) -> None:
        """Keep to the settings; `services` are SPIFFE ids of services, whose limits are roomier."""
        self._settings = settings
        self._services = frozenset(services)
        self._share = max(int(concurrent_calls_max * settings.share_max), 1)
        self._callers: OrderedDict[str, _Held] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        """Callers that are kept."""
        return len(self._callers)

    def limits_of(self, caller: str) -> CallerLimits:
        """What a caller may have."""
        named = self._settings.named.get(caller)
        if named is not None:
            return named
        return self._settings.services if caller in self._services else self._settings.clients

    def begin(self, caller: str, now: float, *, stream: bool, cost: float) -> Over | str:
        """Begin a call: the name to end it under, or why not."""
        name, held = self._of(caller, now)
        excess, wait = self._begun(held, now, stream=stream, cost=cost)
        if excess is None:
            if stream:
                held.streams += 1
            else:
                held.calls += 1
            return name
        return Over(excess, wait, self._hold(held, now))

    def end(self, name: str, *, stream: bool) -> None:
        """A call that was begun has ended."""
        held = self._callers[name]
        if stream:
            held.streams -= 1
        else:
            held.calls -= 1

    def keep(self, caller: str, now: float) -> str | None:
        """Keep a refusal's answer back: the name to let it go under; None when too many wait, and it has to be given at once."""
        name, held = self._of(caller, now)
        if self._waiting >= self._settings.refusals_waiting_max or self._open(held) >= self._share:
            return None
        held.waiting += 1
        self._waiting += 1
        return name

    def let_go(self, name: str) -> None:
        """A refusal that was kept back is answered."""
        self._callers[name].waiting -= 1
        self._waiting -= 1

    def _begun(self, held: _Held, now: float, *, stream: bool, cost: float) -> tuple[Excess | None, float]:
        limits = held.limits
        if self._open(held) >= self._share:
            return Excess.SHARE_TAKEN, 1.0
        if stream:
            if held.streams >= limits.streams_max:
                return Excess.WATCHERS_TOO_MANY, 1.0
            held.streams_bucket, wait = buckets.taken(held.streams_bucket, held.streams_rate, 1.0, now)
            return (Excess.WATCHERS_TOO_FAST if wait else None), wait
        if held.calls >= limits.calls_at_once_max:
            return Excess.CALLS_TOO_MANY, cost / limits.calls_per_second
        held.calls_bucket, wait = buckets.taken(held.calls_bucket, held.calls_rate, cost, now)
        return (Excess.CALLS_TOO_FAST if wait else None), wait

    @staticmethod
    def _open(held: _Held) -> int:
        return held.calls + held.streams + held.waiting

    def _hold(self, held: _Held, now: float) -> float:
        """One refusal after another. None waits for longer than the limit: those that would share the later half of the places, one by one."""
        most = self._settings.refusal_seconds_max
        turn = max(now, held.refused_until) + 1.0 / self._settings.refusals_per_second
        if turn > now + most:
            turn = now + most / 2
        held.refused_until = turn
        return turn - now

    def _of(self, caller: str, now: float) -> tuple[str, _Held]:
        held = self._callers.get(caller)
        if held is not None:
            self._callers.move_to_end(caller)
            return caller, held
        if len(self._callers) >= self._settings.callers_max and not self._forgotten(now):
            held = self._callers.get(OTHERS)
            if held is not None:
                return OTHERS, held
            caller = OTHERS
        limits = self.limits_of(caller)
        held = _Held(
            limits,
            buckets.full(Rate(limits.calls_per_second, limits.calls_burst), now),
            buckets.full(Rate(limits.streams_per_second, limits.streams_burst), now),
        )
        self._callers[caller] = held
        return caller, held

    def _forgotten(self, now: float) -> bool:
        """Whether one of those that were seen longest ago is idle, and has been forgotten."""
        for name in [name for _, name in zip(range(_LOOKED_AT_MAX), self._callers, strict=False)]:
            if self._callers[name].is_idle(now):
                del self._callers[name]
                return True
        return False
