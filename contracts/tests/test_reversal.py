"""Reversals: what was paid comes back whole, or nothing changes; once, and only where the token lets this contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from contracts_world import SUPPLY, Receipt, Reverted, World, address, hostile, method

from lockstep_contracts import LegStatus, decode_error, gas
from lockstep_contracts import escrow as calls
from lockstep_contracts import token as token_calls
from lockstep_contracts.events import Claimed, Reversed, Skipped, Transferred

#: Manners of ControlledToken by their numbers, and the error that each is skipped with; a hundred kilobytes of nothing name none.
MANNERS = {
    1: "NotControlled",
    2: "TransferNotExact",
    3: "TransferNotExact",
    4: "TransferNotExact",
    5: "NotControlled",
    6: "",
    8: "ReverseFailed",
    9: "TransferNotExact",
}


def books(world: World, token: str) -> tuple[int, ...]:
    """Everything that a reversal may change."""
    owners = (world.payer.address, world.payee, world.escrow)
    balances = (world.balance(owner, token) for owner in owners)
    return (*balances, *(world.claimable(token, owner) for owner in owners), world.locked(token), world.claimable_total(token))


def skipped(receipt: Receipt) -> list[tuple[bytes, str]]:
    """Items that took no effect, and why."""
    found = [(event.key, decode_error(event.reason)) for event in receipt.events if isinstance(event, Skipped)]
    return [(key, error.name if error else "") for key, error in found]


def test_what_was_paid_comes_back(world: World) -> None:
    """A controlled token moves the amount from the payee to the payer; a repeat changes nothing and emits nothing."""
    world.control()
    terms, _ = world.committed()
    receipt = world.reverse(terms)
    payer = world.payer.address
    assert receipt.events == (
        Transferred(world.payee, payer, 1000),
        Reversed(terms.leg_key, world.token, payer, world.payee, 1000, forced=True, paid=True),
    )
    assert (world.status(terms), world.balance(payer), world.balance(world.payee)) == (LegStatus.REVERSED, SUPPLY, 0)
    before = books(world, world.token)
    assert world.reverse(terms).events == ()
    assert world.operate(calls.encode_try_reverse_many([terms, terms])).events == ()
    assert books(world, world.token) == before


def test_reversed_is_final(world: World) -> None:
    """A reversed leg is neither prepared, committed, aborted, tombstoned, announced nor executed again."""
    world.control()
    terms, key = world.committed()
    world.reverse(terms)
    before = books(world, world.token)
    attempts: list[Callable[[], Receipt]] = [
        lambda: world.prepare(terms),
        lambda: world.commit(terms, key),
        lambda: world.abort(terms),
        lambda: world.operate(calls.encode_tombstone(terms.leg_key)),
        lambda: world.arbitrate(calls.encode_announce(terms.leg_key, calls.Side.PAYEE)),
    ]
    for attempt in attempts:
        with pytest.raises(Reverted, match="BadState"):
            attempt()
    with pytest.raises(Reverted, match="NotAnnounced"):
        world.arbitrate(calls.encode_execute(terms))
    assert (world.status(terms), books(world, world.token)) == (LegStatus.REVERSED, before)


@pytest.mark.parametrize("stands", ["none", "tombstoned", "prepared", "aborted"])
def test_only_what_is_committed_is_reversed(world: World, stands: str) -> None:
    """A leg that nobody was paid for cannot be reversed."""
    world.control()
    terms, _ = world.leg() if stands in ("none", "tombstoned") else world.prepared()
    if stands == "tombstoned":
        world.operate(calls.encode_tombstone(terms.leg_key))
    if stands == "aborted":
        world.abort(terms)
    before = books(world, world.token)
    with pytest.raises(Reverted, match="BadState"):
        world.reverse(terms)
    assert skipped(world.operate(calls.encode_try_reverse_many([terms]))) == [(terms.leg_key, "BadState")]
    assert books(world, world.token) == before


def test_other_terms_are_not_reversed(world: World) -> None:
    """Whoever is named otherwise than the payer signed, nobody's tokens are moved."""
    world.control()
    terms, _ = world.committed()
    for bent in (replace(terms, payer=address("thief")), replace(terms, payee=address("victim")), replace(terms, amount=999)):
        with pytest.raises(Reverted, match="TermsConflict"):
            world.reverse(bent)
    assert (world.status(terms), world.balance(world.payee)) == (LegStatus.COMMITTED, 1000)


