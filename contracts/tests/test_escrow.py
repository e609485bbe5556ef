"""The escrow's rules for single legs, against a real node."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from contracts_world import CHAIN_ID, SUPPLY, Receipt, Reverted, World, address, hostile, method, signer

from lockstep_contracts import LegStatus, leg_signing_hash
from lockstep_contracts import escrow as calls
from lockstep_contracts.calldata import encode_deployment
from lockstep_contracts.events import Aborted, Committed, Prepared, Tombstoned, Transferred

#: As the contract is told that there is none.
NO_PERMIT = (0, 0, 0, bytes(32), bytes(32))


def said(events: tuple[object, ...]) -> list[object]:
    """The escrow's own events, without the token's."""
    return [event for event in events if not isinstance(event, Transferred)]


def test_prepare_then_commit_pays_the_payee(world: World) -> None:
    """A prepared leg's tokens leave the payer, wait in the escrow, and reach the payee with the key."""
    terms, key = world.leg()
    assert said(world.prepare(terms).events) == [Prepared(terms.leg_key, terms)]
    assert (world.balance(world.payer.address), world.locked()) == (SUPPLY - 1000, 1000)
    assert world.status(terms) is LegStatus.PREPARED
    world.assert_conserved()
    receipt = world.commit(terms, key)
    assert said(receipt.events) == [Committed(terms.leg_key, world.token, world.payee, 1000, key, paid=True)]
    assert (world.balance(world.payee), world.balance(world.escrow), world.locked()) == (1000, 0, 0)
    assert world.status(terms) is LegStatus.COMMITTED


def test_prepare_then_abort_refunds_the_payer(world: World) -> None:
    """An aborted leg's tokens return to the payer, whole."""
    terms, _ = world.prepared()
    receipt = world.abort(terms)
    assert said(receipt.events) == [Aborted(terms.leg_key, world.token, world.payer.address, 1000, paid=True)]
    assert (world.balance(world.payer.address), world.balance(world.escrow)) == (SUPPLY, 0)
    assert world.status(terms) is LegStatus.ABORTED


def test_the_digest_of_the_terms_is_kept(world: World) -> None:
    """The contract keeps the first 31 bytes of the hash that Python computes of the same terms."""
    terms, _ = world.prepared()
    answer = world.chain.call(world.escrow, calls.encode_leg_of(terms.leg_key))
    assert calls.decode_leg_of(answer) == (LegStatus.PREPARED, calls.terms_hash(terms)[:31])


@pytest.mark.parametrize("end", ["prepared", "committed", "aborted", "tombstoned"])
def test_a_repeat_changes_nothing(world: World, end: str) -> None:
    """Every call that took effect can be repeated: it succeeds, moves nothing and emits nothing."""
    terms, key = world.leg() if end == "tombstoned" else world.prepared()
    repeats: dict[str, Callable[[], Receipt]] = {
        "prepared": lambda: world.prepare(terms),
        "committed": lambda: world.commit(terms, key),
        "aborted": lambda: world.abort(terms),
        "tombstoned": lambda: world.operate(calls.encode_tombstone(terms.leg_key)),
    }
    again = repeats[end]
    again()
    before = world.balance(world.escrow), world.balance(world.payer.address), world.balance(world.payee)
    for _ in range(2):
        assert again().events == ()
    if end == "committed":
        assert world.prepare(terms).events == ()
    assert (world.balance(world.escrow), world.balance(world.payer.address), world.balance(world.payee)) == before


def test_a_wrong_key_moves_nothing(world: World) -> None:
    """Commit needs the preimage of the lock, before and after the leg is committed."""
    terms, key = world.prepared()
    for wrong in (bytes(32), hashlib.sha256(key).digest(), world.key(10**9)):
        with pytest.raises(Reverted, match="KeyWrong"):
            world.commit(terms, wrong)
    assert (world.status(terms), world.balance(world.payee)) == (LegStatus.PREPARED, 0)
    world.commit(terms, key)
    with pytest.raises(Reverted, match="KeyWrong"):
        world.commit(terms, bytes(32))


def test_a_final_state_never_becomes_the_other(world: World) -> None:
    """There is no path from Committed to Aborted or back."""
    committed, committed_key = world.prepared()
    world.commit(committed, committed_key)
    for contradiction in (calls.encode_abort(committed), calls.encode_tombstone(committed.leg_key)):
        with pytest.raises(Reverted, match="BadState") as refusal:
            world.operate(contradiction)
        assert refusal.value.error is not None
        assert refusal.value.error.arguments["status"] == LegStatus.COMMITTED
    aborted, aborted_key = world.prepared()
    world.abort(aborted)
    for contradiction in (calls.encode_commit(aborted, aborted_key), calls.encode_prepare(aborted, world.sign(aborted))):
        with pytest.raises(Reverted, match="BadState"):
            world.operate(contradiction)
    assert world.statuses([committed, aborted]) == [LegStatus.COMMITTED, LegStatus.ABORTED]


