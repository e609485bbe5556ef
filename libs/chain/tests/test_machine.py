from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lockstep_chain.machine import (
    IN_FLIGHT,
    TRANSITIONS,
    Attempt,
    AttemptKind,
    ByDepth,
    ByTag,
    Mine,
    Outbound,
    Policy,
    Reconcile,
    Reorganised,
    Replace,
    Resend,
    Settle,
    Sighting,
    State,
    Wait,
    final_number,
    first_fees,
    intrinsic_gas,
    judge,
    replacement_fees,
)
from lockstep_chain.ports import Answer, Block, Fees, Receipt, Tag

NONCE = 3
DEPTH = 2
POLICY = Policy(max_fee_ceiling=1_000, attempts_max=8)
FIRST = Attempt(1, AttemptKind.SEND, b"\x01" * 32, Fees(100, 10), broadcast_block=10, answer=Answer.ACCEPTED)
SENT = Outbound(State.SENT, NONCE, (FIRST,))


def sighting(**known: object) -> Sighting:
    """A chain at block 11 on which nothing of ours has happened."""
    quiet = Sighting(Block(11, b"h" * 32, 40, 0), 9, NONCE, NONCE, Fees(90, 10), {}, {})
    return replace(quiet, **known)  # type: ignore[arg-type]


def receipt(number: int, *, succeeded: bool = True, of: Attempt = FIRST) -> Receipt:
    return Receipt(of.transaction_hash, number, number.to_bytes(32), succeeded, 21_000, 50, ())


def seen_in(found: Receipt) -> dict[str, object]:
    return {
        "receipts": {found.transaction_hash: found},
        "canonical": {found.block_number: found.block_hash},
        "latest_nonce": NONCE + 1,
    }


def test_final_states_have_no_way_out() -> None:
    """What is settled stays settled, and everything in flight can reach a person."""
    assert {state for state in State if state.settled} == {
        State.FINAL, State.REVERTED, State.CANCELLED, State.DEAD, State.MANUAL
    }  # fmt: skip
    assert all(State.MANUAL in TRANSITIONS[state] for state in IN_FLIGHT)
    assert all(state.in_flight == (state in IN_FLIGHT) for state in State)


@pytest.mark.parametrize(
    ("finality", "head", "tagged", "expected"),
    [
        (ByTag(Tag.FINALIZED), 10, 8, 8),
        (ByTag(Tag.FINALIZED), 10, None, None),
        (ByTag(Tag.SAFE), 10, 11, 10),
        (ByDepth(0), 10, None, 10),
        (ByDepth(3), 10, None, 7),
        (ByDepth(3), 2, None, None),
    ],
)
def test_finality(finality: ByTag | ByDepth, head: int, tagged: int | None, expected: int | None) -> None:
    """Blocks are final up to the tag where there is one, or to a depth."""
    assert final_number(finality, head, tagged) == expected


@pytest.mark.parametrize(("succeeded", "state"), [(True, State.FINAL), (False, State.REVERTED)])
@pytest.mark.parametrize("origin", [State.SIGNED, State.SENT, State.MINED])
def test_settles_at_finality(succeeded: bool, state: State, origin: State) -> None:
    """A receipt in a final canonical block settles the transaction, wherever it stood."""
    found = receipt(9, succeeded=succeeded)
    tx = replace(SENT, state=origin, mined=(found.transaction_hash, found.block_hash) if origin is State.MINED else None)
    assert judge(tx, sighting(**seen_in(found)), POLICY) == Settle(state, found)


def test_only_mined_before_finality() -> None:
    """A receipt above finality marks the transaction as mined, once; in another block, again."""
    found = receipt(10)
    assert judge(SENT, sighting(**seen_in(found)), POLICY) == Mine(found)
    mined = replace(SENT, state=State.MINED, mined=(found.transaction_hash, found.block_hash))
    assert judge(mined, sighting(**seen_in(found)), POLICY) == Wait()
    assert judge(replace(mined, mined=(found.transaction_hash, b"other")), sighting(**seen_in(found)), POLICY) == Mine(found)


