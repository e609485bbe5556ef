from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.rpc.buckets import Bucket, Rate, full, is_full, taken

RATE = Rate(per_second=10.0, burst=5.0)


def test_a_burst_and_then_the_rate() -> None:
    """So many at once, then one in each tenth of a second; a refusal takes nothing and says exactly when."""
    bucket = full(RATE, 100.0)
    for _ in range(5):
        bucket, wait = taken(bucket, RATE, 1.0, 100.0)
        assert wait == 0.0
    bucket, wait = taken(bucket, RATE, 1.0, 100.0)
    assert wait == pytest.approx(0.1)
    assert taken(bucket, RATE, 1.0, 100.0 + wait)[1] == pytest.approx(0.0)


def test_what_is_dearer_than_the_bucket_leaves_it_owing() -> None:
    """A call that costs more than a full bucket goes through, and what follows waits for all of it."""
    bucket, wait = taken(full(RATE, 0.0), RATE, 25.0, 0.0)
    assert (bucket.level, wait) == (-20.0, 0.0)
    assert taken(bucket, RATE, 1.0, 0.0)[1] == pytest.approx(2.1)


def test_a_clock_that_steps_back_fills_nothing() -> None:
    """Time that goes back neither fills the bucket nor lets it be filled twice."""
    bucket, _ = taken(full(RATE, 100.0), RATE, 5.0, 100.0)
    back, wait = taken(bucket, RATE, 1.0, 50.0)
    assert (back.level, back.at) == (0.0, 100.0)
    assert wait > 0


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 8)), max_size=60))
def test_no_more_than_the_burst_and_the_rate(asked: list[tuple[float, float]]) -> None:
    """Whatever is asked for and when: what was let through before the last is at most the burst and what came in since."""
    now, bucket, through = 0.0, full(RATE, 0.0), 0.0
    for pause, tokens in asked:
        now += pause
        bucket, wait = taken(bucket, RATE, tokens, now)
        if not wait:
            assert through + min(tokens, RATE.burst) <= RATE.burst + now * RATE.per_second + 1e-6
            through += tokens
        assert bucket.level <= RATE.burst
    assert is_full(Bucket(bucket.level, bucket.at), RATE, now + 1_000)
