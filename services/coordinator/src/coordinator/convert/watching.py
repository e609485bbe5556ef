"""WatchPlans' messages, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from coordinator.access import Client
from coordinator.convert.settlement import event_of, states_from_pb
from coordinator.dossier import Dossier
from coordinator.following import GATE_STATES, Filter, PlanNews, Told, Wish
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.convert import GATES, enum_from_pb, time_to_pb
from lockstep_kit.fields import require, within

#: What one message holds at the most, unless a single plan is larger.
MESSAGE_BYTES_MAX: Final = 1 << 20
GATHER_MAX: Final = timedelta(seconds=10)
_TOKEN_BYTES_MAX: Final = 256


def wish_from_pb(message: messages.WatchPlansRequest, client: Client) -> Wish:
    """What a watcher asks for.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    require(len(message.resume_token) <= _TOKEN_BYTES_MAX, "resume_token", "must be a token of a message of WatchPlans")
    told = message.gather_time
    form = 0 <= told.seconds <= GATHER_MAX.total_seconds() and 0 <= told.nanos < 1_000_000_000
    gather = timedelta(seconds=told.seconds, microseconds=told.nanos // 1_000) if form else timedelta.max
    require(gather <= GATHER_MAX, "gather_time", f"must be from 0 to {GATHER_MAX.seconds} seconds")
    with within("filter"):
        return Wish(client, _filter_from_pb(message.filter), message.whole_plans, gather)


def _filter_from_pb(message: messages.PlanFilter) -> Filter:
    states = frozenset(states_from_pb(message.states))
    gate = enum_from_pb(GATES, message.waiting_for, "waiting_for") if message.waiting_for else None
    require(gate is None or gate in GATE_STATES, "waiting_for", "must be the gate APPROVE, RELEASE or VALIDATE")
    return Filter(states, gate, ids.party_id(message.party_id) if message.party_id else "")


def told_to_pb(told: Told, plan: Callable[[Dossier], settlement_pb2.Plan]) -> Iterator[messages.WatchPlansResponse]:
    """What a watcher is told, in messages of a bounded size; the last alone names a place."""
    message, size = messages.WatchPlansResponse(), 0
    for each in told.news:
        news = _news_to_pb(each, plan)
        if size and size + news.ByteSize() > MESSAGE_BYTES_MAX:
            yield message
            message, size = messages.WatchPlansResponse(), 0
        message.news.append(news)
        size += news.ByteSize()
    message.snapshot_complete, message.resume_token = told.complete, told.token
    if told.clock is not None:
        message.heartbeat.clock_time.CopyFrom(time_to_pb(told.clock))
    if told.news or told.complete or told.clock is not None:
        yield message


def _news_to_pb(news: PlanNews, plan: Callable[[Dossier], settlement_pb2.Plan]) -> messages.PlanNews:
    return messages.PlanNews(
        plan_id=news.plan_id,
        sequence=news.number,
        events=[event_of(each.event, each.number) for each in news.events],
        plan=None if news.dossier is None else plan(news.dossier),
        left=news.left,
    )
