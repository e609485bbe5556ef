"""What was answered and is not shown by the stream, once the log was read to its end, is lost; what may still come is not."""

from __future__ import annotations

from coordinator.unshown import UNSHOWN_MAX, Unshown
from lockstep_kit.ids import LegId, PlanId

PLAN = PlanId("PLAN-1")
LEG = LegId("cash")


def test_what_the_stream_shows_is_not_missed() -> None:
    """Shown as answered, or later, before the log is at its end."""
    for revision in (3, 4):
        unshown = Unshown()
        unshown.answered(PLAN, LEG, 3)
        unshown.opened()
        unshown.shown(PLAN, LEG, revision)
        assert not unshown.silent()


def test_what_was_answered_before_and_is_not_shown_is_lost_once() -> None:
    """Neither not at all nor as it was before; and it is told once."""
    unshown = Unshown()
    unshown.answered(PLAN, LEG, 3)
    unshown.opened()
    unshown.shown(PLAN, LEG, 2)
    assert unshown.silent()
    assert not unshown.silent()


def test_what_was_answered_meanwhile_may_still_come() -> None:
    """The log may have been read to its end just before: only the next end tells."""
    unshown = Unshown()
    unshown.opened()
    unshown.answered(PLAN, LEG, 3)
    assert not unshown.silent()
    assert unshown.silent()


def test_a_later_answer_waits_anew() -> None:
    """An answer that came after the one that is due is not held against the log yet."""
    unshown = Unshown()
    unshown.answered(PLAN, LEG, 3)
    unshown.opened()
    unshown.answered(PLAN, LEG, 4)
    assert not unshown.silent()


def test_no_more_is_remembered_than_may_be() -> None:
    """The oldest give way while a stream is down."""
    unshown = Unshown()
    for number in range(UNSHOWN_MAX + 1):
        unshown.answered(PLAN, LegId(f"leg-{number}"), 1)
    unshown.opened()
    for number in range(1, UNSHOWN_MAX + 1):
        unshown.shown(PLAN, LegId(f"leg-{number}"), 1)
    assert not unshown.silent()
