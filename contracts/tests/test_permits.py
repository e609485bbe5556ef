"""Permits (EIP-2612): the allowance comes with the leg, in the same transaction; whatever a permit does, the transfer decides."""

from __future__ import annotations

import pytest
from contracts_world import CHAIN_ID, SUPPLY, Reverted, Signer, World, signer
from eth_utils.crypto import keccak

from lockstep_contracts import LegStatus, decode_error, gas
from lockstep_contracts import escrow as calls
from lockstep_contracts import token as token_calls
from lockstep_contracts.escrow import Permit
from lockstep_contracts.events import Prepared, Skipped


@pytest.fixture
def holder(world: World) -> Signer:
    """Somebody with tokens, who allowed nobody anything."""
    someone = signer("holder")
    world.chain.send(world.admin, world.token, token_calls.encode_mint(someone.address, SUPPLY))
    return someone


def use(world: World, owner: Signer, permit: Permit, sender: str) -> None:
    """Somebody hands the permit to the token."""
    _, _, v, r, s = permit.fields()
    world.chain.send(
        sender, world.token, token_calls.PERMIT.encode(owner.address, world.escrow, permit.value, permit.deadline, v, r, s)
    )


def test_the_domain_of_permits_is_the_standards(world: World) -> None:
    """The token's DOMAIN_SEPARATOR is EIP-712's over its name, version 1, chain and address, as wallets work it out."""
    kinds = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    words = [
        keccak(text=kinds),
        keccak(text="Bond"),
        keccak(text="1"),
        CHAIN_ID.to_bytes(32),
        bytes.fromhex(world.token[2:]).rjust(32, b"\0"),
    ]
    assert world.chain.call(world.token, token_calls.encode_domain_separator()) == keccak(b"".join(words))


def test_a_permit_is_the_allowance(world: World, holder: Signer) -> None:
    """A payer who never sent a transaction has its tokens taken by signature alone, and not one unit more."""
    terms, _ = world.leg(payer=holder.address)
    with pytest.raises(Reverted, match="ERC20InsufficientAllowance"):
        world.prepare(terms, world.sign(terms, holder))
    receipt = world.prepare(terms, world.sign(terms, holder), world.permit(holder, terms.amount))
    assert [event for event in receipt.events if isinstance(event, Prepared)] == [Prepared(terms.leg_key, terms)]
    assert (world.status(terms), world.balance(holder.address)) == (LegStatus.PREPARED, SUPPLY - terms.amount)
    assert world.allowance(holder.address) == 0
    world.assert_conserved()


def test_a_permit_that_was_used_before_does_no_harm(world: World, holder: Signer) -> None:
    """Whoever hands the payer's permit to the token first gives the allowance with it: the prepare holds all the same."""
    terms, _ = world.leg(payer=holder.address)
    permit = world.permit(holder, terms.amount)
    use(world, holder, permit, world.admin)
    world.prepare(terms, world.sign(terms, holder), permit)
    assert world.status(terms) is LegStatus.PREPARED


@pytest.mark.parametrize("fault", ["value", "deadline", "signature", "nonce", "expired", "stranger"])
def test_a_permit_that_does_not_hold_takes_nothing(world: World, holder: Signer, fault: str) -> None:
    """Altered, of another nonce, expired or signed by somebody else: there is no allowance, and the prepare reverts."""
    terms, _ = world.leg(payer=holder.address)
    permit = world.permit(signer("somebody") if fault == "stranger" else holder, terms.amount, nonce=7 if fault == "nonce" else 0)
    if fault == "expired":
        world.chain.pass_time(3000)
        permit = world.permit(holder, terms.amount, seconds=-1)
    altered = {
        "value": Permit(permit.value + 1, permit.deadline, permit.signature),
        "deadline": Permit(permit.value, permit.deadline + 1, permit.signature),
        "signature": Permit(permit.value, permit.deadline, permit.signature[:64] + b"\x00"),
    }
    with pytest.raises(Reverted, match="ERC20InsufficientAllowance"):
        world.prepare(terms, world.sign(terms, holder), altered.get(fault, permit))
    assert (world.status(terms), world.balance(holder.address)) == (LegStatus.NONE, SUPPLY)


def test_no_permit_without_the_payers_signature_on_the_leg(world: World, holder: Signer) -> None:
    """A permit is no consent: the terms must be signed, and a refused leg leaves the permit unused."""
    terms, _ = world.leg(payer=holder.address)
    permit = world.permit(holder, 2**256 - 1)
    with pytest.raises(Reverted, match="SignatureInvalid"):
        world.prepare(terms, world.sign(terms, signer("somebody")), permit)
    assert world.allowance(holder.address) == 0
    receipt = world.operate(calls.encode_try_prepare_many([terms], [b""], [permit]))
    assert [type(event) for event in receipt.events] == [Skipped]
    assert world.allowance(holder.address) == 0


def test_an_allowance_that_suffices_is_left_as_it_is(world: World, holder: Signer) -> None:
    """A permit over less than what the payer had allowed before does not lower it: other legs count on it."""
    world.chain.rpc("anvil_setBalance", holder.address, hex(10**24))
    world.chain.send(holder.address, world.token, token_calls.encode_approve(world.escrow, 2**256 - 1))
    terms, _ = world.leg(payer=holder.address)
    permit = world.permit(holder, terms.amount)
    world.prepare(terms, world.sign(terms, holder), permit)
    assert (world.status(terms), world.allowance(holder.address)) == (LegStatus.PREPARED, 2**256 - 1)