@pytest.mark.parametrize("by_key", [True, False])
def test_a_tombstone_refuses_a_late_prepare(world: World, by_key: bool) -> None:
    """A leg that was aborted before it was prepared never takes tokens."""
    terms, key = world.leg()
    calldata = calls.encode_tombstone(terms.leg_key) if by_key else calls.encode_abort(terms)
    assert world.operate(calldata).events == (Tombstoned(terms.leg_key),)
    for late in (calls.encode_prepare(terms, world.sign(terms)), calls.encode_commit(terms, key)):
        with pytest.raises(Reverted, match="BadState"):
            world.operate(late)
    assert world.abort(terms).events == ()
    assert world.balance(world.payer.address) == SUPPLY


def test_a_tombstone_does_not_end_a_hold(world: World) -> None:
    """A prepared leg is aborted with its terms only, since the refund needs them."""
    terms, _ = world.prepared()
    with pytest.raises(Reverted, match="BadState"):
        world.operate(calls.encode_tombstone(terms.leg_key))
    assert world.locked() == 1000


def test_commit_of_an_unknown_leg_is_refused(world: World) -> None:
    """Nothing is paid for a leg that was never prepared."""
    terms, key = world.leg()
    with pytest.raises(Reverted, match="BadState"):
        world.commit(terms, key)


@pytest.mark.parametrize("changed", ["token", "payer", "payee", "amount", "lock", "prepare_by"])
def test_other_terms_for_the_same_leg_are_refused(world: World, changed: str) -> None:
    """Prepare, commit and abort of a prepared leg want exactly the terms that were prepared."""
    terms, key = world.prepared()
    values: dict[str, Any] = {"amount": 999, "lock": hashlib.sha256(bytes(32)).digest(), "prepare_by": terms.prepare_by + 1}
    other = replace(terms, **{changed: values.get(changed, world.admin)})
    attempts = [calls.encode_prepare(other, world.sign(other)), calls.encode_commit(other, key), calls.encode_abort(other)]
    for calldata in attempts:
        with pytest.raises(Reverted, match="TermsConflict"):
            world.operate(calldata)
    world.commit(terms, key)
    assert world.balance(world.payee) == 1000


