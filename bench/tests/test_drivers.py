"""How a driver goes through a load; its people take as long as they are told, without a sandbox."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, cast

from lockstep_bench.drivers import Share
from lockstep_bench.meters import calls_of
from lockstep_bench.people import People, SettlementFailed
from lockstep_bench.schedule import Load, Work, arrivals
from lockstep_bench.timelines import Timeline

OPEN = Load(rate=100.0, concurrency=None, warm_up_seconds=0.0, seconds=0.5, grace_seconds=5.0, seed="1")


class _People:
    """People who take a while."""

    def __init__(self, seconds: float, *, fail: bool = False) -> None:
        self._seconds = seconds
        self._fail = fail
        self.at_once = self.most = 0

    async def settle(self, work: Work, timeline: Timeline, began: float) -> Timeline:
        del work
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        timeline.begun = time.monotonic() - began
        try:
            await asyncio.sleep(self._seconds)
            if self._fail:
                timeline.failure = "refused"
                raise SettlementFailed("refused")
            timeline.seen["closed"] = time.monotonic() - began
        finally:
            self.at_once -= 1
        return timeline


async def _share(people: Any, load: Load, index: int = 0, count: int = 1) -> list[Timeline]:
    return await Share(cast("People", people), load, time.monotonic(), index, count).settled()


async def test_an_open_loop_waits_for_nobody() -> None:
    """However slow plans are, each one is begun when the schedule says, and timed from then."""
    found = await _share(_People(1.0), OPEN)
    assert [each.intended for each in found] == arrivals(OPEN)
    assert all(each.seen["closed"] - each.intended >= 1.0 for each in found)


async def test_several_drivers_share_a_load_out() -> None:
    """Together they do what one would, and nothing twice."""
    shares = [await _share(_People(0.0), OPEN, index, 3) for index in range(3)]
    assert sorted(each.intended for share in shares for each in share) == arrivals(OPEN)
    assert sorted(each.number for share in shares for each in share) == list(range(len(arrivals(OPEN))))


async def test_a_closed_loop_keeps_so_many_at_a_time() -> None:
    """Never more, and the next as soon as one is over; no two are the same plan."""
    people = _People(0.02)
    found = await _share(people, replace(OPEN, rate=None, concurrency=7))
    assert people.most == 7
    assert len(found) > 7
    assert len({each.number for each in found}) == len(found)


async def test_what_hangs_is_given_up_and_told() -> None:
    """A level ends after its patience, with what was begun and not finished in it."""
    found = await _share(_People(60.0), replace(OPEN, grace_seconds=0.2))
    assert len(found) == len(arrivals(OPEN))
    assert not any(each.seen for each in found)


async def test_what_is_refused_is_told_and_is_not_asked_for_at_once_again() -> None:
    """A closed loop does not turn a refusal into a flood."""
    found = await _share(_People(0.0, fail=True), replace(OPEN, rate=None, concurrency=2))
    assert [each.failure for each in found] == ["refused"] * 2


def test_calls_are_those_that_ended_and_the_streams_that_are_open() -> None:
    """Whatever their code; other metrics, and their comments, count for nothing."""
    page = """# TYPE lockstep_rpc_server_requests counter
lockstep_rpc_server_requests_total{method="a.B/C",code="OK"} 3.0
lockstep_rpc_server_requests_total{code="INTERNAL",method="a.B/C"} 1.0 # {trace_id="x"} 1.0 1.5
lockstep_rpc_server_requests_created{method="a.B/C",code="OK"} 1.7e+09
lockstep_rpc_server_streams_open{method="a.B/W"} 2.0
lockstep_rpc_server_duration_seconds_count{method="a.B/C"} 4.0
"""
    assert calls_of(page) == {"a.B/C": 4, "a.B/W": 2}
