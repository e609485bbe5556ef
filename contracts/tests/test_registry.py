"""The notary's registry, against a real node."""

from __future__ import annotations

import pytest
from contracts_world import Reverted, World, address
from eth_utils.crypto import keccak

from lockstep_contracts import Finalisation, PlanStatus, decode_error
from lockstep_contracts import notary as calls
from lockstep_contracts.events import Finalised, Registered, Skipped

EVIDENCE = keccak(text="evidence")
OUTCOMES = (PlanStatus.COMMITTED, PlanStatus.ABORTED, PlanStatus.MIXED)


def plan(number: int) -> bytes:
    return keccak(text=f"plan {number}")


def statuses(world: World, *plans: bytes) -> list[PlanStatus]:
    answer = world.chain.call(world.registry, calls.encode_plan_status_of_many(plans))
    return list(calls.decode_plan_status_of_many(answer))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_register_then_finalise(world: World, outcome: PlanStatus) -> None:
    """A plan is registered, then ends once; both can be repeated in silence."""
    assert world.notarise(calls.encode_register(plan(1))).events == (Registered(plan(1)),)
    assert world.notarise(calls.encode_register(plan(1))).events == ()
    ending = Finalisation(plan(1), outcome, EVIDENCE)
    assert world.notarise(calls.encode_finalise(ending)).events == (Finalised(plan(1), outcome, EVIDENCE),)
    assert world.notarise(calls.encode_finalise(ending)).events == ()
    answer = world.chain.call(world.registry, calls.encode_plan_of(plan(1)))
    assert calls.decode_plan_of(answer) == (outcome, EVIDENCE[:31])
    assert calls.decode_plan_status_of(world.chain.call(world.registry, calls.encode_plan_status_of(plan(1)))) is outcome


def test_the_first_outcome_is_the_only_one(world: World) -> None:
    """Another outcome, or other evidence, is refused."""
    for number, outcome in enumerate(OUTCOMES):
        world.notarise(calls.encode_register(plan(number)))
        world.notarise(calls.encode_finalise(Finalisation(plan(number), outcome, EVIDENCE)))
        others = [Finalisation(plan(number), other, EVIDENCE) for other in OUTCOMES if other is not outcome]
        for contradiction in (*others, Finalisation(plan(number), outcome, bytes(32))):
            with pytest.raises(Reverted, match="OutcomeConflict"):
                world.notarise(calls.encode_finalise(contradiction))
    assert statuses(world, *(plan(number) for number in range(3))) == list(OUTCOMES)


def test_only_an_abort_needs_no_registration(world: World) -> None:
    """An unregistered plan can only be aborted, and is refused registration ever after."""
    for outcome in (PlanStatus.COMMITTED, PlanStatus.MIXED):
        with pytest.raises(Reverted, match="BadState"):
            world.notarise(calls.encode_finalise(Finalisation(plan(1), outcome, EVIDENCE)))
    world.notarise(calls.encode_finalise(Finalisation(plan(1), PlanStatus.ABORTED, EVIDENCE)))
    with pytest.raises(Reverted, match="BadState"):
        world.notarise(calls.encode_register(plan(1)))
    assert statuses(world, plan(1)) == [PlanStatus.ABORTED]


def test_batches_skip_what_cannot_be(world: World) -> None:
    """One bad item takes no other down, and is named."""
    world.notarise(calls.encode_finalise(Finalisation(plan(2), PlanStatus.ABORTED, EVIDENCE)))
    receipt = world.notarise(calls.encode_register_many([plan(1), plan(2), plan(3), plan(1)]))
    assert [type(event) for event in receipt.events] == [Registered, Skipped, Registered]
    endings = [
        Finalisation(plan(1), PlanStatus.COMMITTED, EVIDENCE),
        Finalisation(plan(2), PlanStatus.COMMITTED, EVIDENCE),
        Finalisation(plan(4), PlanStatus.MIXED, EVIDENCE),
        Finalisation(plan(3), PlanStatus.MIXED, EVIDENCE),
        Finalisation(plan(1), PlanStatus.COMMITTED, EVIDENCE),
    ]
    receipt = world.notarise(calls.encode_finalise_many(endings))
    skipped = [event for event in receipt.events if isinstance(event, Skipped)]
    named = [(event.key, error.name) for event in skipped if (error := decode_error(event.reason))]
    assert named == [(plan(2), "OutcomeConflict"), (plan(4), "BadState")]
    expected = [PlanStatus.COMMITTED, PlanStatus.ABORTED, PlanStatus.MIXED, PlanStatus.NONE]
    assert statuses(world, *(plan(number) for number in range(1, 5))) == expected


def test_a_state_is_no_outcome(world: World) -> None:
    """None and Registered cannot be recorded as an end."""
    for status in (PlanStatus.NONE, PlanStatus.REGISTERED):
        with pytest.raises(ValueError, match="outcome"):
            Finalisation(plan(1), status, EVIDENCE)
        with pytest.raises(Reverted, match="OutcomeInvalid"):
            world.notarise(calls.FINALISE.encode((plan(1), int(status), EVIDENCE)))


def test_the_operator_s_role_is_needed(world: World) -> None:
    """Nobody else writes, also not the admin."""
    ending = Finalisation(plan(1), PlanStatus.ABORTED, EVIDENCE)
    writing = [
        calls.encode_register(plan(1)),
        calls.encode_register_many([plan(1)]),
        calls.encode_finalise(ending),
        calls.encode_finalise_many([ending]),
    ]
    for calldata in writing:
        for person in (world.admin, world.arbiter, address("stranger")):
            with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
                world.chain.call(world.registry, calldata, sender=person)