def test_a_receipt_of_a_block_that_is_not_canonical_does_not_count() -> None:
    """A receipt whose block is not the canonical one at its height is none."""
    found = receipt(9)
    stale = sighting(**seen_in(found) | {"canonical": {9: b"other"}, "latest_nonce": NONCE})
    assert judge(SENT, stale, POLICY) == Wait()
    mined = replace(SENT, state=State.MINED, mined=(found.transaction_hash, found.block_hash))
    assert judge(mined, stale, POLICY) == Reorganised()


def test_a_used_nonce_waits_for_finality() -> None:
    """A nonce that was used by something unknown is a person's matter at finality, and not before."""
    assert judge(SENT, sighting(latest_nonce=NONCE + 1), POLICY) == Wait()
    assert judge(SENT, sighting(latest_nonce=NONCE + 1, final_nonce=NONCE + 1), POLICY) == Reconcile()


def test_an_empty_transaction_of_our_own_cancels() -> None:
    """When the attempt that was mined is the empty one, the transaction is cancelled; when it is another, it is not."""
    cancel = Attempt(2, AttemptKind.CANCEL, b"\x02" * 32, Fees(130, 13), broadcast_block=10, answer=Answer.ACCEPTED)
    tx = replace(SENT, attempts=(FIRST, cancel), cancel_requested=True)
    assert judge(tx, sighting(**seen_in(receipt(9, of=cancel))), POLICY) == Settle(State.CANCELLED, receipt(9, of=cancel))
    assert judge(tx, sighting(**seen_in(receipt(9))), POLICY) == Settle(State.FINAL, receipt(9))


@pytest.mark.parametrize(
    ("tx", "known", "expected"),
    [
        (replace(FIRST, answer=None, broadcast_block=None), {}, Resend()),
        (replace(FIRST, answer=Answer.UNCLEAR), {}, Resend()),
        (FIRST, {}, Wait()),
        (replace(FIRST, broadcast_block=8), {}, Resend()),
        (replace(FIRST, broadcast_block=8), {"head": Block(11, b"", 101, 0)}, Replace(AttemptKind.BUMP, Fees(125, 13))),
        (replace(FIRST, broadcast_block=8), {"head": Block(11, b"", 101, 0), "latest_nonce": NONCE - 1}, Resend()),
        (replace(FIRST, broadcast_block=8), {"suggested": Fees(300, 30)}, Replace(AttemptKind.BUMP, Fees(300, 30))),
        (replace(FIRST, answer=Answer.UNDERPRICED), {"head": Block(11, b"", 101, 0)}, Replace(AttemptKind.BUMP, Fees(125, 13))),
        (replace(FIRST, answer=Answer.UNDERPRICED), {}, Resend()),
        (replace(FIRST, answer=Answer.OUTBID), {}, Replace(AttemptKind.BUMP, Fees(125, 13))),
        (replace(FIRST, answer=Answer.UNFUNDED), {}, Resend()),
        (replace(FIRST, answer=Answer.UNFUNDED, broadcast_block=11), {}, Wait()),
        (replace(FIRST, answer=Answer.IMPOSSIBLE), {}, Replace(AttemptKind.CANCEL, Fees(125, 13))),
        (replace(FIRST, answer=Answer.OUTBID, fees=Fees(950, 10)), {}, Resend()),
    ],
)
def test_delivery(tx: Attempt, known: dict[str, object], expected: object) -> None:
    """Bytes are sent again when nothing was heard, replaced when they cannot be mined, cancelled when they never can."""
    assert judge(replace(SENT, attempts=(tx,)), sighting(**known), POLICY) == expected