@pytest.mark.parametrize("who", ["admin", "arbiter", "pauser", "payer", "payee"])
def test_only_the_operator_reverses(world: World, who: str) -> None:
    """Nobody but the operator takes anything back, by no entrance."""
    world.control()
    terms, _ = world.committed()
    sender = world.payer.address if who == "payer" else getattr(world, who)
    world.chain.rpc("anvil_setBalance", sender, hex(10**24))
    for calldata in (calls.encode_reverse(terms), calls.encode_try_reverse_many([terms])):
        with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
            world.chain.send(sender, world.escrow, calldata)
    with pytest.raises(Reverted, match="OnlyItself"):
        world.operate(method(calls.ESCROW, "reverseItem")(terms.fields()))
    assert world.status(terms) is LegStatus.COMMITTED


def test_a_pause_stops_no_reversal(world: World) -> None:
    """A paused escrow takes nothing new, and still gives back."""
    world.control()
    terms, _ = world.committed()
    world.chain.send(world.pauser, world.escrow, calls.PAUSE.encode())
    world.reverse(terms)
    assert world.status(terms) is LegStatus.REVERSED


def test_a_token_without_a_controller_stays_paid(world: World) -> None:
    """Where the escrow is no agent, where there is no such function, and where anything is answered with yes: refused, and nothing changes."""
    plain, agreeable = world.hostile_token("FalseToken"), world.hostile_token("AgreeableToken")
    expected = {world.token: "NotAgent", plain: "NotControlled", agreeable: "TransferNotExact"}
    legs = {token: world.committed(token=token)[0] for token in expected}
    before = {token: books(world, token) for token in expected}
    for token, name in expected.items():
        with pytest.raises(Reverted, match=name):
            world.reverse(legs[token])
    receipt = world.operate(calls.encode_try_reverse_many(list(legs.values())))
    assert skipped(receipt) == [(legs[token].leg_key, name) for token, name in expected.items()]
    assert world.statuses(list(legs.values())) == [LegStatus.COMMITTED] * 3
    assert {token: books(world, token) for token in expected} == before


def test_a_payee_that_has_spent_it_stays_paid(world: World) -> None:
    """What the payee has no more cannot be taken from it, not even in part; once it has it again, it can."""
    world.control()
    terms, _ = world.committed()
    world.chain.rpc("anvil_setBalance", world.payee, hex(10**24))
    world.chain.send(world.payee, world.token, token_calls.encode_transfer(address("shop"), 1))
    with pytest.raises(Reverted, match="ERC20InsufficientBalance"):
        world.reverse(terms)
    assert skipped(world.operate(calls.encode_try_reverse_many([terms]))) == [(terms.leg_key, "ERC20InsufficientBalance")]
    assert (world.status(terms), world.balance(world.payee)) == (LegStatus.COMMITTED, 999)
    world.chain.send(world.admin, world.token, token_calls.encode_mint(world.payee, 1))
    world.reverse(terms)
    assert (world.status(terms), world.balance(world.payee)) == (LegStatus.REVERSED, 0)


def test_a_controller_that_was_dismissed_reverses_nothing(world: World) -> None:
    """The token's owner can take the power back at any time."""
    world.control()
    terms, _ = world.committed()
    world.chain.send(world.admin, world.token, token_calls.encode_remove_agent(world.escrow))
    assert not token_calls.decode_is_agent(world.chain.call(world.token, token_calls.encode_is_agent(world.escrow)))
    with pytest.raises(Reverted, match="NotAgent"):
        world.reverse(terms)
    assert world.status(terms) is LegStatus.COMMITTED


@pytest.mark.parametrize(("manner", "name"), MANNERS.items())
def test_a_controller_function_that_lies(world: World, manner: int, name: str) -> None:
    """A token that says no, or yes and does something else, or burns all gas, or shouts: refused, and nothing changes for anybody."""
    world.control()
    token = world.hostile_token("ControlledToken")
    bad, _ = world.committed(token=token)
    good = [world.committed()[0] for _ in range(2)]
    world.set_flag("ControlledToken", token, "setManner", manner)
    before = books(world, token)
    receipt = world.operate(calls.encode_try_reverse_many([good[0], bad, good[1]]))
    assert skipped(receipt) == [(bad.leg_key, name)]
    assert world.statuses([good[0], bad, good[1]]) == [LegStatus.REVERSED, LegStatus.COMMITTED, LegStatus.REVERSED]
    assert books(world, token) == before
    world.set_flag("ControlledToken", token, "setManner", 0)
    world.reverse(bad)
    assert (world.status(bad), world.balance(world.payer.address, token)) == (LegStatus.REVERSED, SUPPLY)


