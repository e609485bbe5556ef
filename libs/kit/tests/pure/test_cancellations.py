from __future__ import annotations

import pytest

from lockstep_kit.rpc.buckets import Rate
from lockstep_kit.rpc.cancellations import SOON_SECONDS, TURN_SECONDS_MAX, Cancellations, Turn

RATE = Rate(per_second=10.0, burst=4.0)


def cancellations(callers_max: int = 8) -> Cancellations:
    """Nobody has cancelled anything yet."""
    return Cancellations(lambda _: RATE, callers_max)


def cancel(of: Cancellations, caller: str, times: int, now: float = 0.0) -> None:
    """A caller cancels so many calls as soon as they are taken."""
    for _ in range(times):
        of.ended(caller, 0.01, now)


def test_a_burst_is_free_and_what_follows_waits_its_turn() -> None:
    """Up to the burst nothing waits; beyond it calls are taken one after the other, at the rate, and only the first says that it begins."""
    at = cancellations()
    cancel(at, "a", 3)
    assert at.turn("a", 0.0) == Turn(0.0, is_taken=True)
    cancel(at, "a", 1)
    turns = [at.turn("a", 0.0) for _ in range(3)]
    assert [each.at for each in turns] == pytest.approx([0.1, 0.2, 0.3])
    assert [each.begins for each in turns] == [True, False, False]


def test_others_do_not_wait() -> None:
    """Who cancelled nothing is taken at once, whatever somebody else does."""
    at = cancellations()
    cancel(at, "a", 100)
    assert at.turn("b", 0.0) == Turn(0.0, is_taken=True)


def test_a_call_that_was_waited_for_is_no_offence() -> None:
    """A call that is given up because no answer came in time does not count, however many there are: a slow server is not made slower by it."""
    at = cancellations()
    for _ in range(100):
        at.ended("a", SOON_SECONDS + 0.01, 0.0)
    assert at.turn("a", 0.0) == Turn(0.0, is_taken=True)


def test_what_waits_keeps_its_order() -> None:
    """Nothing overtakes a call of the same caller that waits, also when the caller owes nothing any more."""
    at = cancellations()
    cancel(at, "a", 4)
    first = [at.turn("a", 0.0).at for _ in range(20)][-1]
    assert first == pytest.approx(2.0)
    assert at.turn("a", 1.9).at > first


def test_nothing_waits_for_ever() -> None:
    """What would have to wait for longer than the limit is let go then, and takes nobody's turn; later calls have theirs."""
    at = cancellations()
    cancel(at, "a", 4)
    turns = [at.turn("a", 0.0) for _ in range(200)]
    assert sum(each.is_taken for each in turns) == int(TURN_SECONDS_MAX * RATE.per_second)
    assert {each.at for each in turns if not each.is_taken} == {TURN_SECONDS_MAX}
    assert at.turn("a", 5.0).is_taken


def test_what_is_owed_is_paid_off() -> None:
    """However much was cancelled before it was found out, a caller that stops is served as before once two bursts have come in."""
    at = cancellations()
    cancel(at, "a", 10_000)
    assert at.turn("a", 0.3).at > 0.3
    assert at.turn("a", 0.81) == Turn(0.81, is_taken=True)


def test_no_more_is_taken_than_the_rate() -> None:
    """A caller that cancels everything at once has no more calls taken than the burst, what is under way, and the rate."""
    at, taken, now = cancellations(), 0, 0.0
    for _ in range(10_000):
        now += 0.001
        turn = at.turn("a", now)
        if turn.at <= now:
            taken += 1
            at.ended("a", 0.0, now)
        elif turn.is_taken:
            taken += 1
            at.ended("a", 0.0, turn.at)
    assert 90 <= taken <= RATE.burst + (now + TURN_SECONDS_MAX) * RATE.per_second + 1


def test_memory_has_a_limit() -> None:
    """So many callers are kept; the one that cancelled nothing for the longest is forgotten."""
    at = cancellations(callers_max=2)
    for caller in ("a", "b", "a", "c"):
        cancel(at, caller, 4)
    assert len(at) == 2
    assert [at.turn(each, 0.0).at > 0 for each in "abc"] == [True, False, True]