@given(
    max_fee=st.integers(0, 10**12), tip=st.integers(0, 10**12), suggested=st.integers(0, 10**12), ceiling=st.integers(1, 10**12),
    percent=st.integers(10, 300),
)  # fmt: skip
def test_a_replacement_replaces(max_fee: int, tip: int, suggested: int, ceiling: int, percent: int) -> None:
    """A replacement pays at least 10 % more on both fields, never more than the ceiling, and its tip is within its fee."""
    last = Fees(max_fee, min(tip, max_fee))
    found = replacement_fees(last, Fees(suggested, suggested // 10), Policy(bump_percent=percent, max_fee_ceiling=ceiling))
    if found is not None:
        assert found.max_fee * 10 >= last.max_fee * 11
        assert found.tip * 10 >= last.tip * 11
        assert found.max_fee > last.max_fee
        assert last.tip < found.tip <= found.max_fee <= ceiling
    elif last.max_fee * 110 // 100 + 1 < ceiling:
        assert last.tip * 110 // 100 + 1 >= ceiling, "there was room, and it was not used"


@given(base=st.integers(0, 10**12), tip=st.integers(0, 10**12), ceiling=st.integers(1, 10**12))
def test_first_fees(base: int, tip: int, ceiling: int) -> None:
    """A first attempt can be in the next block, and never offers more than the ceiling."""
    found = first_fees(base, tip, Policy(max_fee_ceiling=ceiling))
    assert (found is None) == (base + tip > ceiling)
    if found is not None:
        assert base + found.tip <= found.max_fee <= ceiling


def test_intrinsic_gas() -> None:
    """Calldata costs what EIP-2028 says, or the floor of EIP-7623."""
    assert (intrinsic_gas(b""), intrinsic_gas(b"\x00"), intrinsic_gas(b"\x01")) == (21_000, 21_010, 21_040)


class LifeOfATransaction(RuleBasedStateMachine):
    """One transaction on a chain that reorganises above finality, with a pool that forgets, rivals, dying senders and moving fees."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        #: Hash of each block, and what it holds of the nonce: (transaction hash, succeeded).
        self.blocks: list[tuple[bytes, tuple[bytes, bool] | None]] = [(self.name(), None) for _ in range(5)]
        self.pool: set[bytes] = set()
        self.base_fee = 40
        self.tx = Outbound(State.SIGNED, NONCE, (Attempt(1, AttemptKind.SEND, self.name(), Fees(100, 10), None, None),))
        self.settled: tuple[State, bytes] | None = None

    def name(self) -> bytes:
        self.count += 1
        return self.count.to_bytes(32)

    @property
    def head(self) -> int:
        return len(self.blocks) - 1

    def used(self, up_to: int) -> bool:
        return any(held is not None for _, held in self.blocks[: up_to + 1])

    @rule(base_fee=st.integers(1, 400))
    def fees_move(self, base_fee: int) -> None:
        self.base_fee = base_fee

    @rule()
    def pool_forgets(self) -> None:
        self.pool.clear()

    @rule(succeeded=st.booleans(), pick=st.integers(0, 7))
    def mine_ours(self, succeeded: bool, pick: int) -> None:
        payable = [a for a in self.tx.attempts if a.transaction_hash in self.pool and a.fees.max_fee >= self.base_fee]
        held = None
        if payable and not self.used(self.head):
            held = (payable[pick % len(payable)].transaction_hash, succeeded)
        self.blocks.append((self.name(), held))

    @rule(rival=st.booleans())
    def mine_other(self, rival: bool) -> None:
        self.blocks.append((self.name(), (self.name(), True) if rival and not self.used(self.head) else None))

    @rule(depth=st.integers(1, DEPTH), rival=st.booleans(), forget=st.booleans())
    def reorganise(self, depth: int, rival: bool, forget: bool) -> None:
        for _, held in self.blocks[-depth:]:
            if held is not None and not forget:
                self.pool.add(held[0])
        del self.blocks[-depth:]
        for _ in range(depth):
            self.mine_other(rival)

    @precondition(lambda self: self.settled is None)
    @rule()
    def ask_to_cancel(self) -> None:
        self.tx = replace(self.tx, cancel_requested=True)

    @rule(answer=st.sampled_from(Answer), dies=st.booleans())
    def step(self, answer: Answer, dies: bool) -> None:
        """One round of the shell; it may die after storing and before sending."""
        if self.settled is not None:
            return
        match judge(self.tx, self.look(), POLICY):
            case Wait():
                pass
            case Resend():
                self.send(answer)
            case Replace(kind, fees):
                assert len(self.tx.attempts) < POLICY.attempts_max
                assert kind is not AttemptKind.BUMP or all(a.kind is not AttemptKind.CANCEL for a in self.tx.attempts)
                number = len(self.tx.attempts) + 1
                self.tx = replace(self.tx, attempts=(*self.tx.attempts, Attempt(number, kind, self.name(), fees, None, None)))
                if not dies:
                    self.send(answer)
            case Mine(found):
                self.move(State.MINED, (found.transaction_hash, found.block_hash))
            case Reorganised():
                self.move(State.SENT, None)
                self.tx = replace(
                    self.tx, attempts=tuple(replace(a, answer=None, broadcast_block=None) for a in self.tx.attempts)
                )  # fmt: skip
            case Settle(state, found):
                self.move(state, (found.transaction_hash, found.block_hash))
                self.settled = (state, found.transaction_hash)
            case Reconcile():
                self.move(State.MANUAL, None)
                self.settled = (State.MANUAL, b"")

    def move(self, state: State, mined: tuple[bytes, bytes] | None) -> None:
        assert state is self.tx.state or state in TRANSITIONS[self.tx.state]
        self.tx = replace(self.tx, state=state, mined=mined)

    def send(self, answer: Answer) -> None:
        last = self.tx.attempts[-1]
        if answer in (Answer.ACCEPTED, Answer.UNCLEAR) and not self.used(self.head):
            self.pool.add(last.transaction_hash)
        said = replace(last, answer=answer, broadcast_block=self.head)
        self.tx = replace(self.tx, attempts=(*self.tx.attempts[:-1], said))
        if self.tx.state is State.SIGNED and answer in (Answer.ACCEPTED, Answer.NONCE_USED):
            self.move(State.SENT, None)

    def look(self) -> Sighting:
        final = self.head - DEPTH
        ours = {a.transaction_hash for a in self.tx.attempts}
        receipts = {
            held[0]: Receipt(held[0], number, name, held[1], 21_000, 50, ())
            for number, (name, held) in enumerate(self.blocks)
            if held is not None and held[0] in ours
        }
        return Sighting(
            head=Block(self.head, self.blocks[-1][0], self.base_fee, 0),
            final_number=final,
            latest_nonce=NONCE + self.used(self.head),
            final_nonce=NONCE + self.used(final),
            suggested=first_fees(self.base_fee, 10, POLICY) or Fees(POLICY.max_fee_ceiling, 10),
            receipts=receipts,
            canonical={each.block_number: each.block_hash for each in receipts.values()},
        )

    @invariant()
    def what_was_told_is_what_the_chain_says(self) -> None:
        """An end is only ever what the final blocks hold, and what they hold does not change."""
        if self.settled is None:
            return
        (held,) = [held for _, held in self.blocks[: self.head - DEPTH + 1] if held is not None]
        ours = {a.transaction_hash: a for a in self.tx.attempts}
        state, transaction_hash = self.settled
        if state is State.MANUAL:
            assert held[0] not in ours
            return
        assert held[0] == transaction_hash
        if ours[transaction_hash].kind is AttemptKind.CANCEL:
            assert state is State.CANCELLED
        else:
            assert state is (State.FINAL if held[1] else State.REVERTED)

    @invariant()
    def attempts_stay_within_bounds(self) -> None:
        """Every replacement pays at least 10 % more on both fields, and none more than the ceiling."""
        for before, after in zip(self.tx.attempts, self.tx.attempts[1:], strict=False):
            assert after.fees.max_fee * 10 >= before.fees.max_fee * 11
            assert after.fees.tip * 10 >= before.fees.tip * 11
            assert after.fees.max_fee <= POLICY.max_fee_ceiling

    def teardown(self) -> None:
        """Once all faults end, it settles within a bounded number of blocks."""
        self.base_fee = 1
        for _ in range(POLICY.attempts_max + POLICY.resend_blocks + DEPTH + 4):
            self.step(Answer.ACCEPTED, dies=False)
            self.mine_ours(succeeded=True, pick=7)
        self.what_was_told_is_what_the_chain_says()
        assert self.settled is not None, "it never came to an end"


TestLifeOfATransaction = LifeOfATransaction.TestCase
TestLifeOfATransaction.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
