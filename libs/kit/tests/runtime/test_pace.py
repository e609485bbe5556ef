"""How long it is worth to wait for company: not at all where little was under way, never longer than told, and not for those who do not come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lockstep_kit import grouping, pace
from lockstep_kit.grouping import Grouping, Measures
from lockstep_kit.pace import LINGER_SECONDS_MAX, Pace


async def worked(watched: Pace, seconds: float) -> None:
    with watched.working():
        await asyncio.sleep(seconds)


async def test_who_was_idle_waits_for_nobody() -> None:
    """Where nothing was under way, or only a little, or long ago, there is no wait."""
    watched = Pace()
    assert watched.linger_seconds() == 0.0
    await worked(watched, 0.02)
    assert watched.linger_seconds() == 0.0
    # Much, and then nothing for several times as long as is remembered.
    watched._share = 1.0
    watched._at = asyncio.get_running_loop().time() - 10 * pace.MEMORY_SECONDS
    assert watched.linger_seconds() == 0.0


async def test_who_hardly_pauses_waits_no_longer_than_told() -> None:
    """Under steady work the wait grows to its limit, and no further."""
    watched = Pace()
    with watched.working():
        await asyncio.sleep(2 * pace.MEMORY_SECONDS)
        assert watched.linger_seconds() == LINGER_SECONDS_MAX
        with watched.working():
            assert 0.8 < watched.share() <= 1.0


async def test_who_does_not_come_is_not_waited_for() -> None:
    """A step in which nobody comes ends the wait; so does as much as is wanted."""
    watched, looks = Pace(), []

    def come(*found: int) -> int:
        looks.append(1)
        return found[min(len(looks), len(found)) - 1]

    with watched.working():
        await asyncio.sleep(2 * pace.MEMORY_SECONDS)
        await watched.company(lambda: come(1), 10)
        assert len(looks) == 2
        looks.clear()
        await watched.company(lambda: come(1, 2, 10), 10)
        # One came, and then enough had.
        assert len(looks) == 3
        looks.clear()
        await watched.company(lambda: come(*range(100)), 1_000)
        assert len(looks) == 2 * pace.STEPS


async def test_groups_wait_for_company_under_load() -> None:
    """Where groups follow one another, one that lingers carries what comes within the wait; what comes to an idle one is carried at once."""
    begun: list[list[str]] = []

    async def carry(words: Sequence[str]) -> list[str | Exception]:
        begun.append(list(words))
        await asyncio.sleep(0.05)
        return [*words]

    measures = Measures(group_max=100, lanes_max=1, lane_min=100, lingers=True)
    group: Grouping[str, str] = Grouping("test", carry, measures)
    asked: list[asyncio.Task[str]] = []

    async def ask(word: str) -> None:
        asked.append(asyncio.create_task(group.carried(word, frozenset({word}), 1)))
        await asyncio.sleep(0)

    await ask("first")
    await asyncio.sleep(0)
    assert begun == [["first"]]
    # Busy for as long as is remembered.
    group._pace._share = 1.0
    await ask("second")
    await asked[0]
    for word in ("third", "fourth"):
        await ask(word)
    await asyncio.gather(*asked)
    assert begun == [["first"], ["second", "third", "fourth"]]
    assert grouping.PATIENCE_SECONDS > LINGER_SECONDS_MAX


def test_work_that_is_thrown_away_unfinished_needs_no_loop() -> None:
    """A loop that is gone before what it ran leaves that to be let go quietly."""
    watched = Pace()
    unfinished = worked(watched, 60.0)

    async def begin() -> None:
        unfinished.send(None)

    asyncio.run(begin())
    unfinished.close()
    assert watched._under_way == 0