def test_only_the_payer_s_signature_over_these_terms_on_this_contract_holds(world: World) -> None:
    """A stranger's signature, one over other terms, for another chain or contract, cut short or malleated, takes nothing."""
    terms, _ = world.leg()
    good = world.sign(terms)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high_s = good[:32] + (order - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([27 + 28 - good[64]])
    wrong = [
        b"",
        good[:64],
        good[:64] + b"\x00",
        high_s,
        world.sign(terms, by=signer("stranger")),
        world.sign(replace(terms, amount=999)),
        world.payer.sign(leg_signing_hash(1, world.escrow, terms)),
        world.payer.sign(leg_signing_hash(CHAIN_ID, world.registry, terms)),
    ]
    for signature in wrong:
        with pytest.raises(Reverted, match="SignatureInvalid"):
            world.prepare(terms, signature)
    assert world.status(terms) is LegStatus.NONE
    world.prepare(terms, good)


def test_the_contract_hashes_as_python_does(world: World) -> None:
    """What Python lets the payer sign is what the contract checks, for the leg's key too."""
    terms, _ = world.leg()
    signing = method(calls.ESCROW, "signingHash")(terms.fields())
    assert world.chain.call(world.escrow, signing) == leg_signing_hash(CHAIN_ID, world.escrow, terms)
    naming = method(calls.ESCROW, "legKeyOf")(terms.plan_digest, terms.leg_id_hash)
    assert world.chain.call(world.escrow, naming) == terms.leg_key


def test_a_contract_wallet_pays_with_its_owner_s_signature(world: World) -> None:
    """A payer that is a contract is asked (ERC-1271); another's signature is refused."""
    wallet_code = hostile("ContractWallet")
    wallet = world.chain.deploy(world.admin, encode_deployment(wallet_code, world.payer.address))
    world.fund(world.token, wallet)
    terms, key = world.leg(payer=wallet)
    with pytest.raises(Reverted, match="SignatureInvalid"):
        world.prepare(terms, world.sign(terms, by=signer("stranger")))
    world.prepare(terms)
    world.commit(terms, key)
    assert (world.balance(wallet), world.balance(world.payee)) == (SUPPLY - 1000, 1000)
    no_wallet, _ = world.leg(payer=world.token)
    with pytest.raises(Reverted, match="SignatureInvalid"):
        world.prepare(no_wallet)


def test_a_late_prepare_is_refused(world: World) -> None:
    """A prepare in a block after prepareBy takes nothing; its repeat, if it was in time, still succeeds."""
    in_time, _ = world.leg()
    late, _ = world.leg()
    world.chain.rpc("evm_setNextBlockTimestamp", in_time.prepare_by)
    world.prepare(in_time)
    world.chain.rpc("evm_setNextBlockTimestamp", in_time.prepare_by + 1)
    late = replace(late, prepare_by=in_time.prepare_by)
    with pytest.raises(Reverted, match="PrepareTooLate"):
        world.prepare(late)
    assert world.prepare(in_time).events == ()
    assert world.locked() == 1000


def test_a_hold_never_expires(world: World) -> None:
    """A year later the key still commits."""
    terms, key = world.prepared()
    world.chain.pass_time(365 * 86400)
    world.commit(terms, key)
    assert world.balance(world.payee) == 1000


def test_terms_that_cannot_be_settled_are_refused(world: World) -> None:
    """No payment to nobody, to the payer, to the token or the escrow; none in a token that has no code."""
    nobody = "0x" + "00" * 20
    for changes in (
        {"payee": nobody},
        {"payee": world.payer.address},
        {"payee": world.token},
        {"payee": world.escrow},
        {"token": address("no token")},
    ):
        terms, _ = world.leg(**changes)
        with pytest.raises(Reverted, match="TermsInvalid"):
            world.prepare(terms)


@pytest.mark.parametrize("amount", [0, 2**96, 2**256 - 1])
def test_amounts_out_of_range_are_refused(world: World, amount: int) -> None:
    """The contract holds 1 to 2^96 - 1 minor units, whoever encodes the call."""
    terms, _ = world.leg()
    fields = (*terms.fields()[:5], amount, *terms.fields()[6:])
    with pytest.raises(Reverted, match="TermsInvalid"):
        world.operate(calls.PREPARE.encode(fields, world.sign(terms), NO_PERMIT))


def test_missing_allowance_or_balance_is_named(world: World) -> None:
    """The token's own refusal reaches the caller."""
    poor = signer("poor")
    terms, _ = world.leg(payer=poor.address)
    with pytest.raises(Reverted, match="ERC20InsufficientAllowance"):
        world.prepare(terms, world.sign(terms, by=poor))
    terms, _ = world.leg(amount=SUPPLY + 1)
    with pytest.raises(Reverted, match="ERC20InsufficientBalance"):
        world.prepare(terms)


def test_each_role_is_needed(world: World) -> None:
    """Operator, arbiter and pauser calls are refused from everybody else, also from the admin."""
    terms, key = world.prepared()
    operator = [
        calls.encode_prepare(terms, b""),
        calls.encode_commit(terms, key),
        calls.encode_abort(terms),
        calls.encode_tombstone(terms.leg_key),
        calls.encode_try_prepare_many([terms], [b""]),
        calls.encode_try_commit_many([terms], [key]),
        calls.encode_try_abort_many([terms]),
        calls.encode_try_tombstone_many([terms.leg_key]),
    ]
    arbiter = [
        calls.encode_announce(terms.leg_key, calls.Side.PAYER),
        calls.encode_retract(terms.leg_key),
        calls.encode_execute(terms),
    ]
    pauser = [calls.PAUSE.encode(), calls.UNPAUSE.encode()]
    people = {world.operator, world.arbiter, world.pauser, world.admin, world.payer.address, address("stranger")}
    for holder, calldatas in ((world.operator, operator), (world.arbiter, arbiter), (world.pauser, pauser)):
        for calldata in calldatas:
            for person in people - {holder}:
                with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
                    world.chain.call(world.escrow, calldata, sender=person)
    with pytest.raises(Reverted, match="OnlyItself"):
        world.operate(method(calls.ESCROW, "prepareItem")(terms.fields(), world.sign(terms), NO_PERMIT))
    with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
        world.operate(calls.GRANT_ROLE.encode(calls.ARBITER_ROLE, world.operator))


def test_a_pause_stops_prepares_only(world: World) -> None:
    """While paused nothing new is held; what is held is committed, aborted and repeated."""
    first, first_key = world.prepared()
    second, _ = world.prepared()
    third, _ = world.leg()
    world.chain.send(world.pauser, world.escrow, calls.PAUSE.encode())
    with pytest.raises(Reverted, match="EnforcedPause"):
        world.prepare(third)
    assert world.prepare(first).events == ()
    world.commit(first, first_key)
    world.abort(second)
    world.chain.send(world.pauser, world.escrow, calls.UNPAUSE.encode())
    world.prepare(third)
    assert world.locked() == 1000


def test_a_leg_s_key_opens_no_other_leg(world: World) -> None:
    """Two legs of one plan have locks of their own."""
    first, first_key = world.prepared()
    second, _ = world.prepared(plan_digest=first.plan_digest, leg_id_hash=calls.leg_id_hash("second"))
    with pytest.raises(Reverted, match="KeyWrong"):
        world.commit(second, first_key)
    assert world.status(second) is LegStatus.PREPARED
