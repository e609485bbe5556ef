"""Merkle roots in the notary's registry, against a real node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from contracts_world import Reverted, World, address
from eth_utils.crypto import keccak

from lockstep_contracts import AnchorKind, Finalisation, PlanStatus, Root, decode_error, gas
from lockstep_contracts import notary as calls
from lockstep_contracts.events import Anchored, Registered, Skipped

KINDS = (AnchorKind.CHECKPOINT, AnchorKind.REGISTRATIONS, AnchorKind.OUTCOMES)


def root(number: int, kind: AnchorKind = AnchorKind.CHECKPOINT, size: int = 7) -> Root:
    return Root(kind, keccak(text=f"root {number}"), size)


def known(world: World, *roots: Root) -> list[tuple[AnchorKind, int]]:
    answer = world.chain.call(world.registry, calls.encode_anchor_of_many([each.root for each in roots]))
    return list(calls.decode_anchor_of_many(answer))


def test_the_call_has_the_signature_that_others_rely_on() -> None:
    """anchorMany((uint8,bytes32,uint64)[]) and Anchored(uint8,bytes32,uint64)."""
    one = root(1, size=2**64 - 1)
    calldata = calls.encode_anchor_many([one])
    assert calldata[:4] == keccak(text="anchorMany((uint8,bytes32,uint64)[])")[:4]
    words = [int(AnchorKind.CHECKPOINT).to_bytes(32), one.root, one.size.to_bytes(32)]
    assert calldata[4:] == b"".join([(32).to_bytes(32), (1).to_bytes(32), *words])


@pytest.mark.parametrize("kind", KINDS)
def test_anchors_once(world: World, kind: AnchorKind) -> None:
    """A root is anchored with its kind and size; the same again changes nothing, says nothing, and succeeds."""
    given = root(1, kind)
    assert known(world, given) == [(AnchorKind.NONE, 0)]
    assert world.notarise(calls.encode_anchor_many([given])).events == (Anchored(kind, given.root, given.size),)
    assert world.notarise(calls.encode_anchor_many([given, given])).events == ()
    assert known(world, given, root(2)) == [(kind, 7), (AnchorKind.NONE, 0)]


def test_what_is_known_of_a_root_never_changes(world: World) -> None:
    """Another kind or another size of an anchored root is skipped by name, and takes no other down."""
    first = root(1)
    world.notarise(calls.encode_anchor_many([first]))
    batch = [replace(first, size=8), root(2), replace(first, kind=AnchorKind.OUTCOMES), first]
    events = world.notarise(calls.encode_anchor_many(batch)).events
    assert [type(event) for event in events] == [Skipped, Anchored, Skipped]
    for event in events:
        if isinstance(event, Skipped):
            error = decode_error(event.reason)
            assert event.key == first.root
            assert error is not None
            assert (error.name, error.arguments["kind"], error.arguments["size"]) == ("AnchorConflict", AnchorKind.CHECKPOINT, 7)
    assert known(world, first, root(2)) == [(AnchorKind.CHECKPOINT, 7)] * 2


def test_a_root_of_nothing_is_none(world: World) -> None:
    """No kind, or no leaves: skipped; a kind that the contract does not know is refused as a whole."""
    empty = [(0, root(1).root, 7), (1, root(2).root, 0)]
    events = world.notarise(calls.ANCHOR_MANY.encode(empty)).events
    named = [(event.key, error.name) for event in events if isinstance(event, Skipped) and (error := decode_error(event.reason))]
    assert named == [(root(1).root, "AnchorInvalid"), (root(2).root, "AnchorInvalid")]
    with pytest.raises(Reverted):
        world.notarise(calls.ANCHOR_MANY.encode([(4, root(1).root, 7)]))
    assert known(world, root(1), root(2)) == [(AnchorKind.NONE, 0)] * 2


@pytest.mark.parametrize("change", [{"kind": AnchorKind.NONE}, {"size": 0}, {"size": 2**64}, {"root": bytes(31)}])
def test_what_cannot_be_encoded_cannot_exist(change: dict[str, Any]) -> None:
    """One such root would make a whole batch undecodable."""
    with pytest.raises(ValueError, match="root"):
        replace(root(1), **change)


def test_roots_and_plans_do_not_meet(world: World) -> None:
    """The same 32 bytes may be a plan's digest and a root."""
    given = root(1)
    world.notarise(calls.encode_anchor_many([given]))
    assert world.notarise(calls.encode_register(given.root)).events == (Registered(given.root),)
    world.notarise(calls.encode_finalise(Finalisation(given.root, PlanStatus.MIXED, bytes(32))))
    assert known(world, given) == [(AnchorKind.CHECKPOINT, 7)]


def test_the_operator_s_role_is_needed(world: World) -> None:
    """Nobody else anchors, also not the admin."""
    for person in (world.admin, world.arbiter, address("stranger")):
        with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
            world.chain.call(world.registry, calls.encode_anchor_many([root(1)]), sender=person)


def test_the_largest_batch_fits(world: World) -> None:
    """As many roots as the package says fit under the gas of one transaction and 64 KiB, and each is anchored."""
    batch = [root(number, size=2**64 - 1) for number in range(gas.ANCHOR_ROOTS_MAX)]
    calldata, limit = calls.encode_anchor_many(batch), gas.anchor_gas(len(batch))
    assert limit <= gas.TRANSACTION_GAS_MAX
    assert len(calldata) <= 65_536
    events = world.chain.send(world.operator, world.registry, calldata, gas=limit).events
    assert [type(event) for event in events] == [Anchored] * len(batch)
