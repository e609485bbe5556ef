"""What several endpoints say together, and whose answers count: every case of the tables."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from lockstep_chain import agreement, standing
from lockstep_chain.agreement import Unagreed
from lockstep_chain.ports import Answer, Block, Conditions, Receipt
from lockstep_chain.standing import Record, Rules

ONE, OTHER = bytes(32), bytes([1]) * 32
RECEIPT = Receipt(ONE, 7, ONE, succeeded=True, gas_used=21_000, effective_gas_price=1, logs=())


def block(number: int, hash_: bytes = ONE) -> Block:
    return Block(number, hash_, 1, 1)


def contradiction(said: object) -> bool:
    return isinstance(said, Unagreed) and said.contradiction


def not_yet(said: object) -> bool:
    return isinstance(said, Unagreed) and not said.contradiction


def test_the_same() -> None:
    """All say the same: that is the answer. One of any number says otherwise: there is none, and the finding names who said what."""
    assert agreement.same("it", {1: "x"}) == "x"
    assert agreement.same("it", {1: "x", 2: "x", 3: "x"}) == "x"
    for odd in range(1, 4):
        said = agreement.same("it", {place: "y" if place == odd else "x" for place in range(1, 4)})
        assert isinstance(said, Unagreed)
        assert said.contradiction
        assert f"endpoint {odd} says y" in said.finding


@pytest.mark.parametrize(
    "lie",
    [
        replace(RECEIPT, succeeded=False),
        replace(RECEIPT, block_number=8),
        replace(RECEIPT, block_hash=OTHER),
        replace(RECEIPT, gas_used=1),
    ],
)
def test_receipts_that_differ(lie: Receipt) -> None:
    """Receipts that differ in anything are no receipt and no absence, whoever of them lies."""
    assert agreement.receipts([ONE], {1: {ONE: RECEIPT}, 2: {ONE: RECEIPT}}) == {ONE: RECEIPT}
    assert contradiction(agreement.receipts([ONE], {1: {ONE: RECEIPT}, 2: {ONE: lie}}))
    assert contradiction(agreement.receipts([ONE], {1: {ONE: lie}, 2: {ONE: RECEIPT}, 3: {}}))


def test_absence() -> None:
    """A receipt, or a block, is missing only if every endpoint misses it; one that misses what others have is not so far yet."""
    assert agreement.receipts([ONE], {1: {}, 2: {}}) == {}
    assert not_yet(agreement.receipts([ONE], {1: {ONE: RECEIPT}, 2: {}}))
    assert not_yet(agreement.receipts([ONE], {1: {}, 2: {ONE: RECEIPT}}))
    assert agreement.canonical([7, 8], {1: {7: ONE}, 2: {7: ONE}}) == {7: ONE}
    assert not_yet(agreement.canonical([7], {1: {7: ONE}, 2: {}}))
    assert contradiction(agreement.canonical([7], {1: {7: ONE}, 2: {7: OTHER}}))


def test_heads_and_tags() -> None:
    """The chain is as high, and as final, as the lowest of the endpoints has it."""
    assert agreement.lowest({1: block(9), 2: block(7), 3: block(8)}) == block(7)
    assert agreement.tagged("finalized block", {1: block(9), 2: block(7)}) == block(7)
    assert agreement.tagged("finalized block", {1: None, 2: None}) is None
    assert not_yet(agreement.tagged("finalized block", {1: block(9), 2: None}))


def test_conditions() -> None:
    """Lowest head, highest pending nonce, lower medians of tips and balances; nonces that are too far apart are a contradiction."""
    low, high = Conditions(4, block(7), 2, 50), Conditions(6, block(9), 100, 40)
    assert agreement.conditions({1: low, 2: high}, 200) == Conditions(6, block(7), 2, 40)
    assert agreement.conditions({1: high, 2: low, 3: replace(low, tip=3)}, 200) == Conditions(6, block(7), 3, 50)
    assert agreement.conditions({1: low, 2: replace(low, pending_nonce=204)}, 200) == replace(low, pending_nonce=204)
    assert contradiction(agreement.conditions({1: low, 2: replace(low, pending_nonce=205)}, 200))


def test_answers() -> None:
    """Bytes that one node has are sent; without that, one that gave no answer may have them; that no block can hold them all must say."""
    assert set(agreement.PRECEDENCE) == set(Answer)
    for one, other in itertools.product(Answer, repeat=2):
        (both,) = agreement.answers([[one], [other]], 1)
        assert both in (one, other)
        assert (both is Answer.ACCEPTED) == (Answer.ACCEPTED in (one, other))
        assert (both is Answer.IMPOSSIBLE) == (one is other is Answer.IMPOSSIBLE)
        if Answer.UNCLEAR in (one, other):
            assert both in (Answer.UNCLEAR, Answer.ACCEPTED)
    first, second = [Answer.ACCEPTED, Answer.UNFUNDED], [Answer.OUTBID, Answer.UNDERPRICED]
    assert agreement.answers([first, second], 2) == [Answer.ACCEPTED, Answer.UNDERPRICED]
    assert agreement.answers([], 2) == [Answer.UNCLEAR, Answer.UNCLEAR]


def test_one_failure_leaves_nobody_out() -> None:
    """An endpoint is left out at the third failure in a row, or when it fails at every fourth question for long; not when it fails at every tenth."""
    record = Record(counts=True, doubted=False)
    for count in range(1, 4):
        record = standing.failed(record, "head", held=True)
        assert (record.doubted, standing.failing(record)) == (True, count == 3)
    for every, ever in ((4, True), (10, False)):
        record, failing = Record(counts=True), False
        for number in range(200):
            record = standing.failed(record, "head", held=True) if number % every == 0 else standing.answered(record, "head")
            failing = failing or standing.failing(record)
        assert failing is ever


def test_what_nobody_answers_is_nobodys_fault() -> None:
    """A failure at what no other endpoint answered is not held against one; it must say again which chain it serves all the same."""
    record = Record(counts=True, doubted=False)
    for _ in range(100):
        record = standing.failed(record, "call", held=False)
    assert (record.doubted, standing.failing(record)) == (True, False)


def test_one_kind_of_question() -> None:
    """An endpoint that always fails at one kind of question is left out, however well it does at others; let in again, its next failure there is enough."""
    record = Record(counts=True)
    for _ in range(3):
        assert not standing.failing(record)
        record = standing.failed(record, "call", held=True)
        for _ in range(50):
            record = standing.answered(record, "head")
    assert standing.failing(record)
    record = standing.let_in(standing.left_out(record))
    assert (record.counts, record.doubted, standing.failing(record), record.outages) == (True, False, False, 1)
    assert standing.failing(standing.failed(record, "call", held=True))
    for _ in range(50):
        record = standing.answered(record, "call")
    assert record.outages == 0


def test_standing_still() -> None:
    """An endpoint is left out for being behind only if it is far behind and does not move; one that moves, or stands still with the others, is not."""
    rules = Rules(lag_blocks_max=8, lag_seconds_max=10.0)
    ahead = Record(counts=True, height=100, moved_at=50.0)

    def out(height: int, moved_at: float, now: float = 60.0) -> list[int]:
        return standing.standing_still({1: ahead, 2: Record(counts=True, height=height, moved_at=moved_at)}, now, rules)

    assert out(91, 49.0) == [2]
    assert out(91, 51.0) == []
    assert out(92, 0.0) == []
    assert out(100, 50.0, now=1_000.0) == []
    assert standing.standing_still({1: replace(ahead, counts=False), 2: Record(counts=True, height=1)}, 60.0, rules) == []
