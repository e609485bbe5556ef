"""Following all plans that one may see over lost connections, drains and restarts of the coordinator.

The server delivers at least once; here what was seen of a plan is dropped, so that each change is seen once. A resume token that has grown too old is given up
for a new snapshot, as is one that was lost on the way: what was shown before is then superseded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import field
from datetime import timedelta
from typing import Any, Final, TypeAlias

from google.protobuf.duration_pb2 import Duration

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_pb2 import Plan, PlanEvent, PlanState
from lockstep.coordinator.v1.settlement_service_pb2_grpc import SettlementServiceStub
from lockstep.type.v1 import signature_pb2
from lockstep_client.calls import CallSettings, Resumption, stream
from lockstep_kit.errors import LockstepError
from lockstep_kit.values import dataclass

#: Plans whose last numbers are kept, so that nothing of them is shown twice.
_SEEN_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class PlansWish:
    """Which plans are followed, and what is told of them."""

    #: In one of these states; in any where there are none.
    states: Collection[PlanState.ValueType] = ()
    #: Waiting for this gate; 0: or not.
    waiting_for: signature_pb2.Gate.ValueType = signature_pb2.GATE_UNSPECIFIED
    #: Of this party; of any where it is "".
    party_id: str = ""
    #: Whether each change comes with the plan as it stands; always so with `states` and `waiting_for`.
    whole_plans: bool = False
    #: How long changes are gathered before they are told together, up to 10 s.
    gather: timedelta = timedelta()

    def request(self, token: str) -> messages.WatchPlansRequest:
        """The same, as it is asked from a place."""
        request = messages.WatchPlansRequest(resume_token=token, whole_plans=self.whole_plans)
        request.filter.states.extend(self.states)
        request.filter.waiting_for = self.waiting_for
        request.filter.party_id = self.party_id
        if self.gather:
            gather = Duration()
            gather.FromTimedelta(self.gather)
            request.gather_time.CopyFrom(gather)
        return request


@dataclass(frozen=True, slots=True)
class OpenPlans:
    """The plans as they stand; what was shown before is superseded."""

    #: By id, those that are not closed.
    plans: Mapping[str, Plan]
    #: Resume after this.
    resume_token: str


@dataclass(frozen=True, slots=True)
class PlanNews:
    """What happened to one plan."""

    #: The plan.
    plan_id: str
    #: Its changes that were not shown before, in order.
    events: tuple[PlanEvent, ...] = ()
    #: As it stands, where plans are told whole.
    plan: Plan | None = None
    #: Whether it does not fit what was asked for any more.
    left: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened, each plan once."""

    #: By plan.
    news: tuple[PlanNews, ...]
    #: Resume after this; "" where more belongs to it.
    resume_token: str


PlansNews: TypeAlias = OpenPlans | Changes


@dataclass(slots=True)
class _Place(Resumption):
    """How far a watch has come."""

    _plans: dict[str, Plan] = field(default_factory=dict)
    _seen: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def begin(self) -> str:
        """Where the next stream begins; without a token with a snapshot."""
        if not self.token:
            self._plans, self._seen = {}, OrderedDict()
        return self.token

    def take(self, message: messages.WatchPlansResponse) -> PlansNews | None:
        """What is new in a message; None for heartbeats, for what was seen, and until the snapshot is complete."""
        told = [each for each in map(self._new, message.news) if each is not None]
        in_snapshot, self.token = not self.token, message.resume_token or self.token
        if in_snapshot:
            self._plans |= {each.plan_id: each.plan for each in told if each.plan is not None}
            plans, self._plans = self._plans, {} if message.snapshot_complete else self._plans
            return OpenPlans(plans, self.token) if message.snapshot_complete else None
        return Changes(tuple(told), message.resume_token) if told else None

    def _new(self, news: messages.PlanNews) -> PlanNews | None:
        seen = self._seen.get(news.plan_id, 0)
        self._seen[news.plan_id] = max(seen, news.sequence)
        self._seen.move_to_end(news.plan_id)
        while len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)
        if news.sequence <= seen and not news.left:
            return None
        events = tuple(each for each in news.events if each.sequence > seen)
        return PlanNews(news.plan_id, events, news.plan if news.HasField("plan") else None, news.left)


async def watch_plans(
    stub: SettlementServiceStub,
    wish: PlansWish,
    settings: CallSettings,
    *,
    resume_token: str = "",
    lost: Callable[[LockstepError | None], None] = lambda _: None,
) -> AsyncIterator[PlansNews]:
    """The plans that are open, then what happens to them and to new ones, without end; `lost` as `stream` tells it.

    Raises:
        LockstepError: the watch was refused, or no replica was reached for `settings.unreachable_seconds_max`.
    """
    place = _Place(resume_token)

    def begin(seconds: float) -> Any:
        return stub.WatchPlans(wish.request(place.begin()), timeout=seconds)

    async for message in stream(begin, settings, starts_over=place.starts_over, lost=lost):
        news = place.take(message)
        if news is not None:
            yield news