def test_a_token_cannot_call_back_into_a_reversal(world: World) -> None:
    """Even a token that holds the operator's role cannot reverse, commit or claim in the middle of a reversal."""
    token = world.hostile_token("ControlledToken")
    code = hostile("ControlledToken")
    world.chain.send(world.admin, world.escrow, calls.GRANT_ROLE.encode(calls.OPERATOR_ROLE, token))
    world.control()
    victim, _ = world.committed()
    held, key = world.prepared()
    world.set_flag("ControlledToken", token, "setManner", 7)
    inner = [
        calls.encode_reverse(victim),
        calls.encode_try_reverse_many([victim]),
        calls.encode_commit(held, key),
        calls.encode_claim(token, world.payee),
        method(calls.ESCROW, "reverseItem")(victim.fields()),
    ]
    for payload in inner:
        terms, _ = world.committed(token=token)
        world.chain.send(world.admin, token, method(code, "arm")(world.escrow, payload))
        world.reverse(terms)
        called, succeeded = (world.chain.call(token, method(code, name)()) for name in ("hasCalled", "hasSucceeded"))
        assert (int.from_bytes(called, "big"), int.from_bytes(succeeded, "big")) == (1, 0)
        assert world.statuses([terms, victim, held]) == [LegStatus.REVERSED, LegStatus.COMMITTED, LegStatus.PREPARED]
        world.assert_conserved(token)


@pytest.mark.parametrize("blocked", [False, True])
def test_what_was_never_claimed_needs_no_controller(world: World, blocked: bool) -> None:
    """What the payee could only claim is the payer's again, by transfer or, if the token refuses the payer too, as a claim of its own."""
    token = world.hostile_token("BlockingToken")
    terms, key = world.prepared(token=token)
    payer = world.payer.address
    world.set_flag("BlockingToken", token, "setBlocked", world.payee, True)
    world.commit(terms, key)
    world.set_flag("BlockingToken", token, "setBlocked", payer, blocked)
    receipt = world.reverse(terms)
    assert Reversed(terms.leg_key, token, payer, world.payee, 1000, forced=False, paid=not blocked) in receipt.events
    assert (world.claimable(token, world.payee), world.claimable(token, payer)) == (0, 1000 if blocked else 0)
    world.assert_conserved(token)
    for owner in (payer, world.payee):
        world.set_flag("BlockingToken", token, "setBlocked", owner, False)
    if blocked:
        claimed = world.chain.send(world.admin, world.escrow, calls.encode_claim(token, payer))
        assert Claimed(token, payer, 1000) in claimed.events
    with pytest.raises(Reverted, match="NothingClaimable"):
        world.chain.send(world.admin, world.escrow, calls.encode_claim(token, world.payee))
    assert (world.balance(payer, token), world.balance(world.payee, token)) == (SUPPLY, 0)
    world.assert_conserved(token)


def test_an_arbiters_payout_is_reversed_alike(world: World) -> None:
    """What an arbiter paid to the payee comes back in the same way; what it refunded does not move."""
    world.control()
    paid, _ = world.prepared()
    refunded, _ = world.prepared()
    world.arbitrate(calls.encode_announce(paid.leg_key, calls.Side.PAYEE))
    world.arbitrate(calls.encode_announce(refunded.leg_key, calls.Side.PAYER))
    world.chain.pass_time(8 * 86400)
    for terms in (paid, refunded):
        world.arbitrate(calls.encode_execute(terms))
    world.reverse(paid)
    with pytest.raises(Reverted, match="BadState"):
        world.reverse(refunded)
    assert world.statuses([paid, refunded]) == [LegStatus.REVERSED, LegStatus.ABORTED]
    assert world.balance(world.payer.address) == SUPPLY
    with pytest.raises(Reverted, match="BadState"):
        world.arbitrate(calls.encode_execute(paid))


def test_a_batch_that_runs_short_of_gas_keeps_what_it_did(world: World) -> None:
    """With too little gas the last items are skipped for that reason, which says nothing about the legs; the next batch reverses them."""
    world.control()
    legs = [world.committed()[0] for _ in range(8)]
    receipt = world.operate(calls.encode_try_reverse_many(legs), gas=1_250_000)
    assert {name for _, name in skipped(receipt)} == {"GasTooLow"}
    statuses = world.statuses(legs)
    assert (statuses[0], statuses[-1]) == (LegStatus.REVERSED, LegStatus.COMMITTED)
    assert skipped(world.operate(calls.encode_try_reverse_many(legs), gas=gas.reverse_gas(8))) == []
    assert world.statuses(legs) == [LegStatus.REVERSED] * 8
