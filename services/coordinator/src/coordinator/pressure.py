"""How many plans are worked on at a time: as many as go through without waiting for each other, and those that come beyond that are turned away.

What is watched is how long the coordinator's own steps take that wait for nobody outside: its shared transactions, and calls that participants answer once
they have noted a command. Where even the quickest of a second took too long, everything queues (as in CoDel, RFC 8289: a burst passes, a queue that stands
does not), and fewer plans are let in; where none did and the room was used, more are (additive increase, multiplicative decrease). Plans that nothing was
done to for a while, since they wait for people or for a slow bank, take up no room. A client that has less than its share of the room is let in though others
have filled it. The rules are pure; what is counted is lost with the process.
"""

from __future__ import annotations

import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from coordinator.metrics import PLANS_AT_WORK, PLANS_AT_WORK_MAX, TURNED_AWAY
from lockstep_kit.errors import LockstepError, unavailable
from lockstep_kit.fields import require
from lockstep_kit.ids import PlanId
from lockstep_kit.values import dataclass, replace

#: How long is watched before the room is looked at again.
INTERVAL_SECONDS: Final = 1.0
#: What is left of the room where everything queues.
DECREASE: Final = 0.85
#: What is added to it, as a share and as a number, where it was used and nothing queues.
INCREASE: Final = 0.05
STEP: Final = 4
#: Shares of the room from which on it counts as used, and beyond which it has just shrunk and nothing is learnt from how it is used.
USED: Final = 0.8
CROWDED: Final = 1.5
#: Steps of a kind by which a second can be judged.
STEPS_MIN: Final = 5
#: A plan takes up room for so long after anything was done to it.
LINGERING_SECONDS: Final = 15.0
#: Who is turned away comes again after this, each at a moment of its own within as long again.
RETRY: Final = timedelta(seconds=1)
_SPREAD: Final = 1_000


