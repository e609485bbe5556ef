"""An irrevocable leg in the protocol: commanded last, promised without an end, never issued in a plan that is stuck."""

from __future__ import annotations

from protocol_drive import DEADLINE, SOFT, Drive

from coordinator.model import Abort, Commit, State
from lockstep_kit.certificate import Decision
from lockstep_kit.plan import Journal, Notarisation
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import CHAIN, address_of, credit_terms, instrument_terms, leg_of, plan_of, token_terms


def secured(*, soft: str = "") -> Drive:
    """A plan with an undertaking, which stands first in it; prepared, approved and released."""
    settling = [leg_of("guarantee", instrument_terms()), leg_of("tokens", token_terms()), leg_of("cash", credit_terms())]
    evidence = [leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))), leg_of("journal", Journal())]
    drive = Drive(plan_of([*settling, *evidence], deadline=DEADLINE)).ready()
    for leg in drive.case.legs:
        drive.yes(leg.leg_id, promise=SOFT if leg.leg_id == soft else None)
    drive.sign(Gate.APPROVE)
    drive.sign(Gate.RELEASE)
    return drive


def test_an_irrevocable_leg_goes_last() -> None:
    """An undertaking is commanded when everything else that moves value is done, wherever it stands in the plan."""
    drive = secured()
    assert drive.ordered(Commit) == ["tokens", "cash"]
    drive.done("cash")
    assert drive.ordered(Commit) == ["tokens", "cash"]
    drive.done("tokens")
    assert drive.ordered(Commit) == ["tokens", "cash", "guarantee"]
    drive.done("guarantee")
    assert drive.plan.state is State.VALIDATING


def test_an_irrevocable_leg_goes_after_the_soft_one() -> None:
    """The soft leg decides first and alone; the undertaking comes after all others even then; if the soft leg is released, its draft is let go."""
    drive = secured(soft="cash")
    assert drive.ordered(Commit) == ["cash"]
    drive.done("cash")
    assert drive.ordered(Commit) == ["cash", "tokens"]
    drive.done("tokens")
    assert drive.ordered(Commit) == ["cash", "tokens", "guarantee"]
    other = secured(soft="cash")
    other.refused("cash")
    other.released("cash")
    assert other.plan.decision is Decision.ABORT
    assert sorted(other.ordered(Abort)) == ["cash", "guarantee", "tokens"]
    assert other.ordered(Commit) == ["cash"]


def test_a_refused_irrevocable_leg_calls_people() -> None:
    """An undertaking that is not issued after all leaves a plan half executed, and people are told; a leg before it that is refused leaves it unissued."""
    drive = secured()
    drive.done("tokens", "cash")
    drive.refused("guarantee")
    assert drive.plan.state is State.PARTIALLY_EXECUTED
    assert drive.plan.tickets
    other = secured()
    other.done("tokens")
    other.refused("cash")
    assert other.plan.state is State.PARTIALLY_EXECUTED
    assert "guarantee" not in other.ordered(Commit)


def test_a_soft_irrevocable_leg_is_not_released() -> None:
    """A promise that can lapse goes first, and an irrevocable leg last: a plan in which one leg is both stops before its decision."""
    drive = secured(soft="guarantee")
    assert (drive.plan.state, drive.plan.reason, drive.plan.reason_leg) == (State.ABORTED, "STEP_DEPENDENCY_FAILED", "guarantee")
