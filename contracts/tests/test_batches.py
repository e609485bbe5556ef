"""Batches: each item for itself, the outcome by events and status."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contracts_world import Receipt, Reverted, World, signer

from lockstep_contracts import LegStatus, decode_error
from lockstep_contracts import escrow as calls
from lockstep_contracts.events import Skipped


def reasons(receipt: Receipt) -> list[tuple[bytes, str]]:
    """Which items were skipped, in order, and why."""
    found = []
    for event in receipt.events:
        if isinstance(event, Skipped):
            error = decode_error(event.reason)
            found.append((event.key, error.name if error else ""))
    return found


def test_prepare_takes_the_good_and_names_the_bad(world: World) -> None:
    """Late, unsigned, unfunded, tombstoned, conflicting and repeated items: each has its own fate."""
    good, _ = world.leg()
    late, _ = world.leg(prepare_by=1)
    unsigned, _ = world.leg()
    poor = signer("poor")
    unfunded, _ = world.leg(payer=poor.address)
    dead, _ = world.leg()
    world.operate(calls.encode_tombstone(dead.leg_key))
    held, _ = world.prepared()
    conflicting = replace(held, amount=5)
    last, _ = world.leg()
    legs = [good, late, unsigned, unfunded, dead, held, conflicting, last, good]
    signatures = [world.sign(terms) for terms in legs]
    signatures[2] = world.sign(good)
    signatures[3] = world.sign(unfunded, by=poor)
    receipt = world.operate(calls.encode_try_prepare_many(legs, signatures))
    assert reasons(receipt) == [
        (late.leg_key, "PrepareTooLate"),
        (unsigned.leg_key, "SignatureInvalid"),
        (unfunded.leg_key, "ERC20InsufficientAllowance"),
        (dead.leg_key, "BadState"),
        (held.leg_key, "TermsConflict"),
    ]
    prepared, nothing = LegStatus.PREPARED, LegStatus.NONE
    assert world.statuses([good, late, unsigned, unfunded, dead, held, last]) == [
        prepared, nothing, nothing, nothing, LegStatus.ABORTED, prepared, prepared,
    ]  # fmt: skip
    assert world.locked() == 3000
    world.assert_conserved()


def test_commit_takes_the_good_and_names_the_bad(world: World) -> None:
    """Wrong keys, unknown and aborted legs are skipped; repeats are silent."""
    pairs = [world.prepared() for _ in range(4)]
    (first, first_key), (wrong, _), (aborted, aborted_key), (last, last_key) = pairs
    unknown, unknown_key = world.leg()
    world.abort(aborted)
    legs = [first, wrong, unknown, aborted, first, last]
    keys = [first_key, first_key, unknown_key, aborted_key, first_key, last_key]
    receipt = world.operate(calls.encode_try_commit_many(legs, keys))
    assert reasons(receipt) == [(wrong.leg_key, "KeyWrong"), (unknown.leg_key, "BadState"), (aborted.leg_key, "BadState")]
    assert world.statuses([first, wrong, last]) == [LegStatus.COMMITTED, LegStatus.PREPARED, LegStatus.COMMITTED]
    assert world.balance(world.payee) == 2000
    world.assert_conserved()


def test_abort_takes_the_good_and_names_the_bad(world: World) -> None:
    """Prepared legs are refunded, unknown ones tombstoned, committed and conflicting ones skipped."""
    held, _ = world.prepared()
    unknown, _ = world.leg()
    committed, key = world.prepared()
    world.commit(committed, key)
    other, _ = world.prepared()
    conflicting = replace(other, payee=world.admin)
    receipt = world.operate(calls.encode_try_abort_many([committed, held, unknown, conflicting, held]))
    assert reasons(receipt) == [(committed.leg_key, "BadState"), (other.leg_key, "TermsConflict")]
    aborted = LegStatus.ABORTED
    assert world.statuses([held, unknown, committed, other]) == [aborted, aborted, LegStatus.COMMITTED, LegStatus.PREPARED]
    world.assert_conserved()


def test_tombstones_in_a_batch(world: World) -> None:
    """Unknown legs are tombstoned by their keys alone, held ones skipped."""
    held, _ = world.prepared()
    unknown, _ = world.leg()
    receipt = world.operate(calls.encode_try_tombstone_many([held.leg_key, unknown.leg_key, unknown.leg_key]))
    assert reasons(receipt) == [(held.leg_key, "BadState")]
    assert world.statuses([held, unknown]) == [LegStatus.PREPARED, LegStatus.ABORTED]


def test_lists_that_do_not_match_are_refused(world: World) -> None:
    """A batch with a signature or key too few takes no effect, on either side of the wire."""
    terms, key = world.leg()
    with pytest.raises(ValueError, match="1 and 2"):
        calls.encode_try_commit_many([terms], [key, key])
    with pytest.raises(Reverted, match="LengthsDiffer"):
        world.operate(calls.TRY_COMMIT_MANY.encode([terms.fields()], [key, key]))
    with pytest.raises(Reverted, match="LengthsDiffer"):
        world.operate(calls.TRY_PREPARE_MANY.encode([terms.fields()], [], []))
    assert world.operate(calls.encode_try_abort_many([])).events == ()


def test_a_paused_escrow_skips_prepares(world: World) -> None:
    """A pause is a reason like any other, item by item."""
    terms, _ = world.leg()
    world.chain.send(world.pauser, world.escrow, calls.PAUSE.encode())
    receipt = world.operate(calls.encode_try_prepare_many([terms], [world.sign(terms)]))
    assert reasons(receipt) == [(terms.leg_key, "EnforcedPause")]
