"""What a participant shows while something is taken: read ahead in order, taken together within bounds, and what ended the stream told after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator import outcomes
from coordinator.news import News
from coordinator.outcomes import AHEAD_MAX, TOGETHER_MAX, _ahead
from lockstep.participant.v1 import leg_pb2
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep_kit.ids import LegId, PlanId


def page(sequence: int, reports: int = 1, incarnation: str = "log") -> messages.WatchOutcomesResponse:
    cursor = messages.OutcomeCursor(incarnation=incarnation, sequence=sequence)
    shown = [leg_pb2.LegReport(plan_id="p", leg_id=f"{sequence}-{number}", revision=1) for number in range(reports)]
    return messages.WatchOutcomesResponse(cursor=cursor, reports=shown)


class Stream:
    """Shows pages, and then ends, or breaks."""

    def __init__(self, *pages: messages.WatchOutcomesResponse, error: BaseException | None = None) -> None:
        self.pages, self.error, self.shown = pages, error, 0

    async def __aiter__(self) -> AsyncIterator[messages.WatchOutcomesResponse]:
        for each in self.pages:
            self.shown += 1
            yield each
        if self.error is not None:
            raise self.error


async def taken(stream: Any) -> list[list[int]]:
    """The sequences of what was taken together, in order, each after all that could be read was read."""
    found: list[list[int]] = []
    with _ahead(stream) as ahead:
        while True:
            await asyncio.sleep(0.01)
            first = await ahead.get()
            if first is None:
                return found
            found.append([each.cursor.sequence for each in (first, *ahead.following([first]))])


async def test_what_was_read_meanwhile_is_taken_together() -> None:
    """Pages that go on in one log are taken together, in order; an empty one, another log and an earlier place are looked at by themselves."""
    assert await taken(Stream(page(1), page(2), page(3))) == [[1, 2, 3]]
    assert await taken(Stream(page(1), page(1, 0), page(2), page(3))) == [[1], [1, 2, 3]]
    assert await taken(Stream(page(1), page(1, incarnation="other"), page(2, incarnation="other"))) == [[1], [1, 2]]
    assert await taken(Stream(page(5), page(4), page(6))) == [[5], [4, 6]]
    assert await taken(Stream()) == []


async def test_what_is_taken_together_is_bounded() -> None:
    """No more reports go together than may, nor are more pages read than may wait; a page is never parted."""
    half = TOGETHER_MAX // 2
    assert await taken(Stream(page(1, half), page(2, half), page(3), page(4, TOGETHER_MAX + 1), page(5))) == [[1, 2], [3], [4], [5]]
    stream: Any = Stream(*(page(number) for number in range(2 * AHEAD_MAX)))
    with _ahead(stream):
        await asyncio.sleep(0.05)
        assert stream.shown == AHEAD_MAX + 1


async def test_a_stream_whose_channel_is_closed_is_lost() -> None:
    """It ends as if its reader had been cancelled, which nobody has: whoever waits for its pages is told, and begins another one."""
    with _ahead(Stream(page(1), error=asyncio.CancelledError())) as ahead:  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            assert await ahead.get() is not None
            with pytest.raises(ConnectionError):
                await ahead.get()


async def test_what_was_read_is_taken_before_the_stream_is_lost() -> None:
    """A stream that breaks gives what it had shown, and then its error."""
    broken: Any = Stream(page(1), page(2), error=ConnectionError("cut"))
    with _ahead(broken) as ahead:
        await asyncio.sleep(0.01)
        first = await ahead.get()
        assert first is not None
        assert [each.cursor.sequence for each in ahead.following([first])] == [2]
        with pytest.raises(ConnectionError, match="cut"):
            await ahead.get()


async def test_silence_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that shows nothing for too long is given up."""
    monkeypatch.setattr(outcomes, "SILENCE_SECONDS_MAX", 0.05)

    class Silent:
        async def __aiter__(self) -> AsyncIterator[messages.WatchOutcomesResponse]:
            yield page(1)
            await asyncio.sleep(3_600)

    silent: Any = Silent()
    with _ahead(silent) as ahead:
        assert await ahead.get() == page(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ahead.get(), 30)


def told(phase: leg_pb2.LegPhase.ValueType, revision: int = 1, trouble: str = "") -> leg_pb2.LegReport:
    return leg_pb2.LegReport(plan_id="p", leg_id="l", phase=phase, revision=revision, trouble=trouble)


def test_what_brings_a_plan_on() -> None:
    """A vote, an outcome and a complaint do; that a command is being carried out, and what was heard before, do not."""
    engine: Any = None
    news = News(engine)
    for phase in (
        leg_pb2.LEG_PHASE_PREPARING,
        leg_pb2.LEG_PHASE_COMMITTING,
        leg_pb2.LEG_PHASE_ABORTING,
        leg_pb2.LEG_PHASE_REVERSING,
    ):
        assert not news.moves(told(phase))
        assert news.moves(told(phase, trouble="it hangs"))
    for phase in (leg_pb2.LEG_PHASE_PREPARED, leg_pb2.LEG_PHASE_REFUSED, leg_pb2.LEG_PHASE_COMMITTED, leg_pb2.LEG_PHASE_RELEASED):
        assert news.moves(told(phase, 3))
    news._heard[PlanId("p"), LegId("l")] = 3
    assert not news.moves(told(leg_pb2.LEG_PHASE_COMMITTED, 3))
    assert news.moves(told(leg_pb2.LEG_PHASE_COMMITTED, 4))


class Slow(Stream):
    """Shows a page that brings nothing on, then, a moment later, the others."""

    async def __aiter__(self) -> AsyncIterator[messages.WatchOutcomesResponse]:
        yield self.pages[0]
        await asyncio.sleep(0.05)
        async for each in super().__aiter__():
            if each is not self.pages[0]:
                yield each


def resting(sequence: int) -> messages.WatchOutcomesResponse:
    cursor = messages.OutcomeCursor(incarnation="log", sequence=sequence)
    return messages.WatchOutcomesResponse(cursor=cursor, reports=[told(leg_pb2.LEG_PHASE_COMMITTING)])


@pytest.mark.parametrize(
    ("pages", "together"),
    [
        ((resting(1), resting(2), page(3), page(4)), [1, 2, 3, 4]),
        ((resting(1), page(2, 0), page(3)), [1]),
        ((resting(1), page(2, incarnation="other")), [1]),
        ((page(1), page(2)), [1]),
    ],
)
async def test_what_brings_nothing_on_waits(pages: Any, together: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes with what comes of it; not with what is looked at by itself, and what brings a plan on does not wait."""
    monkeypatch.setattr(outcomes, "REST_SECONDS", 5.0)
    nothing: Any = None
    follower = outcomes.Outcomes(nothing, nothing, News(nothing), nothing)
    stream: Any = Slow(*pages)
    with _ahead(stream) as ahead:
        first = await ahead.get()
        assert first is not None
        assert [each.cursor.sequence for each in await follower._together(ahead, first)] == together


async def test_nothing_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing comes of is taken after a while."""
    monkeypatch.setattr(outcomes, "REST_SECONDS", 0.02)
    nothing: Any = None
    follower = outcomes.Outcomes(nothing, nothing, News(nothing), nothing)

    class Silent(Stream):
        async def __aiter__(self) -> AsyncIterator[messages.WatchOutcomesResponse]:
            yield self.pages[0]
            await asyncio.sleep(60.0)

    stream: Any = Silent(resting(1))
    with _ahead(stream) as ahead:
        first = await ahead.get()
        assert first is not None
        assert await follower._together(ahead, first) == [first]