def test_one_permit_serves_all_legs_of_a_payer(world: World, holder: Signer) -> None:
    """In one batch, beside legs that have none: a permit over the sum is used once, whichever leg comes first."""
    mine = [world.leg(payer=holder.address)[0] for _ in range(3)]
    other, _ = world.leg()
    permit = world.permit(holder, 3 * mine[0].amount)
    legs = [mine[0], other, mine[1], mine[2]]
    signatures = [world.sign(terms, holder if terms.payer == holder.address else None) for terms in legs]
    receipt = world.operate(
        calls.encode_try_prepare_many(legs, signatures, [permit, None, permit, permit]), gas=gas.prepare_gas(4, permits=3)
    )
    assert not [event for event in receipt.events if isinstance(event, Skipped)]
    assert world.statuses(legs) == [LegStatus.PREPARED] * 4
    assert world.allowance(holder.address) == 0


def test_a_permit_cannot_harm_its_neighbours(world: World, holder: Signer) -> None:
    """A token whose permit burns all gas, one that knows no permits and one that answers everything: skipped, and the others are prepared."""
    permit = world.permit(holder, 1000)
    tokens = [world.hostile_token(name) for name in ("BombPermitToken", "FeeToken", "AgreeableToken")]
    for token in tokens:
        world.chain.send(world.payer.address, token, token_calls.encode_approve(world.escrow, 0))
    legs = [world.leg(token=token)[0] for token in tokens]
    good, _ = world.leg(payer=holder.address)
    signatures = [world.sign(terms) for terms in legs] + [world.sign(good, holder)]
    receipt = world.operate(
        calls.encode_try_prepare_many([*legs, good], signatures, [permit] * 4), gas=gas.prepare_gas(4, permits=4)
    )
    reasons = [decode_error(event.reason) for event in receipt.events if isinstance(event, Skipped)]
    assert [reason.name if reason else "" for reason in reasons] == ["ERC20InsufficientAllowance"] * 3
    assert world.statuses([*legs, good]) == [LegStatus.NONE] * 3 + [LegStatus.PREPARED]


def test_a_gas_bomb_in_a_permit_leaves_enough_for_the_transfer(world: World, holder: Signer) -> None:
    """A permit that burns its share of gas costs only itself where the allowance is there by then; here by another leg's."""
    token = world.hostile_token("BombPermitToken")
    world.chain.send(world.payer.address, token, token_calls.encode_approve(world.escrow, 999))
    terms, _ = world.leg(token=token)
    permit = world.permit(holder, 1000)
    with pytest.raises(Reverted, match="ERC20InsufficientAllowance"):
        world.prepare(terms, permit=permit)
    world.chain.send(world.payer.address, token, token_calls.encode_approve(world.escrow, 1000))
    world.prepare(terms, permit=permit)
    assert world.status(terms) is LegStatus.PREPARED


def test_as_many_permits_as_legs_or_none(world: World, holder: Signer) -> None:
    """Lists of two lengths are refused, by the encoder and by the contract."""
    terms, _ = world.leg()
    permit = world.permit(holder, 1000)
    with pytest.raises(ValueError, match="legs and permits: 1 and 2"):
        calls.encode_try_prepare_many([terms], [world.sign(terms)], [permit, permit])
    with pytest.raises(Reverted, match="LengthsDiffer"):
        world.operate(calls.TRY_PREPARE_MANY.encode([terms.fields()], [world.sign(terms)], [permit.fields()] * 2))


@pytest.mark.parametrize("size", [1, 10, 100])
def test_the_gas_of_permits(world: World, size: int) -> None:
    """With a payer of its own for each leg, none of which the token or the escrow has met, the fixed limit suffices."""
    payers = [signer(f"permitting {number}") for number in range(size)]
    for payer in payers:
        world.chain.send(world.admin, world.token, token_calls.encode_mint(payer.address, 1000))
    legs = [world.leg(payer=payer.address)[0] for payer in payers]
    signatures = [world.sign(terms, payer) for terms, payer in zip(legs, payers, strict=True)]
    permits = [world.permit(payer, 1000, nonce=0) for payer in payers]
    half = size // 2 or 1  # what the gateway does with a batch that is above the gas of one transaction
    for start in range(0, size, half):
        stop = start + half
        calldata = calls.encode_try_prepare_many(legs[start:stop], signatures[start:stop], permits[start:stop])
        limit = gas.prepare_gas(half, permits=half)
        assert limit <= gas.TRANSACTION_GAS_MAX
        receipt = world.operate(calldata, gas=limit)
        assert receipt.gas_used / half < 131_000 + 68_000 // half
    assert set(world.statuses(legs)) == {LegStatus.PREPARED}


@pytest.mark.parametrize(
    "change", [{"value": 2**256}, {"value": -1}, {"deadline": 0}, {"deadline": 2**256}, {"signature": bytes(64)}]
)
def test_permits_that_cannot_be_encoded_cannot_exist(change: dict[str, int | bytes]) -> None:
    """One such item would make a whole batch undecodable; and a deadline of 0 would stand for no permit."""
    with pytest.raises(ValueError, match=r"deadline|signature"):
        Permit(**({"value": 1, "deadline": 1, "signature": bytes(65)} | change))  # type: ignore[arg-type]
