"""When legs go out: at once where nothing goes on, and together where they come one after the other."""

from __future__ import annotations

import pytest

from lockstep_chain.pacing import GATHERED_SECONDS_MAX, MOMENT_SECONDS_MIN, QUIET_SECONDS_MAX, Beat, Metronome, pause, quiet_until
from lockstep_chain.ports import Block


def block(number: int, timestamp: int) -> Block:
    return Block(number, number.to_bytes(32), 0, timestamp)


def beat_of(*heads: tuple[int, int]) -> Beat:
    metronome = Metronome()
    for number, timestamp in heads:
        metronome.note(block(number, timestamp), float(timestamp))
    return metronome.beat


@pytest.mark.parametrize("interval", [0.0, 1.0, 12.0])
def test_the_first_goes_at_once(interval: float) -> None:
    """What comes while nothing was sent for a block's time waits for nobody."""
    beat = Beat(100.0, interval)
    assert pause(100.1, None, beat) == 0.0
    assert pause(100.1, 100.1 - max(interval, MOMENT_SECONDS_MIN), beat) == 0.0


def test_what_comes_after_others_is_gathered() -> None:
    """For the greater part of the time to the next block, and then for a moment after what was sent last."""
    beat = Beat(100.0, 1.0)
    assert pause(100.1, 100.0, beat) == pytest.approx(0.5)
    assert pause(100.7, 100.65, beat) == pytest.approx(0.15)
    assert pause(100.9, 100.65, beat) == 0.0


def test_nothing_is_gathered_for_long() -> None:
    """Where blocks are seldom, and where none comes, the wait has a limit."""
    beat = Beat(100.0, 12.0)
    assert pause(100.0, 99.9, beat) == pytest.approx(GATHERED_SECONDS_MAX)
    assert pause(100.0 + GATHERED_SECONDS_MAX, 99.9, beat) == 0.0


def test_blocks_tell_how_they_come() -> None:
    """The least time between two blocks counts; of one block, and of blocks of one moment, nothing is known."""
    assert beat_of().interval == 0.0
    assert beat_of((5, 100)).interval == 0.0
    assert beat_of((5, 100), (6, 102), (8, 106)) == Beat(106.0, 2.0)
    assert beat_of((5, 100), (6, 105), (7, 106)).interval == 1.0
    assert beat_of((5, 100), (6, 100)).interval == 0.0


def test_our_own_clock_counts_too() -> None:
    """Blocks that come faster than they tell are expected as they come."""
    metronome = Metronome()
    metronome.note(block(5, 100), 7.0)
    metronome.note(block(6, 101), 7.25)
    assert metronome.beat == Beat(7.25, 0.25)


def test_no_block_is_looked_for_soon_after_another() -> None:
    """But at once where it is not known how they come, and not much later where they are seldom."""
    assert quiet_until(Beat(100.0, 0.0)) == 100.0
    assert quiet_until(Beat(100.0, 1.0)) == pytest.approx(100.7)
    assert quiet_until(Beat(100.0, 60.0)) == 100.0 + QUIET_SECONDS_MAX


def test_a_chain_that_goes_back_begins_anew() -> None:
    """Blocks that were taken back tell nothing."""
    assert beat_of((5, 100), (6, 105), (6, 107)) == Beat(107.0, 0.0)
    assert beat_of((5, 100), (6, 105), (6, 107), (7, 110)).interval == 3.0
