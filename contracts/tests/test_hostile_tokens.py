"""Tokens that do not behave: none of them breaks a leg that is done, another's leg, or the books."""

from __future__ import annotations

import pytest
from contracts_world import SUPPLY, Reverted, World, hostile, method

from lockstep_contracts import LegStatus, decode_error
from lockstep_contracts import escrow as calls
from lockstep_contracts.events import Aborted, Claimed, Committed, Skipped


def test_a_token_that_keeps_a_fee_is_refused(world: World) -> None:
    """What the escrow receives must be exactly what the terms say, or nothing is taken."""
    token = world.hostile_token("FeeToken")
    terms, _ = world.leg(token=token)
    with pytest.raises(Reverted, match="TransferNotExact") as refusal:
        world.prepare(terms)
    assert refusal.value.error is not None
    assert (refusal.value.error.arguments["expected"], refusal.value.error.arguments["received"]) == (1000, 990)
    assert (world.status(terms), world.balance(world.payer.address, token)) == (LegStatus.NONE, SUPPLY)


def test_a_token_that_answers_nothing_settles(world: World) -> None:
    """ERC-20s from before the standard return no value, and move all the same."""
    token = world.hostile_token("SilentToken")
    terms, key = world.prepared(token=token)
    world.commit(terms, key)
    refunded, _ = world.prepared(token=token)
    world.abort(refunded)
    assert (world.balance(world.payee, token), world.balance(world.payer.address, token)) == (1000, SUPPLY - 1000)
    world.assert_conserved(token)


def test_a_token_that_answers_false_is_believed(world: World) -> None:
    """False is a refusal: a prepare takes nothing, a payout becomes claimable."""
    token = world.hostile_token("FalseToken")
    terms, key = world.prepared(token=token)
    other, _ = world.leg(token=token)
    world.set_flag("FalseToken", token, "setRefusing", True)
    with pytest.raises(Reverted, match="SafeERC20FailedOperation"):
        world.prepare(other)
    receipt = world.commit(terms, key)
    assert Committed(terms.leg_key, token, world.payee, 1000, key, paid=False) in receipt.events
    with pytest.raises(Reverted, match="SafeERC20FailedOperation"):
        world.chain.send(world.admin, world.escrow, calls.encode_claim(token, world.payee))
    world.set_flag("FalseToken", token, "setRefusing", False)
    world.chain.send(world.admin, world.escrow, calls.encode_claim(token, world.payee))
    assert world.balance(world.payee, token) == 1000
    world.assert_conserved(token)


@pytest.mark.parametrize("trouble", ["setBlocked", "setBomb"])
def test_a_blocked_payee_claims_later(world: World, trouble: str) -> None:
    """If the token refuses the payee, or burns all gas, the leg is committed and the payee owns a claim."""
    token = world.hostile_token("BlockingToken")
    terms, key = world.prepared(token=token)
    world.set_flag("BlockingToken", token, trouble, world.payee, True)
    receipt = world.commit(terms, key)
    assert receipt.events == (Committed(terms.leg_key, token, world.payee, 1000, key, paid=False),)
    assert (world.status(terms), world.locked(token)) == (LegStatus.COMMITTED, 0)
    assert (world.claimable(token, world.payee), world.claimable_total(token)) == (1000, 1000)
    world.assert_conserved(token)
    assert world.commit(terms, key).events == ()
    with pytest.raises(Reverted):
        world.chain.send(world.operator, world.escrow, calls.encode_claim(token, world.payee))
    world.set_flag("BlockingToken", token, trouble, world.payee, False)
    claimed = world.chain.send(world.operator, world.escrow, calls.encode_claim(token, world.payee))
    assert Claimed(token, world.payee, 1000) in claimed.events
    assert (world.balance(world.payee, token), world.claimable(token, world.payee)) == (1000, 0)
    with pytest.raises(Reverted, match="NothingClaimable"):
        world.chain.send(world.operator, world.escrow, calls.encode_claim(token, world.payee))
    world.assert_conserved(token)


def test_a_blocked_payer_claims_the_refund_later(world: World) -> None:
    """The same for a refund: the leg is aborted and the payer owns a claim; claims add up."""
    token = world.hostile_token("BlockingToken")
    legs = [world.prepared(token=token)[0] for _ in range(2)]
    world.set_flag("BlockingToken", token, "setBlocked", world.payer.address, True)
    for terms in legs:
        assert Aborted(terms.leg_key, token, world.payer.address, 1000, paid=False) in world.abort(terms).events
    assert world.claimable(token, world.payer.address) == 2000
    world.set_flag("BlockingToken", token, "setBlocked", world.payer.address, False)
    world.chain.send(world.admin, world.escrow, calls.encode_claim(token, world.payer.address))
    assert world.balance(world.payer.address, token) == SUPPLY
    world.assert_conserved(token)


