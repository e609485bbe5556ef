"""Gas: what a leg costs at batch sizes 1, 10 and 100, and that the fixed limits suffice in the dearest case."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contracts_world import GAS_LIMIT, World, address, signer
from eth_utils.crypto import keccak

from lockstep_contracts import Finalisation, LegStatus, PlanStatus, gas
from lockstep_contracts import escrow as calls
from lockstep_contracts import notary as registry
from lockstep_contracts.events import Skipped

#: Most gas per item at batch size 1, 10, 100: the escrow's prepare, commit, abort and reverse, the registry's register, finalise, anchor and escalation
#: (its opening).
BARS = {
    1: {
        "prepare": 131_000,
        "commit": 71_000,
        "abort": 52_000,
        "reverse": 62_000,
        "register": 50_000,
        "finalise": 34_000,
        "anchor": 52_000,
        "escalation": 73_000,
    },
    10: {
        "prepare": 55_000,
        "commit": 24_000,
        "abort": 21_000,
        "reverse": 27_000,
        "register": 28_000,
        "finalise": 12_000,
        "anchor": 30_000,
        "escalation": 52_000,
    },
    100: {
        "prepare": 47_000,
        "commit": 19_000,
        "abort": 17_500,
        "reverse": 23_500,
        "register": 25_500,
        "finalise": 9_500,
        "anchor": 27_500,
        "escalation": 50_000,
    },
}


@pytest.mark.parametrize("size", list(BARS))
def test_gas_per_item(world: World, size: int, record_property: Callable[[str, object], None]) -> None:
    """Gas per item in a batch stays below its bar."""
    committed, aborted = ([world.leg() for _ in range(size)] for _ in range(2))
    digests = [keccak(text=f"plan {number}") for number in range(size)]
    endings = [Finalisation(digest, PlanStatus.COMMITTED, digest) for digest in digests]

    def prepare(pairs: list[tuple[calls.LegTerms, bytes]]) -> bytes:
        return calls.encode_try_prepare_many([terms for terms, _ in pairs], [world.sign(terms) for terms, _ in pairs])

    used = {"prepare": world.operate(prepare(committed)).gas_used}
    used["commit"] = world.operate(
        calls.encode_try_commit_many([terms for terms, _ in committed], [key for _, key in committed])
    ).gas_used
    world.control()
    used["reverse"] = world.operate(calls.encode_try_reverse_many([terms for terms, _ in committed])).gas_used
    world.operate(prepare(aborted))
    used["abort"] = world.operate(calls.encode_try_abort_many([terms for terms, _ in aborted])).gas_used
    used["register"] = world.notarise(registry.encode_register_many(digests)).gas_used
    used["finalise"] = world.notarise(registry.encode_finalise_many(endings)).gas_used
    roots = [registry.Root(registry.AnchorKind.CHECKPOINT, digest, 2**64 - 1) for digest in digests]
    used["anchor"] = world.notarise(registry.encode_anchor_many(roots)).gas_used
    records = [registry.EscalationRecord(digest, digest, registry.EscalationKind.OPENED, digest) for digest in digests]
    used["escalation"] = world.notarise(registry.encode_record_escalations(records)).gas_used
    each = {name: total // size for name, total in used.items()}
    record_property(f"gas_per_item_at_{size}", each)
    assert world.statuses([terms for terms, _ in committed + aborted]) == [LegStatus.REVERSED] * size + [LegStatus.ABORTED] * size
    assert {name: value for name, value in each.items() if value > BARS[size][name]} == {}


@pytest.mark.parametrize("size", [1, 3, 20])
@pytest.mark.parametrize("blocked", [False, True])
def test_the_limits_suffice_in_the_dearest_case(world: World, size: int, blocked: bool) -> None:
    """Every leg with a token, a payer and a payee of its own, none touched before, payouts failing or not: no item is skipped."""
    payer = signer("dear payer")
    world.chain.rpc("anvil_setBalance", payer.address, hex(10**24))
    pairs = []
    for number in range(size):
        token = world.hostile_token("BlockingToken")
        world.fund(token, payer.address)
        payee = address(f"dear payee {number}")
        if blocked:
            world.set_flag("BlockingToken", token, "setBlocked", payee, True)
        pairs.append(world.leg(token=token, payer=payer.address, payee=payee))
    legs = [terms for terms, _ in pairs]
    signatures = [world.sign(terms, by=payer) for terms in legs]
    receipt = world.operate(calls.encode_try_prepare_many(legs, signatures), gas=gas.prepare_gas(size))
    assert not [event for event in receipt.events if isinstance(event, Skipped)]
    receipt = world.operate(calls.encode_try_commit_many(legs, [key for _, key in pairs]), gas=gas.pay_out_gas(size))
    assert not [event for event in receipt.events if isinstance(event, Skipped)]
    assert set(world.statuses(legs)) == {LegStatus.COMMITTED}


def most(gas_of: Callable[[int], int]) -> int:
    """How many items of a kind use the gas that a transaction may have."""
    return (gas.TRANSACTION_GAS_MAX - gas_of(0)) // (gas_of(1) - gas_of(0))


def test_the_largest_batches_fit(world: World) -> None:
    """As many items as the package says fit under the gas of one transaction and 64 KiB, and none is skipped."""
    legs = [world.leg()[0] for _ in range(most(gas.tombstone_gas))]
    digests = [terms.plan_digest for terms in legs]
    endings = [Finalisation(digest, PlanStatus.COMMITTED, digest) for digest in digests]
    held = [world.leg() for _ in range(gas.PREPARE_LEGS_MAX)]
    held_legs = [terms for terms, _ in held]
    batches = [
        (world.escrow, calls.encode_try_tombstone_many([terms.leg_key for terms in legs]), gas.tombstone_gas(len(legs))),
        (
            world.registry,
            registry.encode_register_many(digests[: gas.REGISTER_PLANS_MAX]),
            gas.register_gas(gas.REGISTER_PLANS_MAX),
        ),
        (
            world.registry,
            registry.encode_finalise_many(endings[: gas.FINALISE_PLANS_MAX]),
            gas.finalise_gas(gas.FINALISE_PLANS_MAX),
        ),
        (
            world.escrow,
            calls.encode_try_prepare_many(held_legs, [world.sign(terms) for terms in held_legs]),
            gas.prepare_gas(len(held)),
        ),
        (world.escrow, calls.encode_try_commit_many(held_legs, [key for _, key in held]), gas.pay_out_gas(len(held))),
    ]
    for contract, calldata, limit in batches:
        assert limit <= gas.TRANSACTION_GAS_MAX
        assert len(calldata) <= 65_536
        receipt = world.chain.send(world.operator, contract, calldata, gas=limit)
        assert not [event for event in receipt.events if isinstance(event, Skipped)]
    assert world.statuses(held_legs) == [LegStatus.COMMITTED] * len(held)
    world.control()
    paid = held_legs[: most(gas.reverse_gas)]
    assert gas.reverse_gas(len(paid)) <= gas.TRANSACTION_GAS_MAX
    receipt = world.operate(calls.encode_try_reverse_many(paid), gas=gas.reverse_gas(len(paid)))
    assert world.statuses(paid) == [LegStatus.REVERSED] * len(paid)
    assert gas.prepare_gas(1) <= GAS_LIMIT
