"""Work that waits together is carried together; how groups are made is tested with the journal's writer, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lockstep_kit import grouping
from lockstep_kit.grouping import Grouping, Measures

MEASURES = Measures(group_max=10, lanes_max=2, lane_min=10)


class Carrier:
    """Carries what it is given, once it may; a word that says so is refused."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.held: dict[str, asyncio.Event] = {}

    async def carry(self, words: Sequence[str]) -> list[str | Exception]:
        self.begun.append(list(words))
        for each in words:
            if each in self.held:
                await self.held[each].wait()
        return [ValueError(each) if each.startswith("bad") else each.upper() for each in words]


def asked(group: Grouping[str, str], *words: str) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(group.carried(each, frozenset({each}), 1)) for each in words]


async def test_an_error_is_its_callers_alone() -> None:
    """Who is answered with an error is raised it; whoever is carried with it has its own answer, and nothing is carried twice."""
    carrier = Carrier()
    carrier.held["a"] = asyncio.Event()
    group: Grouping[str, str] = Grouping("test", carrier.carry, MEASURES)
    first = asked(group, "a")
    await asyncio.sleep(0)
    later = asked(group, "b", "bad", "c")
    await asyncio.sleep(0.01)
    carrier.held["a"].set()
    found = await asyncio.gather(*first, *later, return_exceptions=True)
    assert [str(each) for each in found] == ["A", "B", "bad", "C"]
    assert isinstance(found[2], ValueError)
    assert carrier.begun == [["a"], ["b", "bad", "c"]]


async def test_who_waits_behind_a_lock_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is under way does not end, what came after it is carried beside it, but for what has a key in common with it."""
    monkeypatch.setattr(grouping, "PATIENCE_SECONDS", 0.05)
    carrier = Carrier()
    carrier.held["stuck"] = asyncio.Event()
    group: Grouping[str, str] = Grouping("test", carrier.carry, MEASURES)
    (stuck,) = asked(group, "stuck")
    await asyncio.sleep(0)
    same = asyncio.create_task(group.carried("same", frozenset({"stuck"}), 1))
    (other,) = asked(group, "other")
    assert await asyncio.wait_for(other, 30) == "OTHER"
    assert not stuck.done()
    assert not same.done()
    carrier.held["stuck"].set()
    assert [await stuck, await same] == ["STUCK", "SAME"]
    assert carrier.begun == [["stuck"], ["other"], ["same"]]


async def test_what_is_under_way_is_waited_for() -> None:
    """Who waits until nothing is under way finds everything answered."""
    carrier = Carrier()
    carrier.held["a"] = asyncio.Event()
    group: Grouping[str, str] = Grouping("test", carrier.carry, MEASURES)
    tasks = asked(group, "a", "b")
    await asyncio.sleep(0)
    drained = asyncio.create_task(group.drained())
    await asyncio.sleep(0.01)
    assert not drained.done()
    carrier.held["a"].set()
    await drained
    assert await asyncio.wait_for(asyncio.gather(*tasks), 30) == ["A", "B"]
    assert [each for words in carrier.begun for each in words] == ["a", "b"]
    await group.drained()
