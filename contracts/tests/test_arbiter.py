"""The arbiter's way out: announced, seven days, then executed; commit and abort win until then."""

from __future__ import annotations

import pytest
from contracts_world import SUPPLY, Receipt, Reverted, World

from lockstep_contracts import LegStatus, LegTerms, Side
from lockstep_contracts import escrow as calls
from lockstep_contracts.events import Announced, Executed, Retracted

WEEK = 7 * 86400


def announce(world: World, terms: LegTerms, side: Side) -> Receipt:
    return world.arbitrate(calls.encode_announce(terms.leg_key, side))


def execute(world: World, terms: LegTerms) -> Receipt:
    return world.arbitrate(calls.encode_execute(terms))


@pytest.mark.parametrize("side", list(Side))
def test_after_seven_days_the_hold_is_ended_as_announced(world: World, side: Side) -> None:
    """Not a second before the seven days are over; then the announced side has the tokens, and the leg is final."""
    terms, _ = world.prepared()
    receipt = announce(world, terms, side)
    assert receipt.events == (Announced(terms.leg_key, side, receipt.block_time + WEEK),)
    world.chain.rpc("evm_setNextBlockTimestamp", receipt.block_time + WEEK - 1)
    with pytest.raises(Reverted, match="AnnouncedTooRecently"):
        execute(world, terms)
    world.chain.rpc("evm_setNextBlockTimestamp", receipt.block_time + WEEK)
    owner = world.payee if side is Side.PAYEE else world.payer.address
    assert Executed(terms.leg_key, world.token, owner, side, 1000, paid=True) in execute(world, terms).events
    assert execute(world, terms).events == ()
    assert world.status(terms) is (LegStatus.COMMITTED if side is Side.PAYEE else LegStatus.ABORTED)
    paid = (1000, SUPPLY - 1000) if side is Side.PAYEE else (0, SUPPLY)
    assert (world.balance(world.payee), world.balance(world.payer.address)) == paid
    world.assert_conserved()


@pytest.mark.parametrize("side", list(Side))
def test_an_execution_is_final(world: World, side: Side) -> None:
    """What agrees with an executed announcement is a silent repeat; what contradicts it is refused."""
    terms, key = world.prepared()
    announce(world, terms, side)
    world.chain.pass_time(WEEK)
    execute(world, terms)
    agreeing, contrary = calls.encode_commit(terms, key), calls.encode_abort(terms)
    if side is Side.PAYER:
        agreeing, contrary = contrary, agreeing
    assert world.operate(agreeing).events == ()
    with pytest.raises(Reverted, match="BadState"):
        world.operate(contrary)


@pytest.mark.parametrize("days", [0, 8])
def test_commit_and_abort_win_until_it_is_executed(world: World, days: int) -> None:
    """Within the seven days, and later if the arbiter has not executed yet, the decision still counts."""
    committed, key = world.prepared()
    aborted, _ = world.prepared()
    announce(world, committed, Side.PAYER)
    announce(world, aborted, Side.PAYEE)
    world.chain.pass_time(days * 86400)
    world.commit(committed, key)
    world.abort(aborted)
    world.chain.pass_time(WEEK)
    for terms in (committed, aborted):
        with pytest.raises(Reverted, match="BadState"):
            execute(world, terms)
        answer = world.chain.call(world.escrow, calls.ANNOUNCEMENT_OF.encode(terms.leg_key))
        assert calls.ANNOUNCEMENT_OF.decode(answer) == (Side.PAYEE, 0)
    assert (world.balance(world.payee), world.balance(world.payer.address)) == (1000, SUPPLY - 1000)


def test_only_a_hold_can_be_announced(world: World) -> None:
    """Unknown, committed and aborted legs cannot be announced, and nothing is executed unannounced."""
    unknown, _ = world.leg()
    done, key = world.prepared()
    world.commit(done, key)
    for terms in (unknown, done):
        with pytest.raises(Reverted, match="BadState"):
            announce(world, terms, Side.PAYER)
    held, _ = world.prepared()
    with pytest.raises(Reverted, match="NotAnnounced"):
        execute(world, held)


def test_announcing_again_keeps_the_clock_and_changing_sides_restarts_it(world: World) -> None:
    """A repeat is silent; the other side waits seven days of its own."""
    terms, _ = world.prepared()
    announce(world, terms, Side.PAYEE)
    world.chain.pass_time(WEEK // 2)
    assert announce(world, terms, Side.PAYEE).events == ()
    changed = announce(world, terms, Side.PAYER)
    assert changed.events == (Announced(terms.leg_key, Side.PAYER, changed.block_time + WEEK),)
    world.chain.pass_time(WEEK // 2 + 60)
    with pytest.raises(Reverted, match="AnnouncedTooRecently"):
        execute(world, terms)
    world.chain.pass_time(WEEK // 2)
    execute(world, terms)
    assert world.balance(world.payer.address) == SUPPLY


def test_a_retracted_announcement_is_none(world: World) -> None:
    """After a retraction nothing can be executed, however long ago it was announced."""
    terms, _ = world.prepared()
    announce(world, terms, Side.PAYER)
    world.chain.pass_time(WEEK)
    assert world.arbitrate(calls.encode_retract(terms.leg_key)).events == (Retracted(terms.leg_key),)
    assert world.arbitrate(calls.encode_retract(terms.leg_key)).events == ()
    with pytest.raises(Reverted, match="NotAnnounced"):
        execute(world, terms)


def test_execution_wants_the_terms_and_survives_a_blocked_owner(world: World) -> None:
    """Other terms are refused; an owner that the token refuses claims later."""
    token = world.hostile_token("BlockingToken")
    terms, _ = world.prepared(token=token)
    announce(world, terms, Side.PAYEE)
    world.chain.pass_time(WEEK)
    other, _ = world.leg(plan_digest=terms.plan_digest, token=token)
    with pytest.raises(Reverted, match="TermsConflict"):
        execute(world, other)
    world.set_flag("BlockingToken", token, "setBlocked", world.payee, True)
    assert execute(world, terms).events == (Executed(terms.leg_key, token, world.payee, Side.PAYEE, 1000, paid=False),)
    assert world.claimable(token, world.payee) == 1000
    world.assert_conserved(token)