class PressureSettings(BaseModel):
    """When clients are told to come again later, since more is under way than goes through."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step_seconds_max: float = Field(
        default=0.25, gt=0, le=60, description="steps of which even the quickest of a second took longer: fewer plans are let in"
    )
    plans_min: int = Field(default=256, ge=1, description="plans that are worked on at a time in any case, at a replica")
    plans_max: int = Field(default=10_000, ge=1, description="plans that are worked on at a time at the most, at a replica")

    def check(self) -> None:
        """What the types cannot say.

        Raises:
            FieldInvalid: the least is more than the most.
        """
        require(self.plans_min <= self.plans_max, "pressure.plans_min", "must be at most pressure.plans_max")


@dataclass(frozen=True, slots=True)
class Room:
    """How many plans may be worked on at a time."""

    #: So many.
    plans: int

    def after(self, settings: PressureSettings, quickest: float | None, most: int) -> Room:
        """The room after a second in which the steps of one kind took `quickest` seconds at least, and `most` plans were worked on at a time.

        Where there are several kinds of steps, `quickest` is that of the slowest kind; None: there were too few.
        """
        if quickest is None:
            plans = self.plans
        elif quickest > settings.step_seconds_max:
            # What was not used is no measure of what is too much.
            plans = int(min(self.plans, max(most, settings.plans_min)) * DECREASE)
        elif self.plans * USED <= most <= self.plans * CROWDED:
            plans = int(self.plans * (1 + INCREASE)) + STEP
        else:
            plans = self.plans
        return replace(self, plans=min(max(plans, settings.plans_min), settings.plans_max))


def left(room: Room, taken: int, own: int, clients: int) -> int:
    """Plans that a client may begin which has `own` of the `taken` places of the room, where so many clients have any, itself among them."""
    return max(room.plans - taken, room.plans // clients - own, 0)


class Pressure:
    """What this replica works on, and what it may begin."""

    def __init__(self, settings: PressureSettings, clock: Callable[[], float]) -> None:
        """`clock` tells seconds, and never goes back."""
        self._settings = settings
        self._clock = clock
        self._room = Room(settings.plans_min)
        #: Plan -> when something was done to it last, in that order.
        self._worked: OrderedDict[PlanId, float] = OrderedDict()
        #: Plan -> the client that started it here; of those taken over from another replica nobody knows.
        self._clients: dict[PlanId, str] = {}
        self._places: Counter[str] = Counter()
        self._until = -1.0
        #: Kind of step -> how long each of this interval took.
        self._steps: dict[str, list[float]] = {}
        self._most = 0
        PLANS_AT_WORK_MAX.set(self._room.plans)

    def took(self, kind: str, seconds: float) -> None:
        """A step of a kind took so long, and waited for nobody outside."""
        self._look()
        self._steps.setdefault(kind, []).append(seconds)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """What is inside is such a step, unless it fails."""
        began = self._clock()
        yield
        self.took(kind, self._clock() - began)

    def worked(self, ids: Iterable[PlanId]) -> None:
        """Something was done to plans that are not at their end."""
        now = self._clock()
        for plan_id in ids:
            self._worked[plan_id] = now
            self._worked.move_to_end(plan_id)
        self._count()

    def ended(self, ids: Iterable[PlanId]) -> None:
        """Plans came to their end, or were not begun."""
        for plan_id in ids:
            if self._worked.pop(plan_id, None) is not None:
                self._let_go(plan_id)
        self._count()

    def check(self, client: str, whose: str) -> None:
        """There is room for a plan that a client brings; who is turned away is told by its id when to come again.

        Raises:
            LockstepError: OVERLOADED.
        """
        if self._left(client) <= 0:
            TURNED_AWAY.inc()
            raise overloaded(whose)

    def begin(self, client: str, ids: Iterable[PlanId]) -> frozenset[PlanId]:
        """Those among a client's plans that now take up room and did not before; whoever does nothing to one after all says that it ended."""
        new = [each for each in dict.fromkeys(ids) if each not in self._worked]
        let = new[: self._left(client)]
        for plan_id in let:
            self._clients[plan_id] = client
        self._places[client] += len(let)
        self.worked(let)
        return frozenset(let)

    @property
    def at_work(self) -> int:
        """Plans that are worked on."""
        return self._count()

    def knows(self, plan_id: PlanId) -> bool:
        """Whether a plan takes up room."""
        return plan_id in self._worked

    def _left(self, client: str) -> int:
        self._look()
        taken = self._count()
        return left(self._room, taken, self._places[client], len(self._places | Counter({client: 1})))

    def _count(self) -> int:
        """Plans that are worked on."""
        oldest = self._clock() - LINGERING_SECONDS
        while self._worked and next(iter(self._worked.values())) < oldest:
            plan_id, _ = self._worked.popitem(last=False)
            self._let_go(plan_id)
        count = len(self._worked)
        self._most = max(self._most, count)
        PLANS_AT_WORK.set(count)
        return count

    def _let_go(self, plan_id: PlanId) -> None:
        client = self._clients.pop(plan_id, None)
        if client is not None:
            self._places[client] -= 1
            if not self._places[client]:
                del self._places[client]

    def _look(self) -> None:
        """Once an interval is over, see what it says."""
        now = self._clock()
        if now < self._until:
            return
        quickest = [min(steps) for steps in self._steps.values() if len(steps) >= STEPS_MIN]
        self._room = self._room.after(self._settings, max(quickest, default=None), self._most)
        PLANS_AT_WORK_MAX.set(self._room.plans)
        self._until, self._most = now + INTERVAL_SECONDS, 0
        self._steps.clear()


def overloaded(whose: str) -> LockstepError:
    """As much is under way as goes through; nothing was done. Not everybody is asked to come again at the same moment."""
    later = timedelta(milliseconds=zlib.crc32(whose.encode()) % _SPREAD)
    return unavailable("OVERLOADED", "as many plans are under way as the coordinator can carry; try again", RETRY + later)
