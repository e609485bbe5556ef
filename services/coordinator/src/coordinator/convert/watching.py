"""WatchPlans' messages, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from coordinator.access import Client
from coordinator.convert.settlement import numbered_octets, states_from_pb
from coordinator.dossier import Dossier
from coordinator.following import GATE_STATES, Filter, PlanNews, Told, Wish
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.convert import GATES, enum_from_pb, time_to_pb
from lockstep_kit.convert.parts import number, part
from lockstep_kit.fields import require, within

#: What one message holds at the most, unless a single plan is larger.
MESSAGE_BYTES_MAX: Final = 1 << 20
GATHER_MAX: Final = timedelta(seconds=10)
_TOKEN_BYTES_MAX: Final = 256

_NEWS = part(messages.WatchPlansResponse, "news")
_PLAN_ID, _NUMBER = part(messages.PlanNews, "plan_id"), number(messages.PlanNews, "sequence")
_EVENTS, _PLAN, _LEFT = part(messages.PlanNews, "events"), part(messages.PlanNews, "plan"), number(messages.PlanNews, "left")


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


def told_to_pb(told: Told, plan: Callable[[Dossier], bytes]) -> Iterator[messages.WatchPlansResponse]:
    """What a watcher is told, in messages of a bounded size; the last alone names a place."""
    octets: list[bytes] = []
    size = 0
    for each in told.news:
        news = _news_octets(each, plan)
        if size and size + len(news) > MESSAGE_BYTES_MAX:
            yield messages.WatchPlansResponse.FromString(b"".join(octets))
            octets, size = [], 0
        octets.append(_NEWS(news))
        size += len(news)
    message = messages.WatchPlansResponse.FromString(b"".join(octets))
    message.snapshot_complete, message.resume_token = told.complete, told.token
    if told.clock is not None:
        message.heartbeat.clock_time.CopyFrom(time_to_pb(told.clock))
    if told.news or told.complete or told.clock is not None:
        yield message


def _news_octets(news: PlanNews, plan: Callable[[Dossier], bytes]) -> bytes:
    octets = [_PLAN_ID(news.plan_id.encode("ascii")), _NUMBER(news.number)]
    octets += [_EVENTS(numbered_octets(each.event, each.number)) for each in news.events]
    if news.dossier is not None:
        octets.append(_PLAN(plan(news.dossier)))
    return b"".join((*octets, _LEFT(news.left)))
