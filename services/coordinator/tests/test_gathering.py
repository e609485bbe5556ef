"""Plans that begin together: nobody waits where little is at work, and under load as long as it is worth, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coordinator.checks import (
    BATCH_MAX,
    GATHER_PAUSE_SECONDS,
    GATHER_SECONDS_MAX,
    GATHERED_FROM,
    GATHERED_MOST,
    GATHERED_SHARE,
    CapabilityCache,
    Checks,
    Rules,
    gather_seconds,
)
from coordinator.engine import Engine
from coordinator.wakes import Checking
from lockstep_kit.ids import PlanId
from lockstep_testkit.simulation.loop import VirtualLoop


class Desk:
    """The loop of the checks over an engine that only notes what it is to check, and when."""

    def __init__(self, at_work: int) -> None:
        self.checking = Checking()
        self.checked: list[tuple[float, Sequence[PlanId]]] = []
        engine = SimpleNamespace(
            wakes=SimpleNamespace(checks=self.checking),
            pressure=SimpleNamespace(at_work=at_work),
            apply=self._apply,
            owner=SimpleNamespace(name=""),
            db=SimpleNamespace(connection=nullcontext),
        )
        cache = SimpleNamespace(ask=self._ask)
        self.loop = Checks(cast("Engine", engine), cast("CapabilityCache", cache), cast("Rules", None)).loop()

    async def _ask(self) -> dict[str, Any]:
        return {}

    async def _apply(self, _kind: str, waiting: Sequence[PlanId], _events: Any) -> None:
        self.checked.append((asyncio.get_running_loop().time(), waiting))

    async def begin(self, *seconds: float) -> list[tuple[float, int]]:
        """When, after the first plan began, so many plans are checked that begin at these moments."""
        running = asyncio.create_task(self.loop.run())
        clock = asyncio.get_running_loop()
        began = clock.time()
        for index, moment in enumerate(sorted(seconds)):
            await asyncio.sleep(began + moment - clock.time())
            self.checking.add([PlanId(f"plan-{index:04d}")])
        while sum(len(waiting) for _, waiting in self.checked) < len(seconds):  # noqa: ASYNC110 - nothing tells that it has ended
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return [(round(at - began - min(seconds), 2), len(waiting)) for at, waiting in self.checked]


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the database finds no plan that another process left."""

    async def nothing(*_: object) -> list[PlanId]:
        return []

    monkeypatch.setattr("coordinator.store.reading.checking", nothing)


def within(story: Coroutine[Any, Any, list[tuple[float, int]]]) -> list[tuple[float, int]]:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(random.Random(1))) as runner:
        return runner.run(story)


def test_how_long_others_are_waited_for() -> None:
    """Not at all where few plans are at work; longer the more there are, and never longer than the most."""
    assert [gather_seconds(each) for each in (0, 1, GATHERED_FROM)] == [0.0, 0.0, 0.0]
    waits = [gather_seconds(each) for each in range(GATHERED_FROM, GATHERED_MOST + 1)]
    assert all(before < after for before, after in itertools.pairwise(waits))
    assert gather_seconds(GATHERED_MOST) == gather_seconds(10 * GATHERED_MOST) == GATHER_SECONDS_MAX


def test_nobody_waits_where_little_is_at_work() -> None:
    """A plan that begins alone is checked at the moment at which it begins."""
    assert within(Desk(at_work=GATHERED_FROM).begin(0.5, 0.7)) == [(0.0, 1), (0.2, 1)]


def test_under_load_what_begins_soon_behind_is_checked_together() -> None:
    """Plans that keep coming are checked in groups as large as the longest wait makes them, and all are."""
    moments = [0.05 + 0.1 * each for each in range(60)]
    checked = within(Desk(at_work=GATHERED_MOST).begin(*moments))
    assert sum(count for _, count in checked) == 60
    assert len(checked) <= 4
    assert checked[0][0] == GATHER_SECONDS_MAX


def test_a_wait_that_brings_nobody_ends() -> None:
    """Who is alone under load does not wait for as long as it goes."""
    assert within(Desk(at_work=GATHERED_MOST).begin(0.5)) == [(GATHER_PAUSE_SECONDS, 1)]


def test_as_many_as_go_together_do_not_wait() -> None:
    """A whole group is checked at once, and what is beyond it by itself."""
    checked = within(Desk(at_work=10 * GATHERED_MOST).begin(*[0.5] * (BATCH_MAX + 3)))
    assert checked == [(0.0, BATCH_MAX), (GATHER_PAUSE_SECONDS, 3)]


def test_where_most_of_what_is_at_work_has_begun_nobody_waits_for_the_others() -> None:
    """Plans that all begin together have nobody to wait for; before as many have come, others are waited for."""
    half = GATHERED_MOST // GATHERED_SHARE
    assert within(Desk(at_work=GATHERED_MOST).begin(*[0.5] * half)) == [(0.0, half)]
    assert within(Desk(at_work=GATHERED_MOST).begin(*[0.5] * (half - 1), 0.7)) == [(0.2, half)]