def test_a_token_cannot_call_back_into_the_escrow(world: World) -> None:
    """Even a token that holds the operator's role cannot start a second call inside a first one."""
    token = world.hostile_token("ReentrantToken")
    hostile_code = hostile("ReentrantToken")
    world.chain.send(world.admin, world.escrow, calls.GRANT_ROLE.encode(calls.OPERATOR_ROLE, token))
    victim, victim_key = world.prepared()
    terms, key = world.prepared(token=token)
    unpaid, unpaid_key = world.prepared(token=token)
    world.set_flag("ReentrantToken", token, "setRefusing", True)
    world.commit(unpaid, unpaid_key)
    world.set_flag("ReentrantToken", token, "setRefusing", False)
    inner = [
        calls.encode_commit(victim, victim_key),
        calls.encode_abort(victim),
        calls.encode_abort(terms),
        calls.encode_commit(terms, key),
        calls.encode_try_commit_many([victim], [victim_key]),
        calls.encode_claim(token, world.payee),
    ]
    for payload in inner:
        world.chain.send(world.admin, token, method(hostile_code, "arm")(world.escrow, payload))
        snapshot = world.chain.rpc("evm_snapshot")
        world.commit(terms, key)
        taken, _ = world.leg(token=token)
        world.prepare(taken)
        called, succeeded = (world.chain.call(token, method(hostile_code, name)()) for name in ("hasCalled", "hasSucceeded"))
        assert (int.from_bytes(called, "big"), int.from_bytes(succeeded, "big")) == (1, 0)
        assert (world.status(victim), world.balance(world.payee, token)) == (LegStatus.PREPARED, 1000)
        assert world.claimable(token, world.payee) == 1000
        world.assert_conserved(token)
        world.chain.rpc("evm_revert", snapshot)


def test_one_bad_leg_never_takes_the_others_down(world: World) -> None:
    """In one batch: a token that burns all gas, one that answers with 100 kB, one that keeps a fee; the good legs are prepared."""
    bomb, verbose, fee = (world.hostile_token(name) for name in ("BlockingToken", "VerboseToken", "FeeToken"))
    world.set_flag("BlockingToken", bomb, "setBomb", world.payer.address, True)
    tokens = [world.token, bomb, world.token, verbose, fee, world.token]
    legs = [world.leg(token=token)[0] for token in tokens]
    receipt = world.operate(calls.encode_try_prepare_many(legs, [world.sign(terms) for terms in legs]))
    expected = [LegStatus.PREPARED if token == world.token else LegStatus.NONE for token in tokens]
    assert world.statuses(legs) == expected
    skipped = {event.key: event.reason for event in receipt.events if isinstance(event, Skipped)}
    assert set(skipped) == {legs[index].leg_key for index in (1, 3, 4)}
    assert all(len(reason) <= 260 for reason in skipped.values())
    for token in tokens:
        world.assert_conserved(token)


def test_a_gas_bomb_among_payouts_costs_only_itself(world: World) -> None:
    """A payout that burns its share of gas becomes claimable; the payouts around it arrive."""
    token = world.hostile_token("BlockingToken")
    pairs = [world.prepared(), world.prepared(token=token), world.prepared(token=token, payee=world.admin), world.prepared()]
    world.set_flag("BlockingToken", token, "setBomb", world.payee, True)
    receipt = world.operate(calls.encode_try_commit_many([terms for terms, _ in pairs], [key for _, key in pairs]))
    paid = [event.paid for event in receipt.events if isinstance(event, Committed)]
    assert paid == [True, False, True, True]
    assert (world.balance(world.payee), world.claimable(token, world.payee)) == (2000, 1000)
    world.assert_conserved(token)


@pytest.mark.parametrize("size", [1, 12])
def test_a_batch_that_runs_short_of_gas_keeps_what_it_did(world: World, size: int) -> None:
    """With too little gas the last items are skipped for that reason; nothing becomes claimable, and the first are paid."""
    pairs = [world.prepared() for _ in range(size)]
    calldata = calls.encode_try_commit_many([terms for terms, _ in pairs], [key for _, key in pairs])
    paid_at = []
    for gas in range(100_000 + 30_000 * size, 660_000 + 30_000 * size, 40_000):
        snapshot = world.chain.rpc("evm_snapshot")
        receipt = world.operate(calldata, gas=gas)
        skipped = [decode_error(event.reason) for event in receipt.events if isinstance(event, Skipped)]
        assert {error.name for error in skipped if error} <= {"GasTooLow"}
        paid_at.append(size - len(skipped))
        assert world.balance(world.payee) == 1000 * paid_at[-1]
        assert world.claimable_total() == 0
        world.chain.rpc("evm_revert", snapshot)
    assert paid_at == sorted(paid_at)
    assert (paid_at[0], paid_at[-1]) == (0, size)
    assert size == 1 or set(paid_at) > {0, size}


def test_a_batch_of_prepares_that_runs_short_of_gas_keeps_what_it_did(world: World) -> None:
    """The same for prepares: those that had no gas left are skipped, and can be prepared by the next batch."""
    legs = [world.leg()[0] for _ in range(8)]
    calldata = calls.encode_try_prepare_many(legs, [world.sign(terms) for terms in legs])
    world.operate(calldata, gas=1_400_000)
    statuses = world.statuses(legs)
    assert (statuses[0], statuses[-1]) == (LegStatus.PREPARED, LegStatus.NONE)
    world.assert_conserved()
    world.operate(calldata)
    assert world.statuses(legs) == [LegStatus.PREPARED] * 8
